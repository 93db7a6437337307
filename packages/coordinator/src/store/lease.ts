/**
 * Who leads: one entry of a key-value bucket, renewed every second with the revision that it had, so that of two who
 * would write it one is refused. No clock is compared with another's: who stands by takes the lease once it has seen
 * the same revision for the lease's time, and the leader counts that time from before it asked. (Gray and Cheriton,
 * Leases, 1989.) The term in the entry grows with each leader.
 */
import { JetStreamApiCodes, JetStreamApiError } from '@nats-io/jetstream';
import type { KV } from '@nats-io/kv';
import { CoordinatorError } from '../errors.ts';
import { pause } from './patience.ts';
import type { Leader, LeadOptions } from './store.ts';

export interface LeaseOptions {
  readonly kv: KV;
  /** This process, for people, and unique. */
  readonly where: string;
  readonly holder: string;
  /** How long nobody else takes it, from each renewal. */
  readonly leaseMs: number;
}

export interface Lease {
  readonly term: number;
  readonly signal: AbortSignal;
  /** Whether the lease is this process's for certain. */
  isValid(): boolean;
  /** Called when it has run out and the server does not say whose it is, and when that is over; must not throw. */
  onDoubt(listener: (inDoubt: boolean) => void): void;
  /** Says that it is lost, for another reason than that another has it. */
  lose(error: CoordinatorError): void;
  release(ended?: string): Promise<void>;
}

interface Entry extends Leader {
  readonly holder: string;
  /** Given up by its holder. */
  readonly released?: boolean;
  /** Why nobody need take it. */
  readonly ended?: string;
}

const KEY = 'lease';
/** Renewals a lease, and looks at it. */
const SHARE = 5;
/** The holder takes it for lost so much earlier than anybody else may. */
const MARGIN = 0.9;

/** Resolves once the lease is this process's. */
export async function takeLease(
  options: LeaseOptions,
  { signal, onStandby }: LeadOptions = {},
): Promise<Lease> {
  const { kv, where, holder, leaseMs } = options;
  let seen: { readonly revision: number; readonly since: number } | undefined;
  let told = -1;
  let waited = false;
  for (;;) {
    signal?.throwIfAborted();
    const askedAt = performance.now();
    const found = await read(kv);
    if (found === 'unknown') {
      // Whoever leads could not renew it either, and comes first.
      seen = undefined;
    } else {
      const { entry, revision } = found;
      if (entry !== undefined && entry.released !== true && entry.term !== told) {
        told = entry.term;
        waited = true;
        onStandby?.({ term: entry.term, where: entry.where });
      }
      if (waited && entry?.ended !== undefined) {
        throw new CoordinatorError(
          'FED_STORE_ENDED',
          `the leader at ${entry.where} has ended the run: ${entry.ended}`,
        );
      }
      if (seen?.revision !== revision) seen = { revision, since: performance.now() };
      const isFree = entry === undefined || entry.released === true || askedAt - seen.since >= leaseMs;
      if (isFree) {
        const term = (entry?.term ?? 0) + 1;
        const startedAt = performance.now();
        const own = await write(kv, { term, where, holder }, revision);
        if (own !== undefined) return hold(options, { term, revision: own, startedAt });
      }
    }
    await pause(leaseMs / SHARE / 2, signal);
  }
}

function hold(
  { kv, where, holder, leaseMs }: LeaseOptions,
  start: { readonly term: number; readonly revision: number; readonly startedAt: number },
): Lease {
  const { term } = start;
  let { revision } = start;
  let validUntil = start.startedAt + leaseMs * MARGIN;
  const lost = new AbortController();
  const over = new AbortController();
  let tell: (inDoubt: boolean) => void = () => {};
  let inDoubt = false;
  const renewing = renewAll();

  async function renewAll(): Promise<void> {
    while (!lost.signal.aborted && !over.signal.aborted) {
      await pause(leaseMs / SHARE, over.signal);
      if (over.signal.aborted) return;
      const startedAt = performance.now();
      const next = await write(kv, { term, where, holder }, revision);
      if (next !== undefined) {
        revision = next;
        validUntil = startedAt + leaseMs * MARGIN;
        doubt(false);
        continue;
      }
      const found = await read(kv);
      if (found === 'unknown') {
        doubt(performance.now() >= validUntil);
        continue;
      }
      const { entry } = found;
      // An answer of ours that got lost.
      if (entry?.holder === holder && entry.term === term) {
        revision = found.revision;
        doubt(performance.now() >= validUntil);
      } else lose(lostTo(entry));
    }
  }

  function doubt(now: boolean): void {
    if (now === inDoubt) return;
    inDoubt = now;
    tell(now);
  }

  function lose(error: CoordinatorError): void {
    if (!over.signal.aborted) lost.abort(error);
  }

  return {
    term,
    signal: lost.signal,
    isValid: () => !lost.signal.aborted && !over.signal.aborted && performance.now() < validUntil,
    onDoubt(listener) {
      tell = listener;
    },
    lose,
    async release(ended) {
      if (over.signal.aborted) return;
      over.abort();
      await renewing;
      if (lost.signal.aborted) return;
      await write(
        kv,
        { term, where, holder, released: true, ...(ended === undefined ? {} : { ended }) },
        revision,
      );
    },
  };
}

function lostTo(entry: Entry | undefined): CoordinatorError {
  const who =
    entry === undefined ? 'its entry was removed' : `${entry.where} leads now, in term ${entry.term}`;
  return new CoordinatorError(
    'FED_STORE_LEASE_LOST',
    `this coordinator does not lead any more: ${who}. Nothing that was committed is lost, and the run goes on there; the same command, started again, stands by`,
  );
}

/** The entry as it is; 'unknown' when the server does not say. */
async function read(kv: KV): Promise<{ entry: Entry | undefined; revision: number } | 'unknown'> {
  try {
    const found = await kv.get(KEY);
    if (found === null) return { entry: undefined, revision: 0 };
    return { entry: found.operation === 'PUT' ? found.json<Entry>() : undefined, revision: found.revision };
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound)
      return { entry: undefined, revision: 0 };
    return 'unknown';
  }
}

/** The new revision; undefined when another came first, or the server did not answer. */
async function write(kv: KV, entry: Entry, revision: number): Promise<number | undefined> {
  try {
    const text = JSON.stringify(entry);
    return await (revision === 0 ? kv.create(KEY, text) : kv.update(KEY, text, revision));
  } catch (error) {
    // Which of the two, the next look at it tells.
    if ((error as Error).name !== 'Error') return undefined;
    throw error;
  }
}
