/** Record-level privacy in the terms of a federation: what rounds of training cost the records of a site. */
import type { PoissonGaussian } from './accounting/history.ts';
import { PrivacyError } from './errors.ts';

/** One round of DP-SGD at a site. */
export interface RecordLevelRound {
  readonly noiseMultiplier: number;
  /** Records in the site's training split. */
  readonly trainExamples: number;
  /** Records a step, on average. */
  readonly batchSize: number;
  /** Passes over the split, on average; or `steps`. One of the two. */
  readonly epochs?: number | undefined;
  readonly steps?: number | undefined;
}

/** How a site samples its records (Poisson: each one by itself, in every step) and how often, in one round. */
export function poissonSampling({ trainExamples, batchSize, epochs = 1, steps }: RecordLevelRound): {
  readonly samplingRate: number;
  readonly steps: number;
} {
  if (!Number.isInteger(trainExamples) || trainExamples < 1) {
    throw new PrivacyError(
      'FED_PRIVACY_PARAMETER',
      `trainExamples is a whole number from 1, not ${trainExamples}.`,
    );
  }
  return {
    samplingRate: Math.min(1, batchSize / trainExamples),
    steps: steps ?? epochs * Math.ceil(trainExamples / batchSize),
  };
}

/** The rounds as an accountant takes them, those alike in one entry. */
export function recordLevelHistory(rounds: readonly RecordLevelRound[]): PoissonGaussian[] {
  const alike = new Map<string, { noiseMultiplier: number; samplingRate: number; steps: number }>();
  for (const round of rounds) {
    const { noiseMultiplier } = round;
    const { samplingRate, steps } = poissonSampling(round);
    const key = `${noiseMultiplier} ${samplingRate}`;
    const before = alike.get(key)?.steps ?? 0;
    alike.set(key, { noiseMultiplier, samplingRate, steps: before + steps });
  }
  return [...alike.values()].map((steps) => ({ kind: 'poisson-gaussian' as const, ...steps }));
}
