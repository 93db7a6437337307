/**
 * How private a mechanism can be at most, from how well somebody tells its releases with a canary from those without:
 * (epsilon, delta) allows no test whose true positive rate exceeds e^epsilon times its false positive rate plus delta
 * (Kairouz, Oh and Viswanath 2015; as an audit: Jagielski, Ullman and Oprea 2020).
 */
import { rateLowerBound } from './clopper-pearson.ts';

export interface CanaryCounts {
  /** Releases with the canary that were called so. */
  readonly truePositives: number;
  /** Releases with the canary. */
  readonly positives: number;
  /** Releases without it that were called as if with it. */
  readonly falsePositives: number;
  /** Releases without it. */
  readonly negatives: number;
}

/**
 * Returns an epsilon that the mechanism exceeds or reaches with probability `confidence` or more, whatever it claims:
 * the better of both directions, with Clopper-Pearson bounds on both rates, at (1 + confidence) / 2 each. 0 when the
 * counts show nothing. The test that gave the counts must not have been chosen by the same releases.
 *
 * Throws RangeError for counts that can't be, a `delta` outside [0, 1) or a `confidence` outside (0, 1).
 */
export function epsilonLowerBound(counts: CanaryCounts, delta: number, confidence = 0.95): number {
  const { truePositives, positives, falsePositives, negatives } = counts;
  if (!(delta >= 0 && delta < 1)) throw new RangeError(`delta is in [0, 1), not ${delta}`);
  const each = (1 + confidence) / 2;
  const truePositiveRate = rateLowerBound(truePositives, positives, each);
  const trueNegativeRate = rateLowerBound(negatives - falsePositives, negatives, each);
  // Both directions rest on the same two bounds, so that taking the better one costs no confidence.
  return Math.max(
    0,
    Math.log((truePositiveRate - delta) / (1 - trueNegativeRate)) || 0,
    Math.log((trueNegativeRate - delta) / (1 - truePositiveRate)) || 0,
  );
}
