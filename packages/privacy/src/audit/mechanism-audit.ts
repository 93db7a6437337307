/**
 * Audits any mechanism from outside: it is run many times on two data sets that differ by one record, the canary, and
 * the releases must not tell them apart better than the claimed epsilon allows. A bug that lets the record weigh more
 * than the claim says, or the noise less, shows as a lower bound above the claim (Jagielski, Ullman and Oprea 2020;
 * Nasr et al. 2021).
 */
import { type CanaryCounts, epsilonLowerBound } from './canary.ts';

export interface MechanismAuditOptions<D> {
  /** The mechanism: gives one fresh release of a data set. */
  readonly release: (dataset: D) => ArrayLike<number>;
  readonly without: D;
  /**
   * The same with the canary: one record whose contribution lies in one coordinate, with a positive sign. What the
   * mechanism must bound has to be large in it: a norm far above the clipping norm, a weight far above the cap.
   */
  readonly with: D;
  /** The coordinate of a release in which the canary is. */
  readonly coordinate: number;
  /** Releases of each data set: even, 4 or more. Half of them choose the threshold, half count. */
  readonly trials: number;
  readonly claimedEpsilon: number;
  /** In [0, 1). */
  readonly delta: number;
  /** Of the bound, in (0, 1). @default 0.95 */
  readonly confidence?: number;
}

export interface MechanismAudit extends CanaryCounts {
  /** The mechanism's epsilon is this or more, with the confidence asked for. */
  readonly epsilonLowerBound: number;
  readonly claimedEpsilon: number;
  /** A release above it in the canary's coordinate was taken for one with the canary. */
  readonly threshold: number;
  /** `refuted`: the bound exceeds the claim. `not-refuted` is no proof of it. */
  readonly verdict: 'not-refuted' | 'refuted';
}

/**
 * Returns what the releases show about the claim. A sound mechanism is called refuted with probability
 * 1 - confidence at most.
 *
 * Throws RangeError for numbers outside their ranges, and for a release that is not finite in the coordinate.
 */
export function auditMechanism<D>(options: MechanismAuditOptions<D>): MechanismAudit {
  const { trials, claimedEpsilon, delta, confidence = 0.95 } = options;
  if (!Number.isSafeInteger(trials) || trials < 4 || trials % 2 !== 0)
    throw new RangeError(`trials is an even number from 4, not ${trials}`);
  if (!(claimedEpsilon >= 0)) throw new RangeError(`claimedEpsilon is 0 or more, not ${claimedEpsilon}`);
  const half = trials / 2;
  const learnt = { negatives: draw(options, 'without', half), positives: draw(options, 'with', half) };
  const threshold = bestThreshold(learnt, delta, confidence);
  const counts = countAbove(
    threshold,
    draw(options, 'without', half).sort(),
    draw(options, 'with', half).sort(),
  );
  const bound = epsilonLowerBound(counts, delta, confidence);
  return {
    ...counts,
    epsilonLowerBound: bound,
    claimedEpsilon,
    threshold,
    verdict: bound > claimedEpsilon ? 'refuted' : 'not-refuted',
  };
}

function draw<D>(
  { release, coordinate, ...datasets }: MechanismAuditOptions<D>,
  which: 'without' | 'with',
  count: number,
): Float64Array {
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const value = release(datasets[which])[coordinate];
    if (value === undefined || !Number.isFinite(value))
      throw new RangeError(`the release has no finite number at coordinate ${coordinate}: ${value}`);
    values[i] = value;
  }
  return values;
}

/** The threshold that gives the largest bound on these releases, of those near their tails above all. */
function bestThreshold(
  { negatives, positives }: { negatives: Float64Array; positives: Float64Array },
  delta: number,
  confidence: number,
): number {
  negatives.sort();
  positives.sort();
  const candidates = new Set<number>();
  for (const sorted of [negatives, positives]) {
    for (const rank of ranks(sorted.length)) {
      candidates.add(sorted[rank]!);
      candidates.add(sorted[sorted.length - 1 - rank]!);
    }
  }
  // The best of many is best by luck in part: the more there are, the surer each has to be to count.
  const strict = 1 - (1 - confidence) / candidates.size;
  let best = { threshold: negatives.at(-1)!, bound: 0 };
  for (const threshold of candidates) {
    const bound = epsilonLowerBound(countAbove(threshold, negatives, positives), delta, strict);
    if (bound > best.bound) best = { threshold, bound };
  }
  return best.threshold;
}

/** 0, 1, 2, … growing by an eighth, below `length`. */
function ranks(length: number): number[] {
  const found: number[] = [];
  for (let rank = 0; rank < length; rank = Math.max(rank + 1, Math.round(rank * 1.125))) found.push(rank);
  return found;
}

function countAbove(threshold: number, negatives: Float64Array, positives: Float64Array): CanaryCounts {
  return {
    truePositives: above(positives, threshold),
    positives: positives.length,
    falsePositives: above(negatives, threshold),
    negatives: negatives.length,
  };
}

/** How many of the sorted values exceed the threshold. */
function above(sorted: Float64Array, threshold: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! > threshold) high = middle;
    else low = middle + 1;
  }
  return sorted.length - low;
}
