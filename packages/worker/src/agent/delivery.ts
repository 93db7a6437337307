/**
 * Handing finished work over. An update is offered, its chunks are served from the spooled file while the coordinator
 * asks for them, and it is forgotten only once the coordinator has answered for good. Every step may be repeated.
 */
import {
  type Channel,
  crashPoint,
  type createBlobShelf,
  errorCode,
  type MessageOf,
  RemoteError,
} from '@tributary/shared-protocol';
import { isPolicyError, type PolicyError } from '../errors.ts';
import type { Guard } from '../policy/guard.ts';
import type { EmitWorkerEvent } from './events.ts';
import type { Spool, SpooledEvaluation, SpooledUpdate } from './spool.ts';

type Shelf = ReturnType<typeof createBlobShelf>;
type Entry = SpooledUpdate | SpooledEvaluation;

export interface Delivery {
  /** Updates that the coordinator is taking chunk by chunk. */
  readonly sending: number;
  readonly accepted: number;
  readonly refused: number;
  readonly evaluations: number;
  /** Offers one entry; a second call while the first is under way on the same channel does nothing. */
  offer(entry: Entry, channel: Channel): Promise<void>;
  offerAll(channel: Channel): Promise<void>;
  /** Resolves when no offer is waiting for its answer, and no answer is being taken in. */
  idle(): Promise<void>;
  /** Offers what an update has become under the masks of an attempt. */
  offerMasked(entry: SpooledUpdate, masked: MaskedFile, channel: Channel): Promise<void>;
  /** The masked form of this update is of no use any more. */
  forgetMasked(entry: SpooledUpdate): void;
  onVerdict(verdict: MessageOf<'verdict'>): Promise<void>;
  onChunk(chunk: MessageOf<'chunk'>): ReturnType<Shelf['answer']>;
}

export interface MaskedFile {
  readonly path: string;
  readonly attempt: string;
}

/** Wait before an offer that met a passing error is repeated. */
const RETRY_MS = 2000;

