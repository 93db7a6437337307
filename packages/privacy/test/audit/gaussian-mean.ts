/** The mechanism that the audit's own tests run: a clipped, weighted mean with Gaussian noise, sound or with one bug. */
import { gaussians, seededWords } from '@tributary/testkit';
import type { RandomWords } from '../../src/index.ts';

export interface WeightedRecord {
  readonly update: readonly number[];
  readonly weight: number;
}

export const BUGS = [
  'no noise',
  'half the noise',
  'no clipping',
  'a constant noise seed',
  'uncapped weights',
  // As in Opacus issue 571: the number of records is private too.
  'the mean over those who are there',
] as const;
export type Bug = (typeof BUGS)[number];

export interface GaussianMeanOptions {
  readonly words: RandomWords;
  /** Of the noise on the sum, over the clipping norm. */
  readonly noiseMultiplier: number;
  readonly clippingNorm: number;
  readonly weightCap: number;
  /** What the sum is divided by, whoever is there. */
  readonly expectedRecords: number;
  readonly bug?: Bug;
}

/** sum of (min(weight, cap) / cap) clip(update) + N(0, (z C)^2), over the expected number: one record adds C at most. */
export function gaussianMean(options: GaussianMeanOptions): (records: readonly WeightedRecord[]) => number[] {
  const { clippingNorm, weightCap, expectedRecords, bug } = options;
  const stdDev =
    options.noiseMultiplier * clippingNorm * ({ 'no noise': 0, 'half the noise': 0.5 }[bug as string] ?? 1);
  let gaussian = gaussians(options.words);
  return (records) => {
    if (bug === 'a constant noise seed') gaussian = gaussians(seededWords(7));
    const sum = records[0]!.update.map(() => 0);
    for (const { update, weight } of records) {
      const capped = bug === 'uncapped weights' ? weight : Math.min(weight, weightCap);
      const norm = Math.sqrt(update.reduce((squares, value) => squares + value * value, 0));
      const factor = bug === 'no clipping' ? 1 : Math.min(1, clippingNorm / norm);
      for (let i = 0; i < sum.length; i++) sum[i]! += (capped / weightCap) * factor * update[i]!;
    }
    const divisor = bug === 'the mean over those who are there' ? records.length : expectedRecords;
    return sum.map((value) => (value + stdDev * gaussian()) / divisor);
  };
}
