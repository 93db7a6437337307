/**
 * Whole-number noise for sums that are made under a modulus: the Skellam distribution, the difference of two Poisson
 * variables of mean variance / 2. Shares of it add up to exactly the same kind of noise, whoever drops out: Agarwal,
 * Kairouz, Liu 2021, arXiv 2110.04995.
 */
import { cryptoWords, type RandomWords } from '../random.ts';
import { createAliasTable, proposalWeights } from './alias-table.ts';

export interface SkellamNoise {
  /** Of each number that is drawn. */
  readonly variance: number;
  /** Adds a whole number of its own to each of `values`, in place; they wrap as Int32Array does, modulo 2^32. */
  addTo(values: Int32Array): void;
}

const MAX_VARIANCE = 2 ** 32;
/** Places after the binary point in the recurrence, and in the probabilities that come out. */
const FRACTION_BITS = 160n;
const PROBABILITY_BITS = 250n;

/**
 * Returns noise with `variance`, in (0, 2^32]. Each probability is that of the Skellam distribution up to a factor
 * within 1 ± 2^-50, and what is cut off at the ends is less than 2^-110. Setting up takes time in proportion to the
 * standard deviation: about 10 millis at 4,000. `random`: @default `node:crypto`.
 */
export function createSkellamNoise({
  variance,
  random = cryptoWords(),
}: {
  readonly variance: number;
  readonly random?: RandomWords;
}): SkellamNoise {
  if (!(variance > 0 && variance <= MAX_VARIANCE)) {
    throw new RangeError(`variance must be above 0 and at most 2^32; got ${variance}`);
  }
  const masses = skellamMasses(variance);
  const { weights, scale } = proposalWeights(masses);
  const { bits, own, alias } = createAliasTable(weights);
  const shift = 32 - bits;
  const coin = 2 ** shift - 1;
  /** By distance from 0, in units of 2^-31: the whole part accepts at once, the rest by another word. */
  const acceptance = masses.map((mass, k) => ((mass * scale) / weights[k]!) * 2 ** 31);

  function draw(): number {
    for (;;) {
      const first = random();
      const column = first >>> shift;
      const distance = (first & coin) >>> 0 < own[column]! ? column : alias[column]!;
      const second = random();
      const spare = (second & 0x7fff_ffff) - acceptance[distance]!;
      if (spare >= 0 || (spare > -1 && (random() >>> 0) * 2 ** -32 >= -spare)) continue;
      if (second >>> 31 === 0) return distance;
      // Zero has one sign only.
      if (distance !== 0) return -distance;
    }
  }

  return {
    variance,
    addTo(values) {
      for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) + draw();
    },
  };
}

/**
 * Returns the variance of each client's share of noise, so that the sum's is at least `centralVariance` with as few
 * survivors as are permitted, `threshold`, of which `colluders` subtract their own: centralVariance / (threshold -
 * colluders).
 *
 * Shares that are sized for the clients that began leave too little when some drop out. Throws RangeError unless
 * colluders < threshold are whole numbers and the variance is positive and finite.
 */
export function localVariance({
  centralVariance,
  threshold,
  colluders,
}: {
  readonly centralVariance: number;
  readonly threshold: number;
  readonly colluders: number;
}): number {
  if (
    !(Number.isInteger(colluders) && Number.isInteger(threshold) && 0 <= colluders && colluders < threshold)
  ) {
    throw new RangeError(`colluders must be fewer than the threshold; got ${colluders} and ${threshold}`);
  }
  if (!(centralVariance > 0 && centralVariance < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`centralVariance must be a positive, finite number; got ${centralVariance}`);
  }
  return centralVariance / (threshold - colluders);
}

/**
 * Returns the probabilities of 0, 1, 2, ... on one side. They go as the Bessel functions I_k(variance), which obey
 * I_{k-1} = I_{k+1} + (2k / variance) I_k: downwards from where they vanish, every term is positive and errors don't grow
 * (Miller's algorithm). Their sum over both sides makes them probabilities.
 */
function skellamMasses(variance: number): Float64Array {
  const [numerator, denominator] = asFraction(variance);
  const last = Math.ceil(13 * Math.sqrt(variance)) + 64;
  const terms: bigint[] = new Array(last + 1);
  let above = 0n;
  let term = 1n << FRACTION_BITS;
  for (let k = last; k > 0; k--) {
    terms[k] = term;
    [above, term] = [term, above + (2n * BigInt(k) * denominator * term) / numerator];
  }
  terms[0] = term;
  const total = terms.reduce((sum, value) => sum + 2n * value, -term);
  const masses = new Float64Array(last + 1);
  for (let k = 0; k <= last; k++) {
    masses[k] = Number((terms[k]! << PROBABILITY_BITS) / total) * 2 ** -Number(PROBABILITY_BITS);
  }
  return masses;
}

/** The two whole numbers whose quotient a double is. */
function asFraction(x: number): [bigint, bigint] {
  let denominator = 1n;
  let scaled = x;
  while (!Number.isInteger(scaled)) {
    scaled *= 2;
    denominator *= 2n;
  }
  return [BigInt(scaled), denominator];
}
