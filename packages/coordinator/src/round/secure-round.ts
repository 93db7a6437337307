/**
 * One round of training in which the coordinator learns the sum of the updates and no single one (ADR 0009). Sites train
 * and keep what they have; once enough have, those that are here mask it together, in one attempt of a few quick stages
 * (secure-sum.ts). An attempt that fails is followed by another one with new keys: nothing is trained again.
 */
import { PrivacyError } from '@tributary/privacy';
import { errorCode, RemoteError, type SecureAggregationPlan } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { RunContext } from './context.ts';
import { createGathering, RoundFailed, type TrainRoundPlan, text } from './gathering.ts';
import { checkRound } from './offer-checks.ts';
import { createSecureSum, GaveUp, type SecureSum, type SummedUpdates } from './secure-sum.ts';
import type { TrainRound } from './train-round.ts';

/** `failed`: it has given up, and may be asked once more; `faulty`: what it sent is wrong, and the round goes on without. */
type SiteState = 'pending' | 'trained' | 'failed' | 'faulty';

export function createSecureRound(
  context: RunContext,
  secure: SecureAggregationPlan,
  plan: TrainRoundPlan,
): TrainRound {
  const { roster, state, federation } = context;
  const { round, cohort, model } = plan;
  const sites = new Map<string, SiteState>(cohort.map((name) => [name, 'pending']));
  let attempt: SecureSum | undefined;
  let summed: SummedUpdates | undefined;

  const isHere = (name: string) => sites.get(name) === 'trained' && roster.members.get(name)?.ready === true;
  const gathering = createGathering(context, plan, {
    count: () => candidates().length,
    standing(name) {
      const site = sites.get(name);
      if (state.open?.survivors?.includes(name) === false) return 'done';
      if (site === 'trained') return isHere(name) ? 'done' : 'busy';
      return site === 'pending' ? 'pending' : 'done';
    },
    movedAt: () => undefined,
    reopen(name) {
      const site = sites.get(name);
      // Without one of those who were asked to unmask there is no sum at all.
      if (site === 'failed' || (site === 'faulty' && state.open?.survivors?.includes(name)))
        sites.set(name, 'pending');
    },
    onMember: () => undefined,
  });

  /** Those with whom an attempt may begin. Once a set of sites was asked to unmask, it is all of that set or nobody. */
  function candidates(): string[] {
    const asked = state.open?.survivors;
    if (asked === undefined) return cohort.filter(isHere);
    return asked.every(isHere) ? [...asked] : [];
  }

  /** A site that is gone may take part in the next attempt; one that refuses, or sends what is wrong, in none. */
  function dropOut(name: string, error: unknown): void {
    if (error instanceof GaveUp) return;
    const code = errorCode(error) ?? 'FED_INTERNAL';
    const reason = text(error);
    const mayReturn =
      code.startsWith('FED_TRANSPORT_') ||
      code === 'FED_WORKER_ATTEMPT' ||
      (error instanceof RemoteError && error.retryable);
    if (mayReturn) {
      // It has lost what it had, or will say once more that it has it.
      if (code === 'FED_WORKER_ATTEMPT') sites.set(name, 'pending');
      context.emit({
        type: 'warning',
        message: `${name} dropped out of the secure sum of round ${round}: ${reason}`,
      });
      return;
    }
    const gaveUp = error instanceof RemoteError || code === 'FED_UPDATE_LATE' || code === 'FED_INTERNAL';
    sites.set(name, gaveUp ? 'failed' : 'faulty');
    context.record({ type: 'client-failed', round, name, task: 'train', code, reason });
    context.emit({ type: 'client-failed', round, name, code, reason });
  }

  /** What a site has offered is no masked update: nothing else is waited for from it. */
  function refuse(name: string, error: CoordinatorError): void {
    if (attempt?.fail(name, error) || sites.get(name) !== 'pending') return;
    dropOut(name, error);
    setImmediate(() => gathering.review());
  }

  /** Ends the round for good where a set of sites was asked to unmask, and can't come together any more. */
  function refuseIfStuck(): void {
    const gone = state.open?.survivors?.filter((name) => !cohort.includes(name)) ?? [];
    if (gone.length === 0) return;
    throw new RoundFailed(
      `the sum of round ${round} was to be unmasked with ${gone.join(', ')}, who is out of the run now; sites unmask no other sum of the same updates, as the difference would be one site's. Start a new run from the last checkpoint`,
    );
  }

  /** Attempts follow each other until one comes to its end. */
  async function sumUp(): Promise<SummedUpdates> {
    for (;;) {
      refuseIfStuck();
      await gathering.wait();
      const { minUpdates: fewest } = gathering;
      const names = candidates();
      try {
        attempt = createSecureSum(context, { secure, plan, names, fewest, onDropOut: dropOut });
        return await attempt.run();
      } catch (error) {
        if (gathering.expelled) throw gathering.expelled;
        context.signal.throwIfAborted();
        if (!(error instanceof PrivacyError)) throw error;
        for (const name of attempt?.blamed(error) ?? []) if (sites.has(name)) sites.set(name, 'faulty');
        // Each of them is noise to us, with its mask or without.
        const whose =
          error.code === 'FED_PRIVACY_SECAGG_NOISE'
            ? '; nobody can tell which, and no other sum of these updates is unmasked. If it stays so, start a new run from the last checkpoint'
            : '';
        gathering.extend(`they could not be summed: ${error.message}${whose}`);
      } finally {
        // Also where one site's storage error has ended it: nothing waits for the others any more.
        attempt?.abort(new Error('the attempt is over'));
        attempt = undefined;
      }
    }
  }

  return {
    plan,
    get accepted() {
      return summed?.accepted ?? new Map();
    },
    sum() {
      if (!summed) throw new TypeError('there is no sum yet');
      const { mean, clippedFraction } = summed;
      const numExamples = federation.strategy.weighting === 'examples' ? mean.totalWeight : undefined;
      return { mean, numExamples, clippedFraction };
    },
    trained(member, message) {
      checkRound(message, member.name, { round, cohort, base: model.digest }, round);
      const { name } = member;
      const { release } = message;
      const noted = release && state.released.get(name)?.has(`${round} ${release.update}`);
      if (sites.get(name) !== 'trained' && !noted)
        context.record({ type: 'trained', round, name, ...(release === undefined ? {} : { release }) });
      if (sites.get(name) !== 'faulty') sites.set(name, 'trained');
      setImmediate(() => gathering.review());
      return { type: 'receipt', decision: 'send' };
    },
    offer(member, offer) {
      checkRound(offer, member.name, { round, cohort, base: model.digest }, round);
      try {
        if (offer.attempt === undefined)
          throw new CoordinatorError(
            'FED_UPDATE_UNMASKED',
            'the update is not masked, and this federation sums masked ones only',
          );
        if (!attempt) throw new CoordinatorError('FED_UPDATE_LATE', 'that attempt of the secure sum is over');
        attempt.offer(member, offer);
      } catch (error) {
        if (error instanceof CoordinatorError && error.code !== 'FED_UPDATE_LATE') refuse(member.name, error);
        throw error;
      }
      return { type: 'receipt', decision: 'send' };
    },
    failed({ name }, { code, reason, accused }) {
      if (accused !== undefined) attempt?.accuse(name, accused);
      attempt?.fail(name, new GaveUp(`${code}: ${reason}`));
      if (!sites.has(name) || sites.get(name) === 'faulty' || summed?.accepted.has(name)) return;
      sites.set(name, 'failed');
      gathering.review();
      context.emit({ type: 'client-failed', round, name, code, reason });
    },
    expel(name) {
      gathering.expel(name);
      if (gathering.expelled) attempt?.abort(gathering.expelled);
    },
    // Masked updates are worth nothing after a restart: the secrets of their attempt are gone, and sites still have theirs.
    restore: () => Promise.resolve(),
    async run() {
      const onStop = () => attempt?.abort(context.signal.reason);
      context.signal.addEventListener('abort', onStop, { once: true });
      try {
        summed = await sumUp();
      } finally {
        context.signal.removeEventListener('abort', onStop);
      }
      if (gathering.expelled) throw gathering.expelled;
    },
    committed() {
      for (const [name, { digest }] of summed?.accepted ?? []) {
        const verdict = { type: 'verdict', round, update: digest, accepted: true } as const;
        // Who misses it announces its update again, and hears then that it is in the model.
        void roster.members
          .get(name)
          ?.channel?.call(verdict, 'ok')
          .catch(() => undefined);
      }
    },
  };
}
