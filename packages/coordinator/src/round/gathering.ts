/**
 * Who a round of training waits for, and until when. Plans go to those that have none on their present link; a lost site
 * may come back for a while, what moves is waited for, and a round below its quorum is opened again a few times. Every
 * wait has an end, and says what comes after it.
 */
import { type BlobRef, type Channel, crashPoint, errorCode } from '@tributary/shared-protocol';
import type { Member } from '../members/roster.ts';
import type { RunContext } from './context.ts';

export interface TrainRoundPlan {
  readonly round: number;
  /** Names, sorted. */
  readonly cohort: readonly string[];
  readonly model: BlobRef;
  readonly learningRate: number;
  /** What the sites are told to clip to; undefined where their configuration says it, or nothing is clipped. */
  readonly clippingNorm?: number | undefined;
  /** How many were asked before any was expelled. @default cohort.length */
  readonly asked?: number;
}

/** What a round tells of its sites. */
export interface Gathered {
  /** Updates that are here. */
  count(): number;
  /** `pending`: it has to be told its plan; `busy`: something is still due from it; `done`: nothing is. */
  standing(name: string): 'pending' | 'busy' | 'done';
  /** When something last came of an update that is on its way; undefined when none is. */
  movedAt(name: string): number | undefined;
  /** The round is opened again: a site that had given up may be asked once more. */
  reopen(name: string): void;
  /** The link of one of its sites has come or gone. */
  onMember(member: Member): void;
}

export interface Gathering {
  /** What is here suffices, or the round is over: nothing more is taken. */
  readonly closed: boolean;
  readonly minUpdates: number;
  /** Set once a site of the round was expelled. */
  readonly expelled: SiteExpelled | undefined;
  /** Resolves when the round may go on with what is here; rejects with the signal's reason, RoundFailed, SiteExpelled. */
  wait(): Promise<void>;
  /** Looks at where the round stands. To be called when something of it has changed. */
  review(): void;
  /** Opens the round again; throws RoundFailed when that was done often enough. */
  extend(why: string): void;
  /** Ends the wait with this error. */
  fail(error: unknown): void;
  expel(name: string): void;
}

/** Thrown when a round ends below its quorum; the run ends as failed, and can be started again. */
export class RoundFailed extends Error {
  override readonly name = 'RoundFailed' as const;
}

/** Thrown when a site of the round was expelled: what is left of the round is played without it. */
export class SiteExpelled extends Error {
  override readonly name = 'SiteExpelled' as const;
}

/** The fewest updates from which a round may be made that asked so many sites. */
export function fewestUpdates(quorum: number, asked: number): number {
  return Math.min(quorum, asked);
}

/** An update of which no chunk came for this long is not on its way any more; as long as a fetch waits for one. */
const STANDSTILL_MS = 30_000;

