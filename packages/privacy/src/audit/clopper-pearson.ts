/**
 * Exact confidence bounds on a rate from a count: they hold whatever the rate and however few the trials (Clopper and
 * Pearson 1934). One-sided; two of them at 97.5% each hold together at 95%.
 */
import { binomialUpperTail } from './incomplete-beta.ts';

/** Halvings of [0, 1]: as far as a double goes. */
const HALVINGS = 60;

/**
 * Returns the rate that lies below the true one with probability `confidence` or more: the p at which `successes` or
 * more of `trials` would come with probability 1 - confidence. 0 for no success. Accurate to 1e-10.
 *
 * Throws RangeError unless 0 <= successes <= trials, both whole, trials >= 1, and confidence is in (0, 1).
 */
export function rateLowerBound(successes: number, trials: number, confidence: number): number {
  checkCounts(successes, trials);
  if (!(confidence > 0 && confidence < 1))
    throw new RangeError(`confidence is between 0 and 1, not ${confidence}`);
  if (successes === 0) return 0;
  const alpha = 1 - confidence;
  let [low, high] = [0, 1];
  for (let i = 0; i < HALVINGS; i++) {
    const middle = (low + high) / 2;
    if (binomialUpperTail(trials, middle, successes) < alpha) low = middle;
    else high = middle;
  }
  return low;
}

/** Returns the rate that lies above the true one with probability `confidence` or more; otherwise as `rateLowerBound`. */
export function rateUpperBound(successes: number, trials: number, confidence: number): number {
  checkCounts(successes, trials);
  return 1 - rateLowerBound(trials - successes, trials, confidence);
}

/** Throws RangeError unless they are whole and 0 <= successes <= trials, trials >= 1. */
function checkCounts(successes: number, trials: number): void {
  if (!Number.isSafeInteger(trials) || trials < 1)
    throw new RangeError(`trials is a whole number from 1, not ${trials}`);
  if (!Number.isSafeInteger(successes) || successes < 0 || successes > trials)
    throw new RangeError(`successes is a whole number from 0 to ${trials}, not ${successes}`);
}
