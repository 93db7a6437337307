/**
 * What a run reports while it goes on. The coordinator emits these, metrics.jsonl keeps them, and the terminal, the
 * plots and the dashboard read nothing else. `at` is a Unix time in millis.
 */
export type RunEvent = { readonly at: number } & (
  | {
      readonly type: 'listening';
      readonly url: string;
      readonly fingerprint: string | undefined;
      /** Base64url of the Ed25519 key that the run's log is signed with; absent in runs from before it was said. */
      readonly logPublicKey?: string;
    }
  | { readonly type: 'invite'; readonly invite: string; readonly expiresAt: number; readonly uses: number }
  | { readonly type: 'resumed'; readonly round: number }
  | { readonly type: 'joined'; readonly clientId: string; readonly name: string; readonly rejoined: boolean }
  | {
      readonly type: 'ready';
      readonly clientId: string;
      readonly name: string;
      /** Absent where secure aggregation hides it. */
      readonly trainExamples?: number;
      readonly testExamples: number;
      readonly engine: string;
    }
  | { readonly type: 'left'; readonly clientId: string; readonly name: string; readonly reason: string }
  /** The lead has expelled it, for good. */
  | { readonly type: 'revoked'; readonly clientId: string; readonly name: string; readonly reason: string }
  /** Emitted when the wait begins and each time who is here changes. */
  | {
      readonly type: 'waiting';
      readonly round: number;
      readonly here: readonly string[];
      readonly missing: number;
      readonly next: string;
    }
  | {
      readonly type: 'round-started';
      readonly round: number;
      readonly cohort: readonly string[];
      readonly modelBytes: number;
      readonly deadlineAt: number | null;
    }
  | {
      readonly type: 'progress';
      readonly round: number;
      readonly name: string;
      readonly state: string;
      /** In [0, 1]. */
      readonly progress: number;
    }
  | {
      readonly type: 'update-accepted';
      readonly round: number;
      readonly name: string;
      /** Absent in a masked update, which has it inside. */
      readonly numExamples?: number;
      readonly bytes: number;
      readonly metrics: Readonly<Record<string, number>>;
    }
  | {
      readonly type: 'update-refused';
      readonly round: number;
      readonly name: string;
      readonly code: string;
      readonly reason: string;
    }
  | {
      readonly type: 'client-failed';
      readonly round: number;
      readonly name: string;
      readonly code: string;
      readonly reason: string;
    }
  | {
      readonly type: 'evaluated';
      readonly round: number;
      /** Example-weighted over the sites; empty when no site evaluates. */
      readonly metrics: Readonly<Record<string, number>>;
      readonly sites: readonly {
        readonly name: string;
        readonly numExamples: number;
        readonly metrics: Readonly<Record<string, number>>;
      }[];
      readonly central: Readonly<Record<string, number>> | undefined;
    }
  | {
      readonly type: 'committed';
      readonly round: number;
      readonly digest: string;
      /** Of masked updates about, and absent where they all weigh the same. */
      readonly numExamples?: number;
      readonly updates: number;
      /** Of masked updates: the share of their values that was clipped, in [0, 1]. */
      readonly clippedFraction?: number;
      readonly seconds: number;
      readonly best: boolean;
      /** Of the site that has spent most, and the budget; there when the run is private. */
      readonly privacy?: {
        readonly epsilonSpent: number;
        readonly budget: { epsilon: number; delta: number };
      };
    }
  | { readonly type: 'warning'; readonly message: string }
  | {
      readonly type: 'finished';
      readonly round: number;
      readonly reason: 'rounds' | 'early-stopping' | 'privacy-budget' | 'stopped' | 'failed';
      readonly bestRound: number;
      readonly message: string;
    }
);
export type RunEventType = RunEvent['type'];

/** A snapshot for `tributary status`. */
export interface RunStatus {
  readonly runId: string;
  readonly name: string;
  readonly state: 'waiting' | 'training' | 'evaluating' | 'finished';
  readonly round: number;
  readonly rounds: number;
  readonly clients: readonly {
    readonly clientId: string;
    readonly name: string;
    readonly connected: boolean;
    readonly state: string;
    readonly progress: number;
    /** Absent where secure aggregation hides it, or it is not known yet. */
    readonly trainExamples?: number;
    readonly testExamples: number;
    readonly lastSeenAt: number;
  }[];
  /** Everyone who has ever joined, in that order. */
  readonly members: readonly {
    readonly clientId: string;
    readonly name: string;
    /** Base64url; undefined for a site of protocol 1. */
    readonly publicKey: string | undefined;
    /** Unix millis. */
    readonly joinedAt: number | undefined;
    /** Set once it is expelled. */
    readonly revoked: { readonly at: number | undefined; readonly reason: string } | undefined;
  }[];
  readonly waitingFor: string | undefined;
  readonly metrics: Readonly<Record<string, number>>;
  readonly bestRound: number;
  /** Of a run with a budget: what each site had spent by the last commit, at the budget's delta. */
  readonly privacy?: {
    readonly budget: { readonly epsilon: number; readonly delta: number };
    readonly epsilonSpent: Readonly<Record<string, number>>;
  };
}
