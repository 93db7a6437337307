/**
 * Membership inference: from a model's losses somebody tells which records it was trained on. By the loss alone, low
 * for members (Yeom, Giacomelli, Fredrikson and Jha 2018), or by how likely the loss is among shadow models trained
 * with the record against those trained without it (LiRA: Carlini et al. 2022).
 */

export interface LossAttack {
  /** The probability that a member's loss is below that of a non-member; ties count half. 0.5 tells nothing. */
  readonly auc: number;
  /** True minus false positive rate when losses up to the members' mean are called members'. */
  readonly advantage: number;
  /** The same at the threshold that is best for these very records, which is a little too good for few of them. */
  readonly maxAdvantage: number;
}

/** Returns how well losses tell members from others. Throws RangeError when either side is empty or has a NaN. */
export function lossThresholdAttack(
  memberLosses: ArrayLike<number>,
  otherLosses: ArrayLike<number>,
): LossAttack {
  const members = sorted(memberLosses, 'memberLosses');
  const others = sorted(otherLosses, 'otherLosses');
  const advantageAt = (threshold: number) =>
    upTo(members, threshold) / members.length - upTo(others, threshold) / others.length;
  const mean = members.reduce((sum, loss) => sum + loss, 0) / members.length;
  let wins = 0;
  for (const loss of others) wins += (upTo(members, loss) + below(members, loss)) / 2;
  return {
    auc: wins / (members.length * others.length),
    advantage: advantageAt(mean),
    maxAdvantage: members.reduce((best, loss) => Math.max(best, advantageAt(loss)), 0),
  };
}

/**
 * Returns the largest advantage, true minus false positive rate, that (epsilon, delta) leaves to any attack:
 * (e^epsilon - 1 + 2 delta) / (e^epsilon + 1) (Humphries et al. 2023). Throws RangeError for a negative epsilon or a
 * delta outside [0, 1).
 */
export function membershipAdvantageBound(epsilon: number, delta: number): number {
  if (!(epsilon >= 0)) throw new RangeError(`epsilon is 0 or more, not ${epsilon}`);
  if (!(delta >= 0 && delta < 1)) throw new RangeError(`delta is in [0, 1), not ${delta}`);
  const inverse = Math.exp(-epsilon);
  return (1 - inverse + 2 * delta * inverse) / (1 + inverse);
}

export interface ShadowLosses {
  /** The record's loss at the model under attack. */
  readonly observed: number;
  /** Its losses at shadow models that were trained with it; 2 or more. */
  readonly trainedWith: ArrayLike<number>;
  /** Its losses at shadow models that were not; 2 or more. */
  readonly trainedWithout: ArrayLike<number>;
}

/**
 * Returns LiRA's score of one record: the logarithm of how much likelier its loss is among the models trained with it.
 * Losses are cross-entropies, -ln p of the true class, taken as ln(p / (1 - p)), which is close to normal.
 *
 * Throws RangeError for fewer than two shadow models a side.
 */
export function likelihoodRatio({ observed, trainedWith, trainedWithout }: ShadowLosses): number {
  const value = logit(observed);
  return logDensity(value, normalOf(trainedWith)) - logDensity(value, normalOf(trainedWithout));
}

/**
 * Returns the share of members with a score above a threshold that at most `falsePositiveRate` of the others exceed.
 * Throws RangeError when either side is empty or has a NaN, or the rate is outside [0, 1].
 */
export function truePositiveRateAt(
  falsePositiveRate: number,
  memberScores: ArrayLike<number>,
  otherScores: ArrayLike<number>,
): number {
  if (!(falsePositiveRate >= 0 && falsePositiveRate <= 1))
    throw new RangeError(`falsePositiveRate is in [0, 1], not ${falsePositiveRate}`);
  const members = sorted(memberScores, 'memberScores');
  const others = sorted(otherScores, 'otherScores');
  const allowed = Math.floor(falsePositiveRate * others.length);
  const threshold = allowed === others.length ? -Infinity : others[others.length - 1 - allowed]!;
  return 1 - upTo(members, threshold) / members.length;
}

/** Probabilities are kept this far from 0 and 1, as losses keep them. */
const FUZZ = 1e-7;
/** Shadow models may all agree; a density needs some width. */
const MIN_STD_DEV = 1e-3;

/** ln(p / (1 - p)) of a cross-entropy loss -ln p. */
function logit(loss: number): number {
  const bounded = Math.min(Math.max(loss, FUZZ), -Math.log(FUZZ));
  return -Math.log(Math.expm1(bounded));
}

function normalOf(losses: ArrayLike<number>): { mean: number; stdDev: number } {
  const values = Array.from(losses, logit);
  if (values.length < 2) throw new RangeError(`a side needs 2 shadow models or more, not ${values.length}`);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, stdDev: Math.max(Math.sqrt(squares / (values.length - 1)), MIN_STD_DEV) };
}

function logDensity(value: number, { mean, stdDev }: { mean: number; stdDev: number }): number {
  return -Math.log(stdDev) - (value - mean) ** 2 / (2 * stdDev ** 2);
}

function sorted(values: ArrayLike<number>, name: string): Float64Array {
  const copy = Float64Array.from(values).sort();
  // NaN is sorted last.
  if (copy.length === 0 || Number.isNaN(copy.at(-1)!)) throw new RangeError(`${name} is empty or has a NaN`);
  return copy;
}

/** How many of the sorted values are at most `limit`. */
function upTo(values: Float64Array, limit: number): number {
  return firstIndex(values, (value) => value > limit);
}

/** How many of the sorted values are below `limit`. */
function below(values: Float64Array, limit: number): number {
  return firstIndex(values, (value) => value >= limit);
}

function firstIndex(values: Float64Array, holds: (value: number) => boolean): number {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(values[middle]!)) high = middle;
    else low = middle + 1;
  }
  return low;
}
