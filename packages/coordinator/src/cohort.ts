/** The seeded choice of a round's sites: the same seed, round and ready sites always give the same cohort. */
import { sha256 } from '@tributary/shared-protocol';

/** All, a fraction in (0, 1), or a whole number of sites. */
export type CohortSize = 'all' | number;

/** Sites of a cohort drawn from `ready` of them: a fraction is rounded up; never more than there are. */
export function cohortCount(size: CohortSize, ready: number): number {
  if (size === 'all') return ready;
  return Math.min(ready, size < 1 ? Math.ceil(size * ready) : size);
}

/**
 * The chosen names, sorted. Each site gets the ticket SHA-256("seed|round|name") and the lowest ones win, so the
 * choice does not depend on the order of `ready`, and a site more or less moves few others.
 */
export function chooseCohort(options: {
  readonly seed: number;
  readonly round: number;
  readonly ready: readonly string[];
  readonly size: CohortSize;
}): string[] {
  const { seed, round, ready, size } = options;
  return ready
    .map((name) => ({ name, ticket: sha256(`${seed}|${round}|${name}`) }))
    .sort((a, b) => (a.ticket < b.ticket ? -1 : 1))
    .slice(0, cohortCount(size, ready.length))
    .map(({ name }) => name)
    .sort();
}
