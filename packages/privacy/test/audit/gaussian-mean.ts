/** The mechanism that the audit's own tests run: a clipped, weighted mean with Gaussian noise, sound or with one bug. */
import { createCipheriv, createHash } from 'node:crypto';
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
      const factor = bug === 'no clipping' ? 1 : Math.min(1, clippingNorm / Math.hypot(...update));
      for (let i = 0; i < sum.length; i++) sum[i]! += (capped / weightCap) * factor * update[i]!;
    }
    return sum.map((value) => (value + stdDev * gaussian()) / expectedRecords);
  };
}

/** The keystream of AES-256-CTR under a key made of the seed: uniform words that come again in the next run. */
export function seededWords(seed: number): RandomWords {
  const key = createHash('sha256').update(`audit ${seed}`).digest();
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  const zeros = Buffer.alloc(16_384);
  let block = cipher.update(zeros);
  let at = 0;
  return () => {
    if (at === block.length) {
      block = cipher.update(zeros);
      at = 0;
    }
    at += 4;
    return block.readUInt32LE(at - 4);
  };
}

/** Standard normal numbers (Box and Muller 1958). */
function gaussians(words: RandomWords): () => number {
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log((words() + 0.5) / 2 ** 32));
    const angle = (2 * Math.PI * words()) / 2 ** 32;
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
