/** What log.jsonl records, and the state of a run that follows from reading it from the start. */

import type { KeyChange, RunEvent, RunStatus } from '@tributary/shared-protocol';
import type { KeptProof } from '../members/proof-check.ts';

type Metrics = Readonly<Record<string, number>>;
type RunEnd = Extract<RunEvent, { type: 'finished' }>['reason'];

export type LogEntry =
  | {
      readonly type: 'run-started';
      readonly runId: string;
      readonly name: string;
      readonly publicKey: string;
      readonly initial: string;
      /** True: `log.head` was kept from the first record on. Absent in logs from before there was one. */
      readonly head?: boolean;
    }
  | { readonly type: 'run-resumed'; readonly round: number; readonly repairedBytes: number }
  /** `invite` is the SHA-256 of its secret, which is kept nowhere. */
  | { readonly type: 'invited'; readonly invite: string; readonly uses: number; readonly expiresAt: number }
  | {
      readonly type: 'joined';
      readonly clientId: string;
      readonly name: string;
      readonly invite: string;
      /** Base64url of the site's public key. Absent in logs of protocol 1, whose sites had none. */
      readonly key?: string;
    }
  | { readonly type: 'left'; readonly clientId: string; readonly name: string; readonly reason: string }
  /**
   * The lead has expelled a site: its key, its name and the invite that it came with let nobody in any more, and its
   * update of the open round does not count.
   */
  | {
      readonly type: 'revoked';
      readonly clientId: string;
      readonly name: string;
      /** The key that it had; absent for a site of protocol 1. */
      readonly key?: string;
      readonly reason: string;
    }
  /** A site has a new key; what it signs from now on is signed with that. */
  | {
      readonly type: 'rekeyed';
      readonly clientId: string;
      readonly name: string;
      readonly key: string;
      readonly former: string;
      /** The former key's signature over the message, and the new one's. */
      readonly proof: KeptProof & { readonly confirmation: string };
    }
  /** The coordinator shows another certificate than before: SHA-256 of it, null without TLS. */
  | { readonly type: 'certificate'; readonly fingerprint: string | null }
  | {
      readonly type: 'round-started';
      readonly round: number;
      /** Names, sorted. */
      readonly cohort: readonly string[];
      /** Digest of the global model's frame. */
      readonly base: string;
      readonly learningRate: number;
    }
  | {
      readonly type: 'round-extended';
      readonly round: number;
      readonly extension: number;
      readonly reason: string;
    }
  /** Under secure aggregation: a site has an update of the round, and keeps it until it is masked. */
  | {
      readonly type: 'trained';
      readonly round: number;
      readonly name: string;
      /** In a private federation: which update, and from how many examples. */
      readonly release?: { readonly update: string; readonly numExamples: number };
    }
  | {
      readonly type: 'update-accepted';
      readonly round: number;
      readonly name: string;
      /** Of the masked one, where there is an `attempt`. */
      readonly digest: string;
      readonly bytes: number;
      /** Absent in a masked update, which has it inside. */
      readonly numExamples?: number;
      readonly metrics: Metrics;
      /** Of the secure sum that it was masked for. */
      readonly attempt?: string;
      /** The site's signature over its offer, and what else the offer said. Absent in logs of protocol 1. */
      readonly offer?: KeptProof & { readonly base: string; readonly chunkBytes: number };
    }
  /** Sites were asked to unmask the sum of these, and of no others from then on. */
  | {
      readonly type: 'survivors';
      readonly round: number;
      readonly attempt: string;
      /** Ascending. */
      readonly names: readonly string[];
    }
  | {
      readonly type: 'update-refused';
      readonly round: number;
      readonly name: string;
      readonly digest: string;
      /** As the site said. Absent in logs from before privacy was accounted for. */
      readonly numExamples?: number;
      readonly code: string;
      readonly reason: string;
    }
  | {
      readonly type: 'client-failed';
      readonly round: number;
      readonly name: string;
      readonly task: string;
      readonly code: string;
      readonly reason: string;
    }
  /**
   * Noise is about to be drawn for the sum of a round's updates, where the privacy of sites has it at the coordinator. It
   * counts from here on, for each of these sites, whether the round is committed or made once more with other noise.
   */
  | {
      readonly type: 'noised';
      readonly round: number;
      /** Names, sorted: whose updates are in the sum. */
      readonly sites: readonly string[];
      /** To which they were clipped, and that the noise is for. */
      readonly clippingNorm: number;
      /** What the noised sum is divided by: the sites that were asked. */
      readonly expectedCohort: number;
    }
  | {
      readonly type: 'committed';
      readonly round: number;
      readonly checkpoint: string;
      /** Digest of the global model's frame after the round. */
      readonly model: string;
      /** Names and digests of the updates that went in, by name. */
      readonly updates: readonly {
        readonly name: string;
        readonly digest: string;
        /** Absent for a masked update. */
        readonly numExamples?: number;
      }[];
      /** Of all updates together; of masked ones about, and absent where they all weigh the same. */
      readonly numExamples?: number;
      /** Share of the updates' values that were clipped before they were masked, in [0, 1]. */
      readonly clippedFraction?: number;
      readonly trainMetrics: Metrics;
      readonly siteMetrics: Metrics;
      readonly centralMetrics: Metrics | null;
      readonly best: boolean;
      readonly seconds: number;
      /** Epsilon that each site of the run has spent so far, at the budget's delta; there when the run is private. */
      readonly epsilonSpent?: Readonly<Record<string, number>>;
      /** What the next round's updates are clipped to; there when that norm adapts. */
      readonly nextClippingNorm?: number;
    }
  | {
      readonly type: 'finished';
      readonly round: number;
      readonly reason: RunEnd;
      readonly message: string;
    };

