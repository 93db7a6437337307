/**
 * Whole numbers for a sum under a modulus, with a bound on their norm that the privacy accountant can use: scaled, then
 * rounded up or down at random so that the mean is right, again until the norm is in bounds. Kairouz, Liu, Steinke 2021,
 * arXiv 2102.06387, section 4.
 */
import { cryptoWords, type RandomWords } from '../random.ts';
import { requireClippingNorm } from './clipping.ts';

/** exp(-1/2): a rounding is drawn again at most this often, times what the bound is loose. */
const DEFAULT_BETA = Math.exp(-0.5);
/** With a chance of at least 1 - beta each time, this many in a row don't happen. */
const MAX_TRIES = 500;

/**
 * Returns the largest L2 norm of a rounded vector, in steps: that of theorem 1 for a vector of `dimension` numbers whose
 * norm is at most `clippingNorm` steps. `beta` in (0, 1): the higher, the tighter, and the more often it is rounded again.
 * @default exp(-1/2)
 */
export function roundedNorm({
  clippingNorm,
  dimension,
  beta = DEFAULT_BETA,
}: {
  readonly clippingNorm: number;
  readonly dimension: number;
  readonly beta?: number;
}): number {
  requireClippingNorm(clippingNorm);
  if (!(beta > 0 && beta < 1)) throw new RangeError(`beta must be in (0, 1); got ${beta}`);
  const root = Math.sqrt(dimension);
  const likely =
    clippingNorm ** 2 + dimension / 4 + Math.sqrt(2 * Math.log(1 / beta)) * (clippingNorm + root / 2);
  return Math.sqrt(Math.min((clippingNorm + root) ** 2, likely));
}

/**
 * Returns `values`, in steps, each rounded to one of its two neighbours so that its mean is itself; all of them again
 * until the L2 norm is at most `maxNorm`, as roundedNorm gives it. `random`: @default `node:crypto`.
 *
 * Throws RangeError when `maxNorm` can't be met: the values were not clipped.
 */
export function roundStochastically(
  values: Float64Array,
  maxNorm: number,
  random: RandomWords = cryptoWords(),
): Int32Array {
  const rounded = new Int32Array(values.length);
  const most = maxNorm * maxNorm;
  for (let attempt = 0; attempt < MAX_TRIES; attempt++) {
    let squares = 0;
    for (let i = 0; i < values.length; i++) {
      const value = values[i] as number;
      const floor = Math.floor(value);
      const whole = (random() >>> 0) * 2 ** -32 < value - floor ? floor + 1 : floor;
      squares += whole * whole;
      rounded[i] = whole;
    }
    if (squares <= most) return rounded;
  }
  throw new RangeError(
    `${values.length} numbers can't be rounded to a norm of at most ${maxNorm}: clip them first`,
  );
}

/**
 * Returns steps a unit, so that sums of `clients` rotated vectors fit `bits` bits but for events of `deviations`
 * standard deviations: from 2^bits = 2 k sqrt(c^2 n^2 / d + (step^2 / 4 + sd^2) n) / step.
 *
 * `clippingNorm` and `localStdDev`, the standard deviation of one client's noise, are in units; `dimension` is the rotated
 * length. Throws RangeError when so many clients don't fit so few bits whatever the step.
 */
export function stepsPerUnit({
  bits,
  clients,
  dimension,
  clippingNorm,
  localStdDev,
  deviations = 4,
}: {
  readonly bits: number;
  readonly clients: number;
  readonly dimension: number;
  readonly clippingNorm: number;
  readonly localStdDev: number;
  /** @default 4 */
  readonly deviations?: number;
}): number {
  requireClippingNorm(clippingNorm);
  const room = 4 ** bits - deviations ** 2 * clients;
  if (!(room > 0)) throw new RangeError(`sums of ${clients} clients don't fit ${bits} bits`);
  const spread = (clippingNorm * clients) ** 2 / dimension + localStdDev ** 2 * clients;
  return Math.sqrt(room / (4 * deviations ** 2 * spread));
}
