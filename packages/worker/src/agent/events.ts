/** What a site reports while it takes part. The terminal's `join` reads nothing else. `at` is a Unix time in millis. */

/** One check before a site joins. `advice` says what to do when the state isn't `ok`. */
export interface PreflightStep {
  readonly name:
    | 'state'
    | 'identity'
    | 'policy'
    | 'address'
    | 'protocol'
    | 'clock'
    | 'disk'
    | 'data'
    | 'images'
    | 'engine';
  readonly state: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  readonly advice: string | undefined;
}

export type WorkerTask = 'train' | 'evaluate';

export type WorkerEvent = { readonly at: number } & (
  | { readonly type: 'preflight'; readonly step: PreflightStep }
  /** Reading the site's folders before it is ready; counts are images. */
  | { readonly type: 'preparing'; readonly message: string }
  /** The coordinator knows this site; emitted once a link. */
  | {
      readonly type: 'joined';
      readonly clientId: string;
      readonly name: string;
      readonly federation: string;
      readonly runId: string;
      readonly rounds: number;
      readonly rejoined: boolean;
    }
  | {
      readonly type: 'ready';
      readonly trainExamples: number;
      readonly testExamples: number;
      readonly unreadable: number;
      readonly engine: string;
      readonly engineReason: string;
    }
  /** Nothing to do here until the coordinator says so; `next` says what that will be. */
  | { readonly type: 'waiting'; readonly next: string }
  | {
      readonly type: 'planned';
      readonly task: WorkerTask;
      readonly round: number;
      readonly deadlineAt: number | null;
    }
  | { readonly type: 'fetching'; readonly round: number; readonly bytes: number; readonly totalBytes: number }
  /** `progress` in [0, 1]. */
  | { readonly type: 'training'; readonly round: number; readonly progress: number }
  | { readonly type: 'evaluating'; readonly round: number; readonly progress: number }
  /** The update is on this disk, and will be offered until the coordinator has an answer. */
  | {
      readonly type: 'spooled';
      readonly round: number;
      readonly bytes: number;
      readonly numExamples: number;
      readonly metrics: Readonly<Record<string, number>>;
    }
  /** The update is masked together with those of so many sites, this one among them. */
  | {
      readonly type: 'masked';
      readonly round: number;
      readonly sites: number;
      /** Share of its values that were clipped, in [0, 1]. */
      readonly clippedFraction: number;
    }
  | { readonly type: 'offered'; readonly round: number; readonly decision: 'send' | 'have' | 'refused' }
  | { readonly type: 'sending'; readonly round: number; readonly bytes: number; readonly totalBytes: number }
  | { readonly type: 'accepted'; readonly round: number }
  | { readonly type: 'refused'; readonly round: number; readonly code: string; readonly reason: string }
  | {
      readonly type: 'evaluated';
      readonly round: number;
      readonly numExamples: number;
      readonly metrics: Readonly<Record<string, number>>;
    }
  /** A newer plan replaced this one. */
  | {
      readonly type: 'abandoned';
      readonly task: WorkerTask;
      readonly round: number;
      readonly reason: string;
    }
  | {
      readonly type: 'trainer-crashed';
      readonly attempt: number;
      readonly attempts: number;
      readonly reason: string;
    }
  /** This site gave up on a plan and told the coordinator so. */
  | {
      readonly type: 'failed';
      readonly task: WorkerTask;
      readonly round: number;
      readonly code: string;
      readonly reason: string;
    }
  /** This site's policy refused a plan; the coordinator was told. */
  | {
      readonly type: 'declined';
      readonly task: WorkerTask;
      readonly round: number;
      readonly code: string;
      readonly reason: string;
    }
  /** This site's policy keeps a finished update from being sent; `kept`: until it may be. */
  | {
      readonly type: 'withheld';
      readonly round: number;
      readonly code: string;
      readonly reason: string;
      readonly kept: boolean;
    }
  /** This site's policy lets it work again at `until`, a Unix time in millis; it has no link until then. */
  | { readonly type: 'resting'; readonly code: string; readonly reason: string; readonly until: number }
  | {
      readonly type: 'reconnecting';
      readonly attempt: number;
      readonly delayMs: number;
      readonly reason: string;
    }
  | { readonly type: 'log'; readonly message: string }
  | {
      readonly type: 'finished';
      readonly ended: 'goodbye' | 'left';
      readonly code: string;
      readonly reason: string;
    }
);
export type WorkerEventType = WorkerEvent['type'];

/** What a site did in a run, from when this process began. */
export interface WorkerSummary {
  readonly clientId: string;
  readonly name: string;
  readonly runId: string;
  /** `goodbye`: the coordinator ended it (`code` and `reason` are its own); `left`: this site did. */
  readonly ended: 'goodbye' | 'left';
  readonly code: string;
  readonly reason: string;
  readonly updatesAccepted: number;
  readonly updatesRefused: number;
  readonly evaluations: number;
  /** Where key, global models and spool lie. */
  readonly stateDir: string;
}

/** An event without its time, which whoever emits it adds. */
export type WorkerEventBody = WorkerEvent extends infer E
  ? E extends WorkerEvent
    ? Omit<E, 'at'>
    : never
  : never;
export type EmitWorkerEvent = (event: WorkerEventBody) => void;
