/**
 * One round of training, from the plans to enough updates in the spool and in the fold. Whatever one site offers or
 * fails to offer, the others go on; every wait has an end, and says what comes after it.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  type BlobRef,
  type Channel,
  crashPoint,
  errorCode,
  type MessageOf,
} from '@tributary/shared-protocol';
import type { Fold } from '../aggregate/fold.ts';
import { CoordinatorError } from '../errors.ts';
import type { Member } from '../members/roster.ts';
import { isStorageError, storageError } from '../run/atomic-file.ts';
import type { AcceptedUpdate } from '../run/records.ts';
import type { RunContext } from './context.ts';
import { checkOffer } from './offer-checks.ts';
import { foldSpooled, pullUpdate } from './pull.ts';

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

export interface TrainRound {
  readonly plan: TrainRoundPlan;
  readonly accepted: ReadonlyMap<string, AcceptedUpdate>;
  /** Answers an offer for this round at once; fetches the update afterwards. */
  offer(member: Member, offer: MessageOf<'offer'>): MessageOf<'receipt'>;
  /** A site gave up on its plan. */
  failed(member: Member, failure: MessageOf<'failure'>): void;
  /** A site was expelled: when it is one of this round's, `run` rejects with SiteExpelled, and all is counted anew. */
  expel(name: string): void;
  /** Takes updates from before a restart back in, those whose file is still what the log says. Comes before `run`. */
  restore(): Promise<void>;
  /** Resolves when the round may be aggregated; rejects with the signal's reason, or when too few updates came. */
  run(): Promise<void>;
}

/** What the signature of an offer is bound to. */
interface OfferScope {
  readonly session: string;
  readonly key: string | undefined;
}

type SiteState = 'pending' | 'pulling' | 'accepted' | 'refused' | 'failed';