type RoundStart = Extract<LogEntry, { type: 'round-started' }>;
export type AcceptedUpdate = Extract<LogEntry, { type: 'update-accepted' }>;
export type CommittedRound = Extract<LogEntry, { type: 'committed' }>;

export interface MemberRecord {
  readonly clientId: string;
  readonly name: string;
  /** Base64url of its public key; undefined when it joined under protocol 1, and so can't come back. */
  readonly key: string | undefined;
  /** How it came to that, oldest first. */
  readonly keyChanges: readonly KeyChange[];
  /** Hash of the invite that it came with. */
  readonly invite: string;
  /** Unix millis; undefined when the record's time is not known. */
  readonly joinedAt: number | undefined;
  /** Set once it is expelled. */
  readonly revoked: { readonly at: number | undefined; readonly reason: string } | undefined;
}

/** A record with its time, where it has been written. */
export type Logged = LogEntry & { readonly at?: number };

export interface InviteRecord {
  readonly uses: number;
  readonly expiresAt: number;
  used: number;
  /** The site that came with it was expelled: it lets nobody in any more. */
  withdrawn: boolean;
}

/** Where a run stands. */
export interface RunState {
  runId: string;
  /** Digest of the first model's frame. */
  initial: string;
  readonly members: Map<string, MemberRecord>;
  /** By the hash of the secret. */
  readonly invites: Map<string, InviteRecord>;
  readonly commits: CommittedRound[];
  /** By site: examples behind each update that left it, by round and digest, accepted or not. */
  readonly released: Map<string, Map<string, number>>;
  /** By site and round: how often noise was drawn for a sum that has its update. */
  readonly noised: Map<string, Map<number, number>>;
  /** The round that had started but was not committed. */
  open:
    | {
        round: number;
        /** Those that were asked, without those expelled since. */
        cohort: readonly string[];
        /** How many were asked. */
        asked: number;
        base: string;
        learningRate: number;
        accepted: Map<string, AcceptedUpdate>;
        /** Those of whom the sites were asked to unmask the sum. */
        survivors: readonly string[] | undefined;
      }
    | undefined;
  /** Of the certificate that was shown last; undefined before the first was recorded. */
  certificate: string | null | undefined;
  finished: Extract<LogEntry, { type: 'finished' }> | undefined;
}

/** The state after all of `entries`; a run begins again after `finished` only when it had failed or was stopped. */
export function replay(entries: Iterable<Logged>): RunState {
  const state: RunState = {
    runId: '',
    initial: '',
    members: new Map(),
    invites: new Map(),
    commits: [],
    released: new Map(),
    noised: new Map(),
    open: undefined,
    certificate: undefined,
    finished: undefined,
  };
  for (const entry of entries) apply(state, entry);
  return state;
}

