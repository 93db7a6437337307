/**
 * What each site has spent of its privacy, by the coordinator's own books: they follow from the log, which tells of every
 * update that left a site, whether it was accepted or not. Sites keep books of their own, and believe those.
 */
import { epsilonSpent, isWithinBudget, type RecordLevelRound } from '@tributary/privacy';
import { differentialPrivacyOf } from '@tributary/shared-protocol';
import type { ResolvedFederation } from './config/resolve.ts';
import type { RunContext } from './round/context.ts';
import type { CommittedRound } from './run/records.ts';

/** Thrown when too few sites can afford another round. */
export class BudgetSpent extends Error {
  override readonly name = 'BudgetSpent' as const;
}

/**
 * Those of the sites whose budget has room for one more round; all of them when the run is not private. Throws
 * BudgetSpent when they are fewer than the quorum.
 */
export function affordable(context: RunContext, round: number, ready: readonly string[]): string[] {
  const privacy = differentialPrivacyOf(context.federation.privacy);
  if (privacy === undefined) return [...ready];
  const able = ready.filter((name) => {
    const trainExamples = context.roster.members.get(name)?.site?.trainExamples ?? 0;
    const next = roundOf(context.federation, trainExamples);
    return next === undefined || isWithinBudget([...releasedRounds(context, name), next], privacy.budget);
  });
  const spent = ready.filter((name) => !able.includes(name));
  if (spent.length > 0) {
    const { epsilon, delta } = privacy.budget;
    const message = `${spent.join(', ')}: round ${round} would overdraw the privacy budget of epsilon ${epsilon} at delta ${delta}`;
    context.emit({ type: 'warning', message });
    if (able.length < context.federation.cohort.quorum) throw new BudgetSpent(message);
  }
  return able;
}

/** For the record of a commit: epsilon by site, of all that ever sent an update. */
export function epsilonOfAll(context: RunContext): Pick<CommittedRound, 'epsilonSpent'> {
  const privacy = differentialPrivacyOf(context.federation.privacy);
  if (privacy === undefined) return {};
  const names = [...context.state.released.keys()].sort();
  const { delta } = privacy.budget;
  return {
    epsilonSpent: Object.fromEntries(
      names.map((name) => [name, epsilonSpent(releasedRounds(context, name), delta)]),
    ),
  };
}

/** For the event of a commit. */
export function mostSpent({ federation }: RunContext, { epsilonSpent: spent }: CommittedRound) {
  const privacy = differentialPrivacyOf(federation.privacy);
  if (privacy === undefined || spent === undefined) return {};
  const { epsilon, delta } = privacy.budget;
  return { privacy: { epsilonSpent: Math.max(0, ...Object.values(spent)), budget: { epsilon, delta } } };
}

/** What left a site of a private run, as the log tells it: a round of training for each update. */
export function releasedRounds(
  { federation, state }: Pick<RunContext, 'federation' | 'state'>,
  name: string,
): RecordLevelRound[] {
  const released = state.released.get(name)?.values() ?? [];
  return [...released].flatMap((trainExamples) => roundOf(federation, trainExamples) ?? []);
}

/** What one round is at a site with so many examples; undefined for one without any. */
function roundOf(federation: ResolvedFederation, trainExamples: number): RecordLevelRound | undefined {
  const privacy = differentialPrivacyOf(federation.privacy);
  if (privacy === undefined || trainExamples < 1) return undefined;
  const { noiseMultiplier } = privacy.differentialPrivacy;
  return { noiseMultiplier, trainExamples, ...federation.training };
}
