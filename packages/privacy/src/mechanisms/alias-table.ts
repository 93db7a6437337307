/**
 * Draws an index with probabilities that are whole multiples of 2^-32, exactly, from one random word: the alias method
 * (Walker 1977; Vose 1991) in integers. Samplers of other probabilities propose with it and correct by rejection.
 */

export interface AliasTable {
  /** The upper `bits` bits of a word choose a column, the lower ones decide between its two indices. */
  readonly bits: number;
  /** By column: below it the column's own index, from it on the alias. */
  readonly own: Int32Array;
  readonly alias: Int32Array;
}

/**
 * Returns whole weights that sum to 2^32 and of which each is at least `scale` times its share of `masses`; together
 * with `scale`. Rejecting index i with probability 1 - scale * masses[i] / weights[i] gives the distribution of masses.
 */
export function proposalWeights(masses: Float64Array): { weights: Float64Array; scale: number } {
  let total = 0;
  for (let i = masses.length - 1; i >= 0; i--) total += masses[i] as number;
  const scale = (2 ** 32 - 2 * masses.length) / total;
  const weights = masses.map((mass) => Math.ceil(mass * scale * (1 + 2 ** -40)));
  const sum = weights.reduce((a, b) => a + b, 0);
  // What is left over goes where it is smallest, relatively.
  weights[0] = weights[0]! + (2 ** 32 - sum);
  return { weights, scale };
}

/** Returns the table of `weights`, whole numbers that sum to 2^32; at most 2^20 of them. */
export function createAliasTable(weights: Float64Array): AliasTable {
  const bits = Math.max(2, Math.ceil(Math.log2(weights.length)));
  const columns = 2 ** bits;
  const capacity = 2 ** (32 - bits);
  const own = new Int32Array(columns);
  const alias = Int32Array.from({ length: columns }, (_, i) => i);
  const left = new Float64Array(columns);
  left.set(weights);
  const small: number[] = [];
  const large: number[] = [];
  for (let i = 0; i < columns; i++) (left[i]! < capacity ? small : large).push(i);
  while (small.length > 0 && large.length > 0) {
    const low = small.pop()!;
    const high = large.at(-1)!;
    own[low] = left[low]!;
    alias[low] = high;
    left[high] = left[high]! - (capacity - left[low]!);
    if (left[high]! < capacity) small.push(large.pop()!);
  }
  for (const i of [...small, ...large]) {
    if (left[i] !== capacity)
      throw new RangeError(`the weights don't sum to 2^32: column ${i} has ${left[i]}`);
    own[i] = capacity;
  }
  return { bits, own, alias };
}
