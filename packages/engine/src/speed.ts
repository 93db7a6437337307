/** How fast the current engine multiplies matrices: one figure by which machines can be compared. */
import * as tf from './tf.ts';

export interface Speed {
  /** Thousand million floating-point operations a second, of float32 matrix products. */
  readonly gigaflops: number;
  /** Rows and columns of the matrices. */
  readonly size: number;
  /** Products that were timed. */
  readonly products: number;
}

const SMALLEST = 128;
const LARGEST = 2048;
/** A product that takes less than this says more about calls than about arithmetic: the next size is tried. */
const LONG_ENOUGH_MS = 20;

/**
 * Multiplies square float32 matrices on the current engine for about `seconds` and returns the median speed. An n x n
 * product counts as 2 n^3 operations, its reading included, so the figure is what a caller gets, not the peak.
 */
export async function measureSpeed(seconds = 3): Promise<Speed> {
  const end = performance.now() + seconds * 1000;
  let size = SMALLEST;
  while (size < LARGEST && (await timeProduct(size)) < LONG_ENOUGH_MS) size *= 2;
  const times: number[] = [];
  do times.push(await timeProduct(size));
  while (performance.now() < end);
  times.sort((a, b) => a - b);
  const median = times[Math.floor(times.length / 2)]!;
  return { gigaflops: (2 * size ** 3) / median / 1e6, size, products: times.length };
}

/** Milliseconds of one product, with fresh operands so that nothing is remembered, and of reading one number of it. */
async function timeProduct(size: number): Promise<number> {
  const operands = [1, 2].map((seed) => tf.randomUniform([size, size], -1, 1, 'float32', seed));
  await Promise.all(operands.map((operand) => operand.data()));
  const start = performance.now();
  const corner = tf.tidy(() => tf.slice(tf.matMul(operands[0]!, operands[1]!), [0, 0], [1, 1]));
  await corner.data();
  const took = performance.now() - start;
  tf.dispose([...operands, corner]);
  return took;
}
