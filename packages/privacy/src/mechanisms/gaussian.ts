/**
 * Gaussian noise for differential privacy: a discrete Gaussian on a fine grid (Canonne, Kamath, Steinke 2020, arXiv
 * 2004.00010), so that no low bit of a float tells what it was added to (Mironov 2012). Its Rényi divergences at whole
 * orders are those of the continuous Gaussian, which is what the accountants compute. See docs/adr/0010-noise.md.
 */
import { randomFillSync } from 'node:crypto';
import type { RandomWords } from '../random.ts';
import { type AliasTable, createAliasTable, proposalWeights } from './alias-table.ts';
import { requireClippingNorm } from './clipping.ts';
import { createLayerLoop, type LayerLoop, LOOP_NUMBERS } from './layer-loop.ts';

export interface GaussianNoise {
  /** The standard deviation: not the variance. */
  readonly stdDev: number;
  /** What values are rounded to and noise is a multiple of: a power of two, in the unit of the values. */
  readonly grid: number;
  /**
   * Rounds each of `values` to the grid, adds noise of its own to it, and multiplies the sum by `factor`, in place. The sum
   * is made in doubles, also where floats are kept. Infinite and NaN stay what they are. `factor`: @default 1
   */
  addTo(values: Float32Array | Float64Array, factor?: number): void;
}

/** The standard deviation is at least 2^25 and less than 2^26 steps of the grid. */
const STEPS_BITS = 25;
/** Of a word: the place in a block, above it a sign, and above that the entry of the table that names the block. */
const BLOCK_BITS = 17;
const ENTRY_BITS = 32 - BLOCK_BITS - 1;
/** Steps of a block. A standard deviation is 256 to 512 blocks. */
const BLOCK = 2 ** BLOCK_BITS;
const ENTRIES = 2 ** ENTRY_BITS;
/** The entries that name no block: one in 20 to 36. */
const REST = -1;
/** Beyond this many standard deviations nothing is drawn; outside lies less than 2^-120. */
const REACH = 13;

/** Random words for the rest, at a time. */
const SPARE_WORDS = 1024;

/** Of all samplers here, one after the other: a WebAssembly memory reserves gigabytes of addresses. */
let sharedLoop: LayerLoop | undefined;

/**
 * Returns noise with `stdDev`, in the unit of the values that it will be added to. Each coordinate's probabilities are
 * those of the discrete Gaussian up to a factor within 1 ± 2^-43: n coordinates add at most n * 2^-42 to epsilon, and
 * n * 2^-120 to delta. A million take about 4 millis.
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
  return new LayerSampler(stdDev, random);
}

/**
 * Cuts the area under the density into rectangles of equal area, a block wide on either side and one layer high, as many
 * as fit, and the rest. A word chooses a rectangle and a place in it (Marsaglia 1963); in the rest, which is a layer high
 * at most, rejection finds a place (Walker's alias method proposes the block).
 *
 * Block h holds the steps d and -1 - d for d from h * BLOCK on: so zero is there once.
 */
class LayerSampler implements GaussianNoise {
  readonly stdDev: number;
  readonly grid: number;
  readonly #random: RandomWords | undefined;
  /** In steps. */
  readonly #sigma: number;
  /** The density at 0, in layers. */
  readonly #peak: number;
  /** By entry: its block, or REST. */
  readonly #table = new Int16Array(ENTRIES).fill(REST);
  /** By block: whole layers under the density, which are in the table. */
  readonly #layers: Float64Array;
  /** Of the rest: proposes blocks, and by block the height in layers up to which it proposes. */
  readonly #rest: AliasTable;
  readonly #ceiling: Float64Array;
  /** By block: of ENTRIES words, how many are accepted wherever in the block they lead. */
  readonly #sure: Int32Array;
  readonly #spare = new Int32Array(SPARE_WORDS);
  #next = SPARE_WORDS;