/** Takes one more record into `state`. */
export function apply(state: RunState, entry: Logged): void {
  switch (entry.type) {
    case 'run-started':
      state.runId = entry.runId;
      state.initial = entry.initial;
      break;
    case 'run-resumed':
      state.finished = undefined;
      break;
    case 'invited':
      state.invites.set(entry.invite, {
        uses: entry.uses,
        expiresAt: entry.expiresAt,
        used: 0,
        withdrawn: false,
      });
      break;
    case 'joined': {
      state.members.set(entry.name, {
        clientId: entry.clientId,
        name: entry.name,
        key: entry.key,
        invite: entry.invite,
        joinedAt: entry.at,
        keyChanges: [],
        revoked: undefined,
      });
      const invite = state.invites.get(entry.invite);
      if (invite) invite.used++;
      break;
    }
    case 'revoked':
      expel(state, entry);
      break;
    case 'rekeyed': {
      const member = state.members.get(entry.name);
      if (member)
        state.members.set(entry.name, {
          ...member,
          key: entry.key,
          keyChanges: [...member.keyChanges, { former: entry.former, key: entry.key, ...entry.proof }],
        });
      break;
    }
    case 'certificate':
      state.certificate = entry.fingerprint;
      break;
    case 'round-started':
      state.open = {
        round: entry.round,
        cohort: entry.cohort,
        asked: entry.cohort.length,
        base: entry.base,
        learningRate: entry.learningRate,
        accepted: keptUpdates(state, entry),
        survivors: isSameRound(state, entry) ? state.open?.survivors : undefined,
      };
      break;
    case 'trained':
      if (entry.release) {
        const { update, numExamples } = entry.release;
        noteReleased(state, { ...entry, digest: update, numExamples });
      }
      break;
    case 'survivors':
      if (state.open?.round === entry.round) state.open.survivors = entry.names;
      break;
    case 'update-accepted':
      noteReleased(state, entry);
      if (state.open?.round === entry.round) state.open.accepted.set(entry.name, entry);
      break;
    case 'noised':
      noteNoised(state, entry);
      break;
    case 'committed':
      state.commits.push(entry);
      state.open = undefined;
      break;
    case 'finished':
      state.finished = entry;
      break;
    case 'update-refused':
      noteReleased(state, entry);
      break;
    case 'left':
    case 'round-extended':
    case 'client-failed':
      break;
  }
}

/** The members as `tributary members` shows them, in the order in which they joined. */
export function memberViews({ members }: RunState): RunStatus['members'] {
  return [...members.values()].map(({ clientId, name, key, joinedAt, revoked }) => ({
    clientId,
    name,
    publicKey: key,
    joinedAt,
    revoked,
  }));
}

/** The round of the best commit so far, or 0. */
export function bestRound(state: RunState): number {
  return state.commits.findLast((c) => c.best)?.round ?? 0;
}

function noteReleased(
  { released }: RunState,
  { name, round, digest, numExamples }: { name: string; round: number; digest: string; numExamples?: number },
): void {
  if (numExamples === undefined) return;
  const own = released.get(name) ?? new Map<string, number>();
  own.set(`${round} ${digest}`, numExamples);
  released.set(name, own);
}

function noteNoised({ noised }: RunState, { round, sites }: Extract<LogEntry, { type: 'noised' }>): void {
  for (const name of sites) {
    const own = noised.get(name) ?? new Map<number, number>();
    own.set(round, (own.get(round) ?? 0) + 1);
    noised.set(name, own);
  }
}

function expel(state: RunState, { name, reason, at }: Extract<Logged, { type: 'revoked' }>): void {
  const member = state.members.get(name);
  if (!member) return;
  state.members.set(name, { ...member, revoked: { at, reason } });
  const invite = state.invites.get(member.invite);
  if (invite) invite.withdrawn = true;
  if (!state.open) return;
  state.open.cohort = state.open.cohort.filter((one) => one !== name);
  state.open.accepted.delete(name);
}

/** A round that is started once more, because too few of its sites were left, keeps the updates that it has. */
function keptUpdates(state: RunState, start: RoundStart): Map<string, AcceptedUpdate> {
  if (!isSameRound(state, start)) return new Map();
  return new Map([...(state.open?.accepted ?? [])].filter(([name]) => start.cohort.includes(name)));
}

function isSameRound({ open }: RunState, { round, base }: RoundStart): boolean {
  return open?.round === round && open.base === base;
}