/** Returns a delivery over `spool`; `guard` has the last word on each update. */
export function createDelivery(spool: Spool, shelf: Shelf, guard: Guard, emit: EmitWorkerEvent): Delivery {
  const offering = new Map<Entry, Channel>();
  const underWay = new Set<Promise<void>>();
  /** By the digest of what is sent. */
  const sending = new Map<string, { readonly entry: SpooledUpdate; readonly bytes: number }>();
  /** The digest of an update's masked form. */
  const masked = new Map<SpooledUpdate, string>();
  const counts = { accepted: 0, refused: 0, evaluations: 0 };

  async function settle(entry: Entry, outcome: { code: string; reason: string } | undefined): Promise<void> {
    const { round } = entry;
    // Two answers for one update (a `have` and a late verdict) count once.
    if (spool.find({ task: entry.task, round, base: entry.base }) === undefined) return;
    crashPoint(entry.task === 'train' ? 'agent:after-verdict' : 'agent:after-evaluation');
    await spool.remove({ task: entry.task, round, base: entry.base });
    if (entry.task === 'train') {
      sending.delete(entry.update);
      shelf.remove(entry.update);
      forgetMasked(entry);
    }
    if (outcome !== undefined) {
      counts.refused++;
      emit({ type: 'refused', round, ...outcome });
    } else if (entry.task === 'train') {
      counts.accepted++;
      emit({ type: 'accepted', round });
    } else {
      counts.evaluations++;
      emit({ type: 'evaluated', round, numExamples: entry.numExamples, metrics: entry.metrics });
    }
  }

  function forgetMasked(entry: SpooledUpdate): void {
    const digest = masked.get(entry);
    if (digest === undefined) return;
    masked.delete(entry);
    sending.delete(digest);
    shelf.remove(digest);
  }

  /** Says that an update is here; its bytes stay until they are asked for under masks. */
  async function announce(entry: SpooledUpdate, channel: Channel): Promise<void> {
    const { round, base, update, numExamples } = entry;
    guard.admitUpdate(entry);
    const release = guard.spends ? { release: { update, numExamples } } : {};
    const receipt = await channel.call({ type: 'trained', round, base, ...release }, 'receipt');
    crashPoint('agent:after-offer');
    if (receipt.decision === 'send') return;
    const outcome = outcomeOf(receipt);
    if (outcome?.code === 'FED_UPDATE_ROUND') throw new RemoteError(outcome.code, outcome.reason, false);
    await settle(entry, outcome);
  }

  async function offerMasked(
    entry: SpooledUpdate,
    { path, attempt }: MaskedFile,
    channel: Channel,
  ): Promise<void> {
    const { round, base } = entry;
    const update = await shelf.addFile(path, channel.link.preferredChunkBytes);
    guard.admitUpdate({ ...entry, bytes: update.bytes });
    masked.set(entry, update.digest);
    const receipt = await channel.call(
      { type: 'offer', round, base, metrics: {}, update, attempt },
      'receipt',
    );
    emit({ type: 'offered', round, decision: receipt.decision });
    if (receipt.decision === 'send') sending.set(update.digest, { entry, bytes: update.bytes });
    else if (receipt.decision === 'refused')
      emit({ type: 'log', message: `round ${round}: the masked update was not taken (${receipt.reason})` });
  }

  async function offerUpdate(entry: SpooledUpdate, channel: Channel): Promise<void> {
    if (guard.masks) return await announce(entry, channel);
    const { round, base, numExamples, metrics } = entry;
    guard.admitUpdate(entry);
    const path = spool.updatePath({ task: 'train', round, base });
    const update = await shelf.addFile(path, channel.link.preferredChunkBytes);
    const receipt = await channel.call(
      { type: 'offer', round, base, numExamples, metrics, update },
      'receipt',
    );
    crashPoint('agent:after-offer');
    emit({ type: 'offered', round, decision: receipt.decision });
    if (receipt.decision === 'send') {
      if (spool.find({ task: 'train', round, base }) !== undefined)
        sending.set(entry.update, { entry, bytes: entry.bytes });
      return;
    }
    const outcome = outcomeOf(receipt);
    if (outcome?.code === 'FED_UPDATE_ROUND') throw new RemoteError(outcome.code, outcome.reason, false);
    await settle(entry, outcome);
  }

  async function offerEvaluation(entry: SpooledEvaluation, channel: Channel): Promise<void> {
    const { round, base, numExamples, metrics } = entry;
    crashPoint('agent:before-evaluation');
    const receipt = await channel.call(
      { type: 'evaluation', round, model: base, numExamples, metrics },
      'receipt',
    );
    await settle(entry, outcomeOf(receipt));
  }

  /** Tells the coordinator not to wait for an update, and keeps it only where time may change the policy's answer. */
  async function withhold({ task, round, base }: Entry, channel: Channel, error: PolicyError): Promise<void> {
    const { code, message: reason, retryAt } = error;
    const kept = retryAt !== undefined;
    emit({ type: 'withheld', round, code, reason, kept });
    if (!kept) await spool.remove({ task, round, base });
    await channel.call({ type: 'failure', task, round, code, reason }, 'ok').then(
      () => guard.told(error),
      // Without a link nobody waits for it; the next one begins with the same refusal.
      () => undefined,
    );
  }

  function track(work: Promise<void>): Promise<void> {
    const one = work.finally(() => underWay.delete(one));
    underWay.add(one);
    return one;
  }

  const offer = (entry: Entry, channel: Channel) => track(offerOnce(entry, channel));

  async function offerOnce(entry: Entry, channel: Channel): Promise<void> {
    // An announcement may be asked for again while the answer to the last is on its way: both are said.
    if (offering.get(entry) === channel && !(entry.task === 'train' && guard.masks)) return;
    offering.set(entry, channel);
    let repeat = false;
    try {
      await (entry.task === 'train' ? offerUpdate(entry, channel) : offerEvaluation(entry, channel));
    } catch (error) {
      const { message } = error as Error;
      if (isPolicyError(error)) await withhold(entry, channel, error);
      else if (error instanceof RemoteError && isJudgement(error.code)) {
        await settle(entry, { code: error.code, reason: message });
      } else {
        // The link is gone, and the next one repeats the offer; or the coordinator can't take it just now: its plan
        // will ask for it, and an error that passes is worth another try.
        repeat = error instanceof RemoteError && error.retryable;
        emit({
          type: 'log',
          message: `round ${entry.round}: kept for now (${errorCode(error) ?? 'error'}: ${message})`,
        });
      }
    } finally {
      if (offering.get(entry) === channel) offering.delete(entry);
    }
    if (repeat && (await stillOpenAfter(channel, RETRY_MS))) await offerOnce(entry, channel);
  }

  return {
    get sending() {
      return sending.size;
    },
    get accepted() {
      return counts.accepted;
    },
    get refused() {
      return counts.refused;
    },
    get evaluations() {
      return counts.evaluations;
    },
    offer,
    async idle() {
      while (underWay.size > 0) await Promise.allSettled(underWay);
    },
    async offerAll(channel) {
      sending.clear();
      for (const entry of spool.entries) await offer(entry, channel);
    },
    offerMasked,
    forgetMasked,
    async onVerdict({ round, update, accepted, code, reason }) {
      // After a restart this site does not know any more what it sent under masks.
      const entry = spool.entries.find(
        (one) => one.task === 'train' && (guard.masks ? one.round === round : one.update === update),
      );
      if (entry === undefined) return;
      const outcome = accepted
        ? undefined
        : { code: code ?? 'FED_REFUSED', reason: reason ?? 'no reason given' };
      await track(settle(entry, outcome));
    },
    async onChunk(chunk) {
      crashPoint('agent:mid-upload');
      const answer = await shelf.answer(chunk);
      const sent = sending.get(chunk.digest);
      if (sent !== undefined) {
        const served = chunk.index * (answer.body?.byteLength ?? 0) + (answer.body?.byteLength ?? 0);
        emit({
          type: 'sending',
          round: sent.entry.round,
          bytes: Math.min(served, sent.bytes),
          totalBytes: sent.bytes,
        });
      }
      return answer;
    },
  };
}

/**
 * Whether a refusal is about the work itself. A coordinator that came back may not have opened the round again yet;
 * that says nothing about the update.
 */
function isJudgement(code: string): boolean {
  return (
    (code.startsWith('FED_UPDATE_') && code !== 'FED_UPDATE_ROUND') || code.startsWith('FED_EVALUATION_')
  );
}

function outcomeOf(receipt: MessageOf<'receipt'>): { code: string; reason: string } | undefined {
  if (receipt.decision !== 'refused') return undefined;
  return { code: receipt.code ?? 'FED_REFUSED', reason: receipt.reason ?? 'no reason given' };
}

/** Resolves true after `ms`, or false as soon as the channel closes. */
function stillOpenAfter(channel: Channel, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(true), ms);
    channel.closed.then(() => {
      clearTimeout(timer);
      resolve(false);
    });
  });
}
