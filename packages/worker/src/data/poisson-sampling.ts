/**
 * Poisson sampling: each record is in a batch with the same probability, independently of the others and of other
 * batches. It is what accountants of DP-SGD assume; shuffled batches of a fixed size are another mechanism.
 */
import type { RandomWords } from '@tributary/privacy';

/**
 * Returns which of `count` records are in the batch, ascending: each with probability `samplingRate`, in (0, 1], to within
 * 2^-53. May be none.
 */
export function samplePoisson(count: number, samplingRate: number, random: RandomWords): number[] {
  if (!(samplingRate > 0 && samplingRate <= 1)) {
    throw new RangeError(`samplingRate must be in (0, 1]; got ${samplingRate}`);
  }
  const chosen: number[] = [];
  for (let index = 0; index < count; index++) {
    const uniform = ((random() >>> 0) * 2 ** 21 + (random() >>> 11)) * 2 ** -53;
    if (uniform < samplingRate) chosen.push(index);
  }
  return chosen;
}
