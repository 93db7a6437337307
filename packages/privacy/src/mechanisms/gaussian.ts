/**
 * Gaussian noise for differential privacy: a discrete Gaussian on a fine grid (Canonne, Kamath, Steinke 2020, arXiv
 * 2004.00010), so that no low bit of a float tells what it was added to (Mironov 2012). Its Rényi divergences at whole
 * orders are those of the continuous Gaussian, which is what the accountants compute. See docs/adr/0010-noise.md.
 */
import { randomFillSync } from 'node:crypto';
import type { RandomWords } from '../random.ts';
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
/** Added to a number below 2^51, it leaves no room for a fraction. */
const ROUNDER = 1.5 * 2 ** 52;
/** Of a word, after a sign and the place in a block. */
const SPARE_BITS = 31 - BLOCK_BITS;
const SPARE = 2 ** SPARE_BITS;

/** Random words drawn at a time: a call for each would take as long as the rest of a draw. */
const POOL_WORDS = 16_384;
/** What one draw takes at most, unless it is rejected. */
const DRAW_WORDS = 4;

/**
 * Returns noise with `stdDev`, in the unit of the values that it will be added to. Each coordinate's probabilities are
 * those of the discrete Gaussian up to a factor within 1 ± 2^-44: n coordinates add at most n * 2^-43 to epsilon, and
 * n * 2^-120 to delta. A million take about 10 millis.
 *
 * `random`: @default `node:crypto`. Throws RangeError unless `stdDev` is in [2^-900, 2^900].
 */
export function createGaussianNoise({
  stdDev,
  random,
}: {
  readonly stdDev: number;
  readonly random?: RandomWords | undefined;
}): GaussianNoise {
  if (!(stdDev >= 2 ** -900 && stdDev <= 2 ** 900)) {
    throw new RangeError(`stdDev must be a positive, finite number; got ${stdDev}`);
  }
  return new BlockSampler(stdDev, random);
}

/** A class, and its loop in one piece: closures, of which each sampler has its own, would not be compiled into it. */
class BlockSampler implements GaussianNoise {
  readonly stdDev: number;
  readonly grid: number;
  readonly #random: RandomWords | undefined;
  readonly #perSquare: number;
  readonly #bits: number;
  /** The alias table's two columns, and by block: below what, of SPARE, any place is accepted. One after the other. */
  readonly #table: Int32Array;
  /** By block: the probability of acceptance at its inner end. */
  readonly #acceptance: Float64Array;
  readonly #pool = new Uint32Array(POOL_WORDS);
  #next = POOL_WORDS;

  constructor(stdDev: number, random: RandomWords | undefined) {
    this.stdDev = stdDev;
    this.grid = 2 ** (floorLog2(stdDev) - STEPS_BITS);
    this.#random = random;
    const sigma = stdDev / this.grid;
    const perSquare = 1 / (2 * sigma * sigma);
    const blocks = Math.ceil((REACH * sigma) / BLOCK);
    const peaks = Float64Array.from({ length: blocks }, (_, h) => Math.exp(-((h * BLOCK) ** 2) * perSquare));
    const { weights, scale } = proposalWeights(peaks);
    this.#perSquare = perSquare;
    const { bits, own, alias } = createAliasTable(weights);
    this.#bits = bits;
    this.#acceptance = peaks.map((peak, h) => (peak * scale) / weights[h]!);
    const sure = this.#acceptance.map((inner, h) => {
      const outer = inner * Math.exp(-(BLOCK * (2 * h * BLOCK + BLOCK)) * perSquare);
      return Math.max(0, Math.floor(outer * SPARE * (1 - 2 ** -40)));
    });
    this.#table = Int32Array.from([...own, ...alias, ...sure]);
  }

  addTo(values: Float64Array): void {
    const { grid } = this;
    const steps = 1 / grid;
    const shift = 32 - this.#bits;
    const coin = 2 ** shift - 1;
    const columns = 2 ** this.#bits;
    const sure = 2 * columns;
    const table = this.#table;
    const pool = this.#pool;
    let next = this.#next;
    for (let i = 0; i < values.length; i++) {
      for (;;) {
        if (next > POOL_WORDS - DRAW_WORDS) {
          this.#refill();
          next = 0;
        }
        const first = (pool[next++] as number) | 0;
        const column = first >>> shift;
        // Arithmetic where a branch would be, as no processor foresees a coin, nor a sign below.
        const isOwn = ((first & coin) - (table[column] as number)) >> 31;
        const other = table[columns + column] as number;
        const block = other ^ ((other ^ column) & isOwn);
        const second = (pool[next++] as number) | 0;
        const place = (second >>> SPARE_BITS) & (BLOCK - 1);
        const spare = second & (SPARE - 1);
        if (spare >= (table[sure + block] as number)) {
          const more = (pool[next++] as number) * 2 ** 10 + ((pool[next++] as number) >>> 22);
          if (!this.#accepts(block, place, spare + more * 2 ** -42)) continue;
        }
        const distance = block * BLOCK + place;
        const negative = second >> 31;
        // Zero has one sign only.
        if (distance === 0 && negative !== 0) continue;
        values[i] = (round((values[i] as number) * steps) + ((distance ^ negative) - negative)) * grid;
        break;
      }
    }
    // Used words are forgotten.
    pool.fill(0, 0, next);
    this.#next = next;
  }

  /** Decides what the spare bits left open: at most one draw in twenty. `uniform` is in [0, SPARE), by 53 bits. */
  #accepts(block: number, place: number, uniform: number): boolean {
    const fall = Math.exp(-(place * (2 * block * BLOCK + place)) * this.#perSquare);
    return uniform * (1 / SPARE) < this.#acceptance[block]! * fall;
  }

  #refill(): void {
    const random = this.#random;
    if (random === undefined) randomFillSync(this.#pool);
    else for (let i = 0; i < POOL_WORDS; i++) this.#pool[i] = random();
  }
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

/** To the nearest whole number. Math.round takes a branch that no processor foresees: as long as a draw. */
function round(x: number): number {
  return Math.abs(x) < 2 ** 51 ? x + ROUNDER - ROUNDER : Math.round(x);
}

function floorLog2(x: number): number {
  const guess = Math.floor(Math.log2(x));
  if (2 ** guess > x) return guess - 1;
  return 2 ** (guess + 1) <= x ? guess + 1 : guess;
}