  constructor(stdDev: number, random: RandomWords | undefined) {
    this.stdDev = stdDev;
    this.grid = 2 ** (floorLog2(stdDev) - STEPS_BITS);
    this.#random = random;
    this.#sigma = stdDev / this.grid;
    this.#peak = (2 * BLOCK * ENTRIES) / (this.#sigma * Math.sqrt(2 * Math.PI));
    this.#layers = new Float64Array(Math.ceil((REACH * this.#sigma) / BLOCK));
    let used = 0;
    for (let h = 0; h < this.#layers.length; h++) {
      const layers = Math.floor(this.#density((h + 1) * BLOCK));
      this.#layers[h] = layers;
      this.#table.fill(h, used, used + layers);
      used += layers;
    }
    const heights = this.#layers.map((layers, h) => this.#density(h * BLOCK) - layers);
    const { weights, scale } = proposalWeights(heights);
    this.#rest = createAliasTable(weights);
    this.#ceiling = weights.map((weight) => weight / scale);
    this.#sure = Int32Array.from(this.#layers, (layers, h) => {
      const lowest = (this.#density((h + 1) * BLOCK) - layers) / this.#ceiling[h]!;
      return Math.floor(lowest * ENTRIES * (1 - 2 ** -40));
    });
  }

  addTo(values: Float32Array | Float64Array, factor = 1): void {
    sharedLoop ??= createLayerLoop(BLOCK_BITS);
    const { words, table, floats, doubles, left, addFloats, addDoubles } = sharedLoop;
    table.set(this.#table);
    const { grid } = this;
    const steps = 1 / grid;
    const [memory, add] = values instanceof Float32Array ? [floats, addFloats] : [doubles, addDoubles];
    for (let start = 0; start < values.length; start += LOOP_NUMBERS) {
      const part = values.subarray(start, start + LOOP_NUMBERS);
      this.#fill(words, part.length);
      memory.set(part);
      const count = add(4 * part.length, steps, grid, factor);
      part.set(memory.subarray(0, part.length));
      for (let i = 0; i < count; i++) {
        const at = (left[i] as number) >>> 2;
        const rounded = Math.floor((part[at] as number) * steps + 0.5);
        part[at] = (rounded * grid + this.#drawRest() * grid) * factor;
      }
    }
    // Used words are forgotten: of a longer vector, each part's were overwritten by the next's.
    words.fill(0, 0, values.length);
  }

  /** Draws a step by the density less the layers that the table has. */
  #drawRest(): number {
    const { bits, own, alias } = this.#rest;
    for (;;) {
      const first = this.#word();
      const column = first >>> (32 - bits);
      const isOwn = (first & ((1 << (32 - bits)) - 1)) < (own[column] as number);
      const block = isOwn ? column : (alias[column] as number);
      const second = this.#word();
      const step = stepOf(block, second);
      const sure = this.#sure[block] as number;
      if (second >>> (32 - ENTRY_BITS) < sure) return step;
      const height = this.#density(step) - (this.#layers[block] as number);
      let chance = ((height / (this.#ceiling[block] as number)) * ENTRIES - sure) / (ENTRIES - sure);
      // A coin for each halving: a small chance is met as exactly as a large one.
      while (chance < 0.5 && this.#word() < 0) chance *= 2;
      if (chance < 0.5) continue;
      const uniform = ((this.#word() >>> 0) * 2 ** 21 + (this.#word() >>> 11)) * 2 ** -53;
      if (uniform < chance) return step;
    }
  }

  /** At a whole number of steps, in layers. */
  #density(step: number): number {
    const z = step / this.#sigma;
    return this.#peak * Math.exp(-0.5 * z * z);
  }

  /** Gives each word once, and forgets it. */
  #word(): number {
    if (this.#next === SPARE_WORDS) {
      this.#fill(this.#spare, SPARE_WORDS);
      this.#next = 0;
    }
    const word = this.#spare[this.#next] as number;
    this.#spare[this.#next++] = 0;
    return word;
  }

  #fill(words: Int32Array, count: number): void {
    const random = this.#random;
    if (random === undefined) randomFillSync(words, 0, count);
    else for (let i = 0; i < count; i++) words[i] = random();
  }
}

/** A block's step, by the lower bits of a word: place and sign. */
function stepOf(block: number, word: number): number {
  const negative = (word << (31 - BLOCK_BITS)) >> 31;
  return ((block << BLOCK_BITS) | (word & (BLOCK - 1))) ^ negative;
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
