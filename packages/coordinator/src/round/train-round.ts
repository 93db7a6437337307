/**
 * One round of training in which the coordinator sees each update: from the plans to enough of them in the spool and in
 * the fold. Whatever one site offers or fails to offer, the others go on.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Channel, crashPoint, errorCode, type MessageOf } from '@tributary/shared-protocol';
import type { Fold } from '../aggregate/fold.ts';
import { CoordinatorError } from '../errors.ts';
import type { Member } from '../members/roster.ts';
import { isStorageError, storageError } from '../run/atomic-file.ts';
import type { AcceptedUpdate } from '../run/records.ts';
import type { MeanUpdate } from '../strategy.ts';
import type { RunContext } from './context.ts';
import { createGathering, isTransient, type TrainRoundPlan, text } from './gathering.ts';
import { checkOffer, type PlainOffer } from './offer-checks.ts';
import { createTurns, foldSpooled, pullUpdate, pullWindow } from './pull.ts';

export interface TrainRound {
  readonly plan: TrainRoundPlan;
  readonly accepted: ReadonlyMap<string, AcceptedUpdate>;
  /** A site has an update, and keeps it until it is to be masked. */
  trained(member: Member, message: MessageOf<'trained'>): MessageOf<'receipt'>;
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
  /** What `run` has gathered. */
  sum(): RoundSum;
  /** The model of it is committed. */
  committed(): void;
}

export interface RoundSum {
  readonly mean: MeanUpdate;
  /** Of all updates together; undefined where nobody knows. */
  readonly numExamples: number | undefined;
  /** Of masked updates: the share of their values that was clipped, in [0, 1]. */
  readonly clippedFraction?: number;
}

/** What the signature of an offer is bound to. */
interface OfferScope {
  readonly session: string;
  readonly key: string | undefined;
}

type SiteState = 'pending' | 'pulling' | 'accepted' | 'refused' | 'failed';

interface Site {
  state: SiteState;
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

export function createTrainRound(context: RunContext, fold: Fold, plan: TrainRoundPlan): TrainRound {
  const { roster, now, manifest } = context;
  const { round, cohort, model } = plan;
  const sites = new Map<string, Site>(
    cohort.map((name) => [name, { state: 'pending', movedAt: 0, pull: undefined }]),
  );
  const accepted = new Map<string, AcceptedUpdate>();
  const turn = createTurns();
  const gathering = createGathering(context, plan, {
    count: () => accepted.size,
    standing(name) {
      const { state } = sites.get(name)!;
      return state === 'pending' ? 'pending' : state === 'pulling' ? 'busy' : 'done';
    },
    movedAt(name) {
      const { state, movedAt } = sites.get(name)!;
      return state === 'pulling' ? movedAt : undefined;
    },
    reopen(name) {
      const site = sites.get(name)!;
      if (site.state === 'refused' || site.state === 'failed') site.state = 'pending';
    },
    onMember(member) {
      const site = sites.get(member.name)!;
      if (!member.channel) site.pull?.abort.abort(new Error('the link was lost'));
      else if (member.ready && site.state !== 'accepted' && site.state !== 'pulling') site.state = 'pending';
    },
  });

  const pathOf = (member: Member, digest: string) =>
    join(context.directory.paths.roundSpool(round), `${member.clientId}-${digest.slice(0, 16)}.update`);

  const keyOf = ({ name }: Member) => context.state.members.get(name)?.key;

  async function pull(
    member: Member,
    site: Site,
    offer: PlainOffer,
    scope: OfferScope,
    signal: AbortSignal,
  ): Promise<void> {
    const channel = member.channel;
    const { digest } = offer.update;
    if (!channel) return;
    try {
      const path = pathOf(member, digest);
      try {
        await turn(async () => {
          signal.throwIfAborted();
          const update = await pullUpdate({
            channel,
            ref: offer.update,
            path,
            fold,
            facts: { name: member.name, numExamples: offer.numExamples, metrics: offer.metrics },
            signal,
            window: pullWindow(cohort.length),
            onProgress: () => {
              member.lastSeenAt = now();
              site.movedAt = now();
            },
          });
          if (gathering.closed) {
            await update.undo(path);
            throw gathering.expelled ?? late(round);
          }
        });
      } catch (error) {
        if (!isTransient(error, signal))
          for (const file of [path, `${path}.part`]) rmSync(file, { force: true });
        throw error;
      }
      // Its signature is worth nothing under the new key: it offers again, and its bytes are here.
      if (keyOf(member) !== scope.key) throw new Error('the site has another key by now');
      accept(member, site, offer, scope.session);
      void verdict(member, offer, undefined);
    } catch (error) {
      if (site.pull?.abort.signal !== signal) return;
      if (isStorageError(error)) {
        gathering.fail(storageError(context.directory.paths.spool, error));
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

  function accept(member: Member, site: Site, offer: PlainOffer, session: string): void {
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
    const { bytes, metrics, name } = entry;
    context.emit({ type: 'update-accepted', round, name, numExamples: offer.numExamples, bytes, metrics });
    gathering.review();
  }

  function refuse(member: Member, site: Site, offer: MessageOf<'offer'>, error: unknown): void {
    if (site.state !== 'accepted') site.state = 'refused';
    noteRefusal(context, member.name, offer, error);
    gathering.review();
  }

  return {
    plan,
    accepted,
    offer(member, offer) {
      try {
        checkOffer(
          offer,
          member.name,
          gathering.closed ? undefined : { round, cohort, base: model.digest },
          round,
          manifest,
        );
      } catch (error) {
        // The site has nothing better to offer: nobody need wait for it.
        const own = sites.get(member.name);
        if (own?.state === 'pending') {
          own.state = 'refused';
          setImmediate(() => gathering.review());
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
        done: done.catch((error: unknown) => gathering.fail(error)),
      };
      return { type: 'receipt', decision: 'send' };
    },
    failed(member, { code, reason }) {
      const site = sites.get(member.name);
      if (gathering.closed || !site || site.state === 'accepted') return;
      site.state = 'failed';
      gathering.review();
      context.emit({ type: 'client-failed', round, name: member.name, code, reason });
    },
    trained() {
      throw new CoordinatorError(
        'FED_UPDATE_UNMASKED',
        'this federation takes updates as they are; an announcement that one is ready is for secure aggregation',
      );
    },
    expel: (name) => gathering.expel(name),
    restore,
    sum: () => ({
      mean: fold.mean(),
      numExamples: [...accepted.values()].reduce((n, update) => n + (update.numExamples ?? 0), 0),
    }),
    committed: () => undefined,
    async run() {
      try {
        await gathering.wait();
      } finally {
        for (const site of sites.values()) {
          if (site.state !== 'pulling') continue;
          const stopped = context.signal.aborted ? new Error('the run was stopped') : gathering.expelled;
          site.pull?.abort.abort(stopped ?? late(round));
        }
        await Promise.all([...sites.values()].map((site) => site.pull?.done));
      }
      // Also when that came after the last update.
      if (gathering.expelled) throw gathering.expelled;
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
        const facts = { ...entry, numExamples: entry.numExamples ?? 0 };
        if (!(await foldSpooled(fold, facts, path, entry.digest))) throw new Error('its bytes have changed');
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
  const { numExamples, update } = offer;
  context.record({
    type: 'update-refused',
    digest: update.digest,
    ...(numExamples === undefined ? {} : { numExamples }),
    ...refusal,
  });
  context.emit({ type: 'update-refused', ...refusal });
}

function late(round: number): CoordinatorError {
  return new CoordinatorError('FED_UPDATE_LATE', `round ${round} closed before all of this update was here`);
}
