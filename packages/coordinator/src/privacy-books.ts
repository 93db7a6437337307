/**
 * What each site has spent of its privacy, by the coordinator's own books: they follow from the log, which tells of every
 * update that left a site, whether it was accepted or not. Sites keep books of their own, and believe those.
 */
import { epsilonSpent, isWithinBudget, type PrivateRound, siteLevelRound } from '@tributary/privacy';
import { differentialPrivacyOf, type RunStatus, sharedNoiseOf } from '@tributary/shared-protocol';
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
  const { open } = context.state;
  const able = ready.filter((name) => {
    // A round that is started once more has its update already, and paid for it.
    if (open?.round === round && open.accepted.has(name)) return true;
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

/**
 * Throws BudgetSpent when noise that is drawn for `round` once more would overdraw the budget of one of `sites`: a round
 * that is made again, after a crash or without a site that was expelled, is another release over the same updates.
 */
export function refuseOverdraft(context: RunContext, round: number, sites: readonly string[]): void {
  const privacy = differentialPrivacyOf(context.federation.privacy);
  if (privacy === undefined) return;
  const { epsilon, delta } = privacy.budget;
  for (const name of sites) {
    if (isWithinBudget(releasedRounds(context, name, round), privacy.budget)) continue;
    throw new BudgetSpent(
      `${name}: noise for round ${round} was drawn before, and once more would overdraw the privacy budget of epsilon ${epsilon} at delta ${delta}`,
    );
  }
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

/** For a status. */
export function privacyStatus({
  federation,
  state,
}: Pick<RunContext, 'federation' | 'state'>): Pick<RunStatus, 'privacy'> {
  const { budget } = differentialPrivacyOf(federation.privacy) ?? {};
  return budget === undefined
    ? {}
    : { privacy: { budget, epsilonSpent: state.commits.at(-1)?.epsilonSpent ?? {} } };
}

/** For the event of a commit. */
export function mostSpent({ federation }: RunContext, { epsilonSpent: spent }: CommittedRound) {
  const privacy = differentialPrivacyOf(federation.privacy);
  if (privacy === undefined || spent === undefined) return {};
  const { epsilon, delta } = privacy.budget;
  return { privacy: { epsilonSpent: Math.max(0, ...Object.values(spent)), budget: { epsilon, delta } } };
}

/**
 * What was released of a site in a private run, as the log tells it; as if noise had been drawn once more for the round
 * `drawing`, where that is given.
 */
export function releasedRounds(
  { federation, state }: Pick<RunContext, 'federation' | 'state'>,
  name: string,
  drawing?: number,
): PrivateRound[] {
  const privacy = federation.privacy?.differentialPrivacy;
  if (privacy?.unit === 'site') return siteLevelReleases(federation, state, name, drawing);
  const released = state.released.get(name)?.values() ?? [];
  return [...released].flatMap((trainExamples) => roundOf(federation, trainExamples) ?? []);
}

/** What one round is of the site as a whole; undefined where that is not what is protected. */
function siteRound({ privacy }: ResolvedFederation): PrivateRound | undefined {
  if (privacy?.differentialPrivacy?.unit !== 'site') return undefined;
  return siteLevelRound(privacy.differentialPrivacy, sharedNoiseOf(privacy));
}

/** What one round is at a site with so many examples; undefined for one without any. */
function roundOf(federation: ResolvedFederation, trainExamples: number): PrivateRound | undefined {
  const privacy = differentialPrivacyOf(federation.privacy);
  if (privacy === undefined || trainExamples < 1) return undefined;
  const { unit, noiseMultiplier } = privacy.differentialPrivacy;
  return unit === 'site' ? siteRound(federation) : { noiseMultiplier, trainExamples, ...federation.training };
}

/**
 * Of each round as many as the larger of two numbers: different updates that left the site, and sums with its update that
 * noise was drawn for. An update that is in no sum counts as if it were.
 */
function siteLevelReleases(
  federation: ResolvedFederation,
  { released, noised }: RunContext['state'],
  name: string,
  drawing: number | undefined,
): PrivateRound[] {
  const left = new Map<number, number>();
  for (const update of released.get(name)?.keys() ?? []) addOne(left, Number.parseInt(update, 10));
  const drawn = new Map(noised.get(name));
  if (drawing !== undefined) addOne(drawn, drawing);
  const rounds = [...new Set([...left.keys(), ...drawn.keys()])];
  const times = rounds.reduce((n, round) => n + Math.max(left.get(round) ?? 0, drawn.get(round) ?? 0), 0);
  const round = siteRound(federation);
  return round === undefined ? [] : Array.from({ length: times }, () => round);
}

function addOne(counts: Map<number, number>, round: number): void {
  counts.set(round, (counts.get(round) ?? 0) + 1);
}