export function createGathering(context: RunContext, plan: TrainRoundPlan, gathered: Gathered): Gathering {
  const { federation, roster, now } = context;
  const { deadlines } = federation;
  const { round, cohort, model } = plan;
  const minUpdates = fewestUpdates(federation.cohort.quorum, plan.asked ?? cohort.length);
  const targetUpdates = Math.max(minUpdates, Math.ceil(federation.cohort.target * cohort.length));
  const members = new Set(cohort);
  /** The link on which a site has its plan; on another one it gets it again. */
  const planned = new Map<string, Channel>();
  const startedAt = now();
  let deadlineAt = startedAt + deadlines.roundSeconds * 1000;
  let extensions = 0;
  let closed = false;
  let expelled: SiteExpelled | undefined;
  let settle: { resolve: () => void; reject: (reason: unknown) => void } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let lastWaiting = '';
  /** The deadline past which the round was last said to stay open. */
  let toldPast = 0;

  /** Sites that may still bring something: those at work, and lost ones for as long as they may come back. */
  function awaited(): string[] {
    return cohort.filter((name) => gathered.standing(name) !== 'done' && graceEnd(name) > now());
  }

  function graceEnd(name: string): number {
    const member = roster.members.get(name);
    if (member?.channel) return Number.POSITIVE_INFINITY;
    return (
      Math.max(member?.lostAt ?? startedAt, startedAt) +
      (member?.lostAt === Number.NEGATIVE_INFINITY ? 0 : deadlines.rejoinSeconds * 1000)
    );
  }

  /** Looks at where the round stands and closes or extends it when it is time; else sets the clock for the next look. */
  function review(): void {
    if (closed || !settle) return;
    clearTimeout(timer);
    const count = gathered.count();
    const missing = awaited();
    const arriving = now() >= deadlineAt ? stillArriving() : [];
    const timeIsUp = now() >= deadlineAt && arriving.length === 0;
    if (count >= targetUpdates || ((missing.length === 0 || timeIsUp) && count >= minUpdates)) {
      closed = true;
      settle.resolve();
      return;
    }
    if (missing.length === 0 || timeIsUp) {
      try {
        extend(timeIsUp ? 'its time is up' : 'no site is left that could send an update');
      } catch (error) {
        closed = true;
        settle.reject(error);
      }
      return;
    }
    saySo(missing);
    const graces = missing.map(graceEnd).filter(Number.isFinite);
    const standstills = arriving.map((name) => gathered.movedAt(name)! + STANDSTILL_MS);
    const wakeAt = Math.min(arriving.length > 0 ? lastDeadline() : deadlineAt, ...graces, ...standstills);
    timer = setTimeout(review, Math.min(2 ** 31 - 1, Math.max(1, wakeAt - now())));
  }

  /** However slowly an update arrives, the round ends then. */
  function lastDeadline(): number {
    return deadlineAt + deadlines.roundSeconds * 1000;
  }

  /** Sites whose update moves: a slow line is no reason to throw away what has come over it. */
  function stillArriving(): string[] {
    if (now() >= lastDeadline()) return [];
    const names = cohort.filter((name) => {
      const movedAt = gathered.movedAt(name);
      return movedAt !== undefined && now() - movedAt < STANDSTILL_MS;
    });
    if (names.length > 0 && toldPast !== deadlineAt) {
      toldPast = deadlineAt;
      const until = new Date(lastDeadline()).toISOString();
      const message = `the time of round ${round} is up and the update of ${names.join(', ')} is still arriving; the round stays open while it moves, until ${until} at most`;
      context.emit({ type: 'warning', message });
    }
    return names;
  }

  function extend(why: string): void {
    const have = `round ${round} has ${gathered.count()} of at least ${minUpdates} updates and ${why}`;
    if (extensions >= deadlines.extensions) {
      throw new RoundFailed(
        `${have}, after ${extensions} extensions. Nothing committed is lost: start the same command again when the sites are back`,
      );
    }
    extensions++;
    deadlineAt = now() + deadlines.roundSeconds * 1000;
    const reason = `${have}; it is opened again until ${new Date(deadlineAt).toISOString()} (extension ${extensions} of ${deadlines.extensions})`;
    context.record({ type: 'round-extended', round, extension: extensions, reason });
    context.emit({ type: 'warning', message: reason });
    planned.clear();
    for (const name of cohort) {
      gathered.reopen(name);
      const member = roster.members.get(name);
      if (member && !member.channel) member.lostAt = now();
    }
    sendPlans();
    review();
  }

  /** Reports the wait when who is missing a link has changed. */
  function saySo(missing: readonly string[]): void {
    const away = missing.filter((name) => !roster.members.get(name)?.channel);
    const key = away.join();
    if (key === lastWaiting) return;
    lastWaiting = key;
    if (away.length === 0) return;
    context.emit({
      type: 'waiting',
      round,
      here: cohort.filter((name) => !away.includes(name)),
      missing: away.length,
      next: `${away.join(', ')} may come back for ${deadlines.rejoinSeconds} s; then the round goes on without, if it has ${minUpdates} updates`,
    });
  }

  function sendPlans(): void {
    for (const name of cohort) {
      const member = roster.members.get(name);
      if (member?.ready && gathered.standing(name) === 'pending') void sendPlan(member);
    }
  }

  async function sendPlan(member: Member): Promise<void> {
    const { channel, name } = member;
    if (!channel || planned.get(name) === channel) return;
    planned.set(name, channel);
    try {
      await channel.call(
        {
          type: 'plan',
          task: 'train',
          round,
          model,
          learningRate: plan.learningRate,
          deadlineMs: Math.max(0, deadlineAt - now()),
          // A site of version 1.0 takes a field that it does not know for an error.
          ...(member.minor < 1 ? {} : { cohortSize: cohort.length, minUpdates }),
          // Who speaks less than 2.2 has refused a federation that needs it.
          ...(plan.clippingNorm === undefined ? {} : { clippingNorm: plan.clippingNorm }),
        },
        'ok',
      );
      crashPoint('coordinator:after-plan-sent');
    } catch (error) {
      // Without its plan the site would wait for ever; on a new link it gets it again.
      if (!closed) await channel.close(`the plan of round ${round} was not taken: ${text(error)}`);
    }
  }

  const fail = (error: unknown) => settle?.reject(error);

  return {
    get closed() {
      return closed;
    },
    get expelled() {
      return expelled;
    },
    minUpdates,
    review,
    extend,
    fail,
    expel(name) {
      if (!members.has(name)) return;
      expelled = new SiteExpelled(`"${name}" was expelled`);
      fail(expelled);
    },
    async wait() {
      const forget = roster.onChange((member) => {
        if (!members.has(member.name)) return;
        gathered.onMember(member);
        if (member.ready && gathered.standing(member.name) === 'pending') void sendPlan(member);
        review();
      });
      const onAbort = () => fail(context.signal.reason);
      try {
        await new Promise<void>((resolve, reject) => {
          settle = { resolve, reject };
          closed = false;
          if (context.signal.aborted) onAbort();
          context.signal.addEventListener('abort', onAbort, { once: true });
          sendPlans();
          review();
        });
      } finally {
        closed = true;
        clearTimeout(timer);
        forget();
        context.signal.removeEventListener('abort', onAbort);
      }
    },
  };
}

/** A lost link or a newer offer of the same update: nothing is wrong with the update itself. */
export function isTransient(error: unknown, signal: AbortSignal): boolean {
  const code = errorCode(error);
  if (code === 'FED_UPDATE_LATE') return false;
  return (
    signal.aborted ||
    code === undefined ||
    code.startsWith('FED_TRANSPORT_') ||
    code === 'FED_PROTOCOL_BLOB_UNKNOWN'
  );
}

export function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
