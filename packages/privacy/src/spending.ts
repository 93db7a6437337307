/** What rounds of training have spent, of records or of sites, and whether one more fits a budget. */
import { epsilonOf, type PoissonGaussian, type SkellamSteps } from './accounting/history.ts';
import { type RecordLevelRound, recordLevelHistory } from './record-level.ts';
import { type SiteLevelRound, siteLevelHistory } from './site-level.ts';

export type PrivateRound = RecordLevelRound | SiteLevelRound;

/** Epsilons that were asked for lately: one of thousands of steps takes a second to find. */
const known = new Map<string, number>();
const KEEP = 256;

/** The rounds as an accountant takes them. */
export function spendingHistory(rounds: readonly PrivateRound[]): (PoissonGaussian | SkellamSteps)[] {
  return [
    ...recordLevelHistory(rounds.filter((round): round is RecordLevelRound => !('unit' in round))),
    ...siteLevelHistory(rounds.filter((round): round is SiteLevelRound => 'unit' in round)),
  ];
}

/**
 * Epsilon at `delta` (add/remove one record, or one site's update) of all these rounds together, by the tighter of the two
 * accountants: both are upper bounds. Of Skellam noise one of them knows nothing.
 */
export function epsilonSpent(rounds: readonly PrivateRound[], delta: number): number {
  const history = spendingHistory(rounds);
  const key = JSON.stringify([history, delta]);
  const before = known.get(key);
  if (before !== undefined) return before;
  const rdp = epsilonOf(history, delta, 'rdp');
  const isGaussian = history.every(({ kind }) => kind === 'poisson-gaussian');
  const epsilon = isGaussian ? Math.min(rdp, epsilonOf(history, delta, 'pld')) : rdp;
  if (known.size >= KEEP) known.delete(known.keys().next().value as string);
  known.set(key, epsilon);
  return epsilon;
}

/** Whether `epsilonSpent` is within a budget. Where the accountant that takes no time says so, the other isn't asked. */
export function isWithinBudget(
  rounds: readonly PrivateRound[],
  { epsilon, delta }: { readonly epsilon: number; readonly delta: number },
): boolean {
  return (
    epsilonOf(spendingHistory(rounds), delta, 'rdp') <= epsilon || epsilonSpent(rounds, delta) <= epsilon
  );
}
