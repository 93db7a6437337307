/**
 * DP-SGD in its plainest form, for audits: in each step every record's own gradient is clipped, and the noise is added
 * to their sum (Abadi et al. 2016). All records take part in every step, so that `steps` steps with noise multiplier z
 * are one Gaussian mechanism with z / sqrt(steps), whose epsilon is known exactly.
 */
import { gaussianEpsilon } from '@tributary/privacy';
import type { Network } from './network.ts';

export interface Labelled {
  readonly pixels: ArrayLike<number>;
  readonly label: number;
}

export interface DpSgdOptions {
  readonly steps: number;
  readonly learningRate: number;
  /** L2, of one record's gradient. */
  readonly clippingNorm: number;
  /** 0 is the bug that an audit has to find. */
  readonly noiseMultiplier: number;
  /** Public: the sum is divided by it, however many records there are. */
  readonly expectedRecords: number;
  /** Standard normal. */
  readonly gaussian: () => number;
}

export function trainPrivately(network: Network, records: readonly Labelled[], options: DpSgdOptions): void {
  const { steps, learningRate, clippingNorm, noiseMultiplier, expectedRecords, gaussian } = options;
  const { parameters } = network;
  const sum = new Float64Array(parameters.length);
  const own = new Float64Array(parameters.length);
  for (let step = 0; step < steps; step++) {
    sum.fill(0);
    for (const { pixels, label } of records) {
      const norm = network.gradient(pixels, label, own);
      const factor = norm > clippingNorm ? clippingNorm / norm : 1;
      for (let i = 0; i < sum.length; i++) sum[i]! += factor * own[i]!;
    }
    for (let i = 0; i < sum.length; i++) {
      const noisy = sum[i]! + noiseMultiplier * clippingNorm * gaussian();
      parameters[i]! -= (learningRate * noisy) / expectedRecords;
    }
  }
}

/** The epsilon at `delta` of such a training: one record more or less. */
export function claimedEpsilon(noiseMultiplier: number, steps: number, delta: number): number {
  return gaussianEpsilon(noiseMultiplier / Math.sqrt(steps), delta);
}
