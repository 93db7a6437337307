/**
 * Sums of float64 values that have the same bits whatever the order of the terms, in two lanes of one float64 each a
 * parameter. The idea is pre-rounding (Demmel and Nguyen 2013; Ahrens, Demmel and Nguyen 2020): each term is cut into
 * a multiple of a coarse grid and a multiple of a fine one, and sums of multiples of a grid are exact, hence
 * associative, as long as they stay below 2^53 grid steps.
 *
 * With the grids 2^-8 and 2^-50, terms |x| <= 2^32 and at most 2^12 of them:
 * - h = (x + M) - M with M = 1.5 * 2^44: x + M lies in [2^44, 2^45), where float64's spacing is 2^-8, so h is x rounded
 *   to a multiple of 2^-8. r = x - h is exact (a multiple of x's last bit, at most 2^-9 in size).
 *   |sum of h| <= 2^12 * (2^32 + 2^-9) < 2^45 = 2^53 steps of 2^-8: exact.
 * - l = (r + N) - N with N = 1.5 * 2^2: r + N lies in [2^2, 2^3), where the spacing is 2^-50, so l is r rounded to a
 *   multiple of 2^-50, at most 2^-9 in size. |sum of l| <= 2^12 * 2^-9 = 2^3 = 2^53 steps of 2^-50: exact.
 * What is lost is at most 2^-51 a term, absolute. Because the sums are exact, a term can also be taken out again.
 */

/** Terms a sum may have. */
export const MAX_TERMS = 4096;
/** Largest absolute value of one term: 2^32. */
export const MAX_TERM = 4_294_967_296;

const COARSE = 1.5 * 2 ** 44;
const FINE = 1.5 * 2 ** 2;

/** Running sums of `length` parameters: 16 bytes each, made once and reused. */
export interface ReproducibleSum {
  readonly length: number;
  /** Multiples of 2^-8. */
  readonly coarse: Float64Array;
  /** Multiples of 2^-50. */
  readonly fine: Float64Array;
}

export function createReproducibleSum(length: number): ReproducibleSum {
  return { length, coarse: new Float64Array(length), fine: new Float64Array(length) };
}

/**
 * Adds `factor * values[i]` to the sums from `offset` on, and returns how many were added: `values.length`, or the
 * index of the first term that is not finite or above MAX_TERM, at which it stopped. `factor` -1 times the first one
 * takes the same terms out again, exactly.
 */
export function addTerms(sum: ReproducibleSum, offset: number, values: Float32Array, factor: number): number {
  const { coarse, fine } = sum;
  const count = values.length;
  for (let i = 0; i < count; i++) {
    const x = values[i]! * factor;
    // Written so that NaN fails too.
    if (!(x <= MAX_TERM && x >= -MAX_TERM)) return i;
    const h = x + COARSE - COARSE;
    const l = x - h + FINE - FINE;
    coarse[offset + i]! += h;
    fine[offset + i]! += l;
  }
  return count;
}

/** Writes the sums from `offset` on, divided by `divisor`, into `out`. */
export function readMeans(sum: ReproducibleSum, offset: number, divisor: number, out: Float64Array): void {
  const { coarse, fine } = sum;
  for (let i = 0; i < out.length; i++) out[i] = (coarse[offset + i]! + fine[offset + i]!) / divisor;
}

/** Has `noise` added to the sums, which are one float64 each from then on: they take no more terms. */
export function addNoise(sum: ReproducibleSum, noise: { addTo(values: Float64Array): void }): void {
  const { coarse, fine } = sum;
  for (let i = 0; i < coarse.length; i++) coarse[i]! += fine[i]!;
  fine.fill(0);
  noise.addTo(coarse);
}

export function clearSum(sum: ReproducibleSum): void {
  sum.coarse.fill(0);
  sum.fine.fill(0);
}
