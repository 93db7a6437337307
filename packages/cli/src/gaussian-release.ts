/** The mechanism that `audit mechanism` runs: updates clipped to a norm, summed, with Gaussian noise on the sum. */
import { cryptoWords } from '@tributary/privacy';

export interface GaussianReleaseOptions {
  /** The noise's standard deviation over the clipping norm. */
  readonly noiseMultiplier: number;
  /** L2. */
  readonly clippingNorm: number;
  /** Numbers of an update. */
  readonly dimension: number;
}

/** Returns the mechanism: a fresh release of each list of updates that it is given. */
export function gaussianRelease({
  noiseMultiplier,
  clippingNorm,
  dimension,
}: GaussianReleaseOptions): (updates: readonly Float64Array[]) => Float64Array {
  const words = cryptoWords();
  const stdDev = noiseMultiplier * clippingNorm;
  return (updates) => {
    const sum = Float64Array.from({ length: dimension }, () => stdDev * gaussian(words));
    for (const update of updates) {
      const norm = Math.sqrt(update.reduce((squares, value) => squares + value * value, 0));
      const factor = norm > clippingNorm ? clippingNorm / norm : 1;
      for (let i = 0; i < dimension; i++) sum[i]! += factor * update[i]!;
    }
    return sum;
  };
}

/** A standard normal number (Box and Muller 1958). */
function gaussian(words: () => number): number {
  const radius = Math.sqrt(-2 * Math.log((words() + 0.5) / 2 ** 32));
  return radius * Math.cos((2 * Math.PI * words()) / 2 ** 32);
}
