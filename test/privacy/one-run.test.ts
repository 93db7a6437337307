/** The audit by one training run: crafted records in or out by coins, trained on, and guessed at from the model's losses. */
import { oneRunEpsilonLowerBound } from '@tributary/privacy';
import { gaussians, seededWords } from '@tributary/testkit';
import { beforeAll, describe, expect, test } from 'vitest';
import { CLASSES, type Digit, PIXELS, readDigits } from './digits.ts';
import { claimedEpsilon, type Labelled, trainPrivately } from './dp-sgd.ts';
import { createNetwork } from './network.ts';

const DELTA = 1e-5;
const STEPS = 10;
const CANARIES = PIXELS;
/** The most doubtful half is not guessed at. */
const GUESSES = CANARIES / 2;
let digits: readonly Digit[];

beforeAll(async () => {
  digits = await readDigits(40);
});

/** One bright pixel each, with a label by chance: their gradients hardly overlap. */
function craftCanaries(words: () => number): Labelled[] {
  return Array.from({ length: CANARIES }, (_, i) => {
    const pixels = new Float64Array(PIXELS);
    pixels[i] = 4;
    return { pixels, label: words() % CLASSES };
  });
}

/** Trains once and returns the bound that guesses from the losses give. */
function audit(noiseMultiplier: number, words: () => number): number {
  const canaries = craftCanaries(words).map((record) => ({ record, inside: words() % 2 === 1 }));
  const network = createNetwork([PIXELS, CLASSES]);
  const inside = canaries.filter((canary) => canary.inside).map(({ record }) => record);
  const records = [...digits, ...inside];
  trainPrivately(network, records, {
    steps: STEPS,
    learningRate: 3,
    clippingNorm: 1,
    noiseMultiplier,
    expectedRecords: digits.length + CANARIES / 2,
    gaussian: gaussians(words),
  });
  const ranked = canaries
    .map(({ record, inside }) => ({ inside, loss: network.loss(record.pixels, record.label) }))
    .sort((a, b) => a.loss - b.loss);
  const right = [
    ...ranked.slice(0, GUESSES / 2).filter((canary) => canary.inside),
    ...ranked.slice(-GUESSES / 2).filter((canary) => !canary.inside),
  ];
  return oneRunEpsilonLowerBound({ canaries: CANARIES, guesses: GUESSES, correct: right.length }, DELTA);
}

describe('one-run audit of a trained model', () => {
  const noiseMultiplier = 5;
  const claimed = claimedEpsilon(noiseMultiplier, STEPS, DELTA);
  const seeds = [1, 2, 3, 4, 5];

  test.each(seeds)(
    'trained with noise: the bound is above 0 and below the claimed epsilon (seed %d)',
    (seed) => {
      const bound = audit(noiseMultiplier, seededWords(seed));
      expect(bound).toBeGreaterThan(0);
      expect(bound).toBeLessThan(claimed);
    },
  );

  test.each(seeds)('with the noise switched off the bound exceeds the claimed epsilon (seed %d)', (seed) => {
    expect(audit(0, seededWords(seed))).toBeGreaterThan(claimed);
  });
});
