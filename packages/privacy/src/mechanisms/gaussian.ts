/**
 * Gaussian noise for differential privacy: a discrete Gaussian on a fine grid (Canonne, Kamath, Steinke 2020, arXiv
 * 2004.00010), so that no low bit of a float tells what it was added to (Mironov 2012). Its Rényi divergences at whole
 * orders are those of the continuous Gaussian, which is what the accountants compute. See docs/adr/0010-noise.md.
 */
import { cryptoWords, type RandomWords } from '../random.ts';
import { createAliasTable, proposalWeights } from './alias-table.ts';
import { requireClippingNorm } from './clipping.ts';

export interface GaussianNoise {
  /** The standard deviation: not the variance. */
  readonly stdDev: number;
  /** What values are rounded to and noise is a multiple of: a power of two, in the unit of the values. */
  readonly grid: number;
  /**
   * Rounds each of `values` to the grid and adds noise of its own to it, in place. Infinite and NaN stay what they are.
   */
  addTo(values: Float64Array): void;
}

/** The standard deviation is at least 2^25 and less than 2^26 steps of the grid. */
const STEPS_BITS = 25;
/** Steps of a block: proposals are uniform in one. A standard deviation is 32 to 64 blocks. */
const BLOCK_BITS = 20;
const BLOCK = 2 ** BLOCK_BITS;
/** Beyond this many standard deviations nothing is drawn; outside lies less than 2^-120. */
const REACH = 13;
/** Of a word, after a sign and the place in a block. */
const SPARE_BITS = 31 - BLOCK_BITS;
const SPARE = 2 ** SPARE_BITS;

/**
 * Returns noise with `stdDev`, in the unit of the values that it will be added to. Each coordinate's probabilities are
 * those of the discrete Gaussian up to a factor within 1 ± 2^-44: n coordinates add at most n * 2^-43 to epsilon, and
 * n * 2^-120 to delta. A million take about 20 millis.
 *
 * `random`: @default `node:crypto`. Throws RangeError unless `stdDev` is in [2^-900, 2^900].
 */
export function createGaussianNoise({
  stdDev,
  random = cryptoWords(),
}: {
  readonly stdDev: number;
  readonly random?: RandomWords;
}): GaussianNoise {
  if (!(stdDev >= 2 ** -900 && stdDev <= 2 ** 900)) {
    throw new RangeError(`stdDev must be a positive, finite number; got ${stdDev}`);
  }
  const grid = 2 ** (floorLog2(stdDev) - STEPS_BITS);
  const sigma = stdDev / grid;
  const blocks = Math.ceil((REACH * sigma) / BLOCK);
  const perSquare = 1 / (2 * sigma * sigma);
  const peaks = Float64Array.from({ length: blocks }, (_, h) => Math.exp(-((h * BLOCK) ** 2) * perSquare));
  const { weights, scale } = proposalWeights(peaks);
  const { bits, own, alias } = createAliasTable(weights);
  const shift = 32 - bits;
  const coin = 2 ** shift - 1;
  /** By block: the probability of acceptance at its inner end, and what surely accepts, of SPARE. */
  const acceptance = peaks.map((peak, h) => (peak * scale) / weights[h]!);
  const sure = Uint32Array.from(acceptance, (inner, h) => {
    const outer = inner * Math.exp(-(BLOCK * (2 * h * BLOCK + BLOCK)) * perSquare);
    return Math.max(0, Math.floor(outer * SPARE * (1 - 2 ** -40)));
  });

  /** Decides what the spare bits left open: at most one draw in twenty. */
  function accepts(block: number, place: number, spare: number): boolean {
    const probability = acceptance[block]! * Math.exp(-(place * (2 * block * BLOCK + place)) * perSquare);
    const more = (random() >>> 0) * 2 ** 10 + (random() >>> 22);
    return (spare + more * 2 ** -42) * (1 / SPARE) < probability;
  }

  /** Steps of the grid. */
  function draw(): number {
    for (;;) {
      const first = random();
      const column = first >>> shift;
      const block = (first & coin) >>> 0 < own[column]! ? column : alias[column]!;
      const second = random();
      const place = (second >>> SPARE_BITS) & (BLOCK - 1);
      const spare = second & (SPARE - 1);
      if (spare >= sure[block]! && !accepts(block, place, spare)) continue;
      const distance = block * BLOCK + place;
      // All ones or zero; arithmetic, as a branch that is taken every other time is slow.
      const negative = second >> 31;
      // Zero has one sign only.
      if (distance !== 0 || negative === 0) return (distance ^ negative) - negative;
    }
  }

  return {
    stdDev,
    grid,
    addTo(values) {
      const steps = 1 / grid;
      for (let i = 0; i < values.length; i++) {
        values[i] = (Math.round((values[i] as number) * steps) + draw()) * grid;
      }
    },
  };
}

/**
 * Returns the standard deviation of the noise on a sum of `dimension` numbers to which one participant adds at most
 * `clippingNorm` (L2), in the parameters' unit: noiseMultiplier * clippingNorm, and as much more as rounding to the
 * grid can add to what one participant changes, noiseMultiplier * sqrt(dimension) * 2^-25 of it.
 *
 * Throws RangeError unless both numbers are positive and finite, and when the dimension is too large for the grid.
 */
export function noiseStdDev({
  clippingNorm,
  noiseMultiplier,
  dimension,
}: {
  readonly clippingNorm: number;
  readonly noiseMultiplier: number;
  readonly dimension: number;
}): number {
  requireClippingNorm(clippingNorm);
  if (!(noiseMultiplier > 0 && noiseMultiplier < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`noiseMultiplier must be a positive, finite number; got ${noiseMultiplier}`);
  }
  // Two roundings move two sums apart by at most grid * sqrt(dimension), and grid <= stdDev * 2^-25.
  const rounding = noiseMultiplier * Math.sqrt(dimension) * 2 ** -STEPS_BITS;
  if (!(rounding < 0.5)) {
    throw new RangeError(
      `noise with a multiplier of ${noiseMultiplier} on ${dimension} numbers needs a finer grid than there is`,
    );
  }
  return (noiseMultiplier * clippingNorm) / (1 - rounding);
}

function floorLog2(x: number): number {
  const guess = Math.floor(Math.log2(x));
  if (2 ** guess > x) return guess - 1;
  return 2 ** (guess + 1) <= x ? guess + 1 : guess;
}