interface Site {
  state: SiteState;
  /** The link on which it has its plan; on another one it gets it again. */
  planned: Channel | undefined;
  /** When its update was offered, or the last chunk of it came. */
  movedAt: number;
  pull:
    | {
        readonly digest: string;
        readonly channel: Channel | undefined;
        readonly abort: AbortController;
        readonly done: Promise<void>;
      }
    | undefined;
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

/** Chunks in flight over all pulls together, about. */
const CHUNKS_IN_FLIGHT = 16;
/** An update of which no chunk came for this long is not on its way any more; as long as a fetch waits for one. */
const STANDSTILL_MS = 30_000;
/** Pulls at a time; later offers wait their turn. */
const MAX_PULLS = 16;

export function createTrainRound(context: RunContext, fold: Fold, plan: TrainRoundPlan): TrainRound {
  const { federation, roster, now, manifest } = context;
  const { deadlines } = federation;
  const { round, cohort, model } = plan;
  const minUpdates = fewestUpdates(federation.cohort.quorum, plan.asked ?? cohort.length);
  const targetUpdates = Math.max(minUpdates, Math.ceil(federation.cohort.target * cohort.length));
  const sites = new Map<string, Site>(
    cohort.map((name) => [name, { state: 'pending', planned: undefined, movedAt: 0, pull: undefined }]),
  );
  const accepted = new Map<string, AcceptedUpdate>();
  const window = Math.max(1, Math.min(8, Math.floor(CHUNKS_IN_FLIGHT / cohort.length)));
  const startedAt = now();
  let deadlineAt = startedAt + deadlines.roundSeconds * 1000;
  let extensions = 0;
  let closed = false;
  let expelled: SiteExpelled | undefined;
  let pulls = 0;
  const queuedPulls: (() => void)[] = [];
  let settle: { resolve: () => void; reject: (reason: unknown) => void } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let lastWaiting = '';
  /** The deadline past which the round was last said to stay open. */
  let toldPast = 0;

  const pathOf = (member: Member, digest: string) =>
    join(context.directory.paths.roundSpool(round), `${member.clientId}-${digest.slice(0, 16)}.update`);

  const keyOf = ({ name }: Member) => context.state.members.get(name)?.key;

  /** Sites that may still bring an update: those at work, and lost ones for as long as they may come back. */
  function awaited(): string[] {
    return cohort.filter((name) => {
      const state = sites.get(name)!.state;
      if (state !== 'pending' && state !== 'pulling') return false;
      return graceEnd(name) > now();
    });
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
    const missing = awaited();
    const arriving = now() >= deadlineAt ? stillArriving() : [];
    const timeIsUp = now() >= deadlineAt && arriving.length === 0;
    if (
      accepted.size >= targetUpdates ||
      ((missing.length === 0 || timeIsUp) && accepted.size >= minUpdates)
    ) {
      closed = true;
      settle.resolve();
      return;
    }
    if (missing.length === 0 || timeIsUp) {
      extend(timeIsUp ? 'its time is up' : 'no site is left that could send an update');
      return;
    }
    saySo(missing);
    const graces = missing.map(graceEnd).filter(Number.isFinite);
    const standstills = arriving.map((name) => sites.get(name)!.movedAt + STANDSTILL_MS);
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
      const { state, movedAt } = sites.get(name)!;
      return state === 'pulling' && now() - movedAt < STANDSTILL_MS;
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
    const have = `round ${round} has ${accepted.size} of at least ${minUpdates} updates and ${why}`;
    if (extensions >= deadlines.extensions) {
      closed = true;
      settle?.reject(
        new RoundFailed(
          `${have}, after ${extensions} extensions. Nothing committed is lost: start the same command again when the sites are back`,
        ),
      );
      return;
    }
    extensions++;
    deadlineAt = now() + deadlines.roundSeconds * 1000;
    const reason = `${have}; it is opened again until ${new Date(deadlineAt).toISOString()} (extension ${extensions} of ${deadlines.extensions})`;
    context.record({ type: 'round-extended', round, extension: extensions, reason });
    context.emit({ type: 'warning', message: reason });
    for (const [name, site] of sites) {
      if (site.state === 'refused' || site.state === 'failed') site.state = 'pending';
      site.planned = undefined;
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
      if (member?.ready && sites.get(name)!.state === 'pending') void sendPlan(member);
    }
  }

  async function sendPlan(member: Member): Promise<void> {
    const channel = member.channel;
    const site = sites.get(member.name)!;
    if (!channel || site.planned === channel) return;
    site.planned = channel;
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

  async function pull(
    member: Member,
    site: Site,
    offer: MessageOf<'offer'>,
    scope: OfferScope,
    signal: AbortSignal,
  ): Promise<void> {
    const channel = member.channel;
    const { digest } = offer.update;
    if (!channel) return;
    try {
      await turn();
      const path = pathOf(member, digest);
      try {
        signal.throwIfAborted();
        const update = await pullUpdate({
          channel,
          ref: offer.update,
          path,
          fold,
          facts: { name: member.name, numExamples: offer.numExamples, metrics: offer.metrics },
          signal,
          window,
          onProgress: () => {
            member.lastSeenAt = now();
            site.movedAt = now();
          },
        });
        if (closed) {
          await update.undo(path);
          throw expelled ?? late(round);
        }
      } catch (error) {
        if (!isTransient(error, signal))
          for (const file of [path, `${path}.part`]) rmSync(file, { force: true });
        throw error;
      } finally {
        pulls--;
        queuedPulls.shift()?.();
      }
      // Its signature is worth nothing under the new key: it offers again, and its bytes are here.
      if (keyOf(member) !== scope.key) throw new Error('the site has another key by now');
      accept(member, site, offer, scope.session);
      void verdict(member, offer, undefined);
    } catch (error) {
      if (site.pull?.abort.signal !== signal) return;
      if (isStorageError(error)) {
        settle?.reject(storageError(context.directory.paths.spool, error));
      } else if (isTransient(error, signal)) {
        if (site.state === 'pulling') site.state = 'pending';
        if (signal.aborted) return;
        // The site is there but its update does not come: on a new link it offers again, what has arrived is kept.
        await channel.close(`the update of round ${round} stopped coming: ${text(error)}`);
      } else {
        refuse(member, site, offer, error);
        void verdict(member, offer, error);
      }
    }
  }

  async function turn(): Promise<void> {
    if (pulls >= MAX_PULLS) await new Promise<void>((go) => queuedPulls.push(go));
    pulls++;
  }

  function accept(member: Member, site: Site, offer: MessageOf<'offer'>, session: string): void {
    const entry: AcceptedUpdate = {
      type: 'update-accepted',
      round,
      name: member.name,
      digest: offer.update.digest,
      bytes: offer.update.bytes,
      numExamples: offer.numExamples,
      metrics: offer.metrics,
      offer: { ...offer.signed, session, base: offer.base, chunkBytes: offer.update.chunkBytes },
    };
    crashPoint('coordinator:before-accept-record');
    context.record(entry);
    crashPoint('coordinator:after-accept-record');
    accepted.set(member.name, entry);
    site.state = 'accepted';
    const { numExamples, metrics, name } = entry;
    context.emit({ type: 'update-accepted', round, name, numExamples, bytes: entry.bytes, metrics });
    review();
  }

  function refuse(member: Member, site: Site, offer: MessageOf<'offer'>, error: unknown): void {
    if (site.state !== 'accepted') site.state = 'refused';
    noteRefusal(context, member.name, offer, error);
    review();
  }

  return {
    plan,
    accepted,
    offer(member, offer) {
      try {
        checkOffer(
          offer,
          member.name,
          closed ? undefined : { round, cohort, base: model.digest },
          round,
          manifest,
        );
      } catch (error) {
        // The site has nothing better to offer: nobody need wait for it.
        const own = sites.get(member.name);
        if (own?.state === 'pending') {
          own.state = 'refused';
          setImmediate(review);
        }
        throw error;
      }
      const site = sites.get(member.name)!;
      const taken = accepted.get(member.name);
      if (taken) {
        if (taken.digest === offer.update.digest) return { type: 'receipt', decision: 'have' };
        throw new CoordinatorError(
          'FED_UPDATE_DUPLICATE',
          `another update of "${member.name}" was accepted in round ${round} already`,
        );
      }
      // Of the link that the offer came over: by the time that all is here, the site may have another.
      const scope = { session: member.session, key: keyOf(member) };
      const before = site.pull;
      // On a new link a site offers of itself, and once more when its plan is repeated: the first goes on.
      const same = before?.digest === offer.update.digest && before.channel === member.channel;
      if (same && site.state === 'pulling') return { type: 'receipt', decision: 'send' };
      before?.abort.abort(new Error('offered again'));
      const abort = new AbortController();
      site.state = 'pulling';
      site.movedAt = now();
      // The receipt goes out first: the site serves chunks only once it has it.
      const done = Promise.all([before?.done, new Promise((next) => setImmediate(next))]).then(() =>
        pull(member, site, offer, scope, abort.signal),
      );
      site.pull = {
        digest: offer.update.digest,
        channel: member.channel,
        abort,
        done: done.catch((error: unknown) => settle?.reject(error)),
      };
      return { type: 'receipt', decision: 'send' };
    },
    failed(member, { code, reason }) {
      const site = sites.get(member.name);
      if (closed || !site || site.state === 'accepted') return;
      site.state = 'failed';
      review();
      context.emit({ type: 'client-failed', round, name: member.name, code, reason });
    },
    expel(name) {
      if (!sites.has(name)) return;
      expelled = new SiteExpelled(`"${name}" was expelled`);
      settle?.reject(expelled);
    },
    restore,
    async run() {
      const forget = roster.onChange((member) => {
        const site = sites.get(member.name);
        if (!site) return;
        if (!member.channel) site.pull?.abort.abort(new Error('the link was lost'));
        else if (member.ready && site.state !== 'accepted' && site.state !== 'pulling') {
          site.state = 'pending';
          void sendPlan(member);
        }
        review();
      });
      const onAbort = () => settle?.reject(context.signal.reason);
      try {
        await new Promise<void>((resolve, reject) => {
          settle = { resolve, reject };
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
        for (const site of sites.values()) {
          if (site.state !== 'pulling') continue;
          const stopped = context.signal.aborted ? new Error('the run was stopped') : expelled;
          site.pull?.abort.abort(stopped ?? late(round));
        }
        await Promise.all([...sites.values()].map((site) => site.pull?.done));
      }
      // Also when that came after the last update.
      if (expelled) throw expelled;
    },
  };

  async function restore(): Promise<void> {
    const kept = context.state.open?.round === round ? [...context.state.open.accepted.values()] : [];
    for (const entry of kept) {
      const member = roster.members.get(entry.name);
      const site = sites.get(entry.name);
      if (!member || !site) continue;
      const path = pathOf(member, entry.digest);
      try {
        if (!(await foldSpooled(fold, entry, path, entry.digest))) throw new Error('its bytes have changed');
        accepted.set(entry.name, entry);
        site.state = 'accepted';
      } catch (error) {
        rmSync(path, { force: true });
        context.emit({
          type: 'warning',
          message: `the spooled update of "${entry.name}" can't be used again (${text(error)}); the site will be asked for it anew`,
        });
      }
    }
  }

  async function verdict(member: Member, offer: MessageOf<'offer'>, error: unknown): Promise<void> {
    try {
      await member.channel?.call(
        {
          type: 'verdict',
          round,
          update: offer.update.digest,
          accepted: error === undefined,
          ...(error === undefined
            ? {}
            : { code: errorCode(error) ?? 'FED_UPDATE_TRANSFER', reason: text(error) }),
        },
        'ok',
      );
      crashPoint('coordinator:after-verdict');
    } catch {
      // A site that missed its verdict offers again and is told then.
    }
  }
}

/** Writes a refusal into the log and the events. */
export function noteRefusal(
  context: RunContext,
  name: string,
  offer: MessageOf<'offer'>,
  error: unknown,
): void {
  const refusal = {
    round: offer.round,
    name,
    code: errorCode(error) ?? 'FED_UPDATE_TRANSFER',
    reason: text(error),
  };
  const { numExamples } = offer;
  context.record({ type: 'update-refused', digest: offer.update.digest, numExamples, ...refusal });
  context.emit({ type: 'update-refused', ...refusal });
}

function late(round: number): CoordinatorError {
  return new CoordinatorError('FED_UPDATE_LATE', `round ${round} closed before all of this update was here`);
}

/** A lost link or a newer offer of the same update: nothing is wrong with the update itself. */
function isTransient(error: unknown, signal: AbortSignal): boolean {
  const code = errorCode(error);
  if (code === 'FED_UPDATE_LATE') return false;
  return (
    signal.aborted ||
    code === undefined ||
    code.startsWith('FED_TRANSPORT_') ||
    code === 'FED_PROTOCOL_BLOB_UNKNOWN'
  );
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
