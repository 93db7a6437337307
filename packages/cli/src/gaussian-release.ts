/** The mechanism that `audit mechanism` runs: updates clipped to a norm, summed, with Gaussian noise on the sum. */
import { clipToNorm, createGaussianNoise, noiseStdDev } from '@tributary/privacy';

export interface GaussianReleaseOptions {
  /** The noise's standard deviation over the clipping norm. */
  readonly noiseMultiplier: number;
  /** L2. */
  readonly clippingNorm: number;
  /** Numbers of an update. */
  readonly dimension: number;
}

/** Returns the mechanism: a fresh release of each list of updates that it is given. */
export function gaussianRelease(
  options: GaussianReleaseOptions,
): (updates: readonly Float64Array[]) => Float64Array {
  const noise = createGaussianNoise({ stdDev: noiseStdDev(options) });
  return (updates) => {
    const sum = new Float64Array(options.dimension);
    for (const update of updates) {
      const clipped = Float32Array.from(update);
      clipToNorm([clipped], options.clippingNorm);
      for (let i = 0; i < sum.length; i++) sum[i]! += clipped[i]!;
    }
    noise.addTo(sum);
    return sum;
  };
}
