import { seededWords } from '@tributary/testkit';
import { describe, expect, test } from 'vitest';
import { auditMechanism, cryptoWords, gaussianEpsilon, type RandomWords } from '../../src/index.ts';
import { BUGS, type Bug, gaussianMean, type WeightedRecord } from './gaussian-mean.ts';

const DELTA = 1e-5;
const CLIPPING_NORM = 2;
const WEIGHT_CAP = 10;
const SITES: readonly WeightedRecord[] = [
  { update: [0.5, -1], weight: 10 },
  { update: [-3, 2], weight: 4 },
];
/** Its norm is 100 times the clipping norm and its weight 50 times the cap: a sound mechanism takes C of it. */
const CANARY: WeightedRecord = { update: [100 * CLIPPING_NORM, 0], weight: 50 * WEIGHT_CAP };

/** These show in the tails only; the others in every release. */
const SUBTLE: readonly Bug[] = ['half the noise', 'the mean over those who are there'];

function audit(noiseMultiplier: number, trials: number, words: RandomWords, bug?: Bug) {
  return auditMechanism({
    release: gaussianMean({
      words,
      noiseMultiplier,
      clippingNorm: CLIPPING_NORM,
      weightCap: WEIGHT_CAP,
      expectedRecords: 3,
      ...(bug === undefined ? {} : { bug }),
    }),
    without: SITES,
    with: [...SITES, CANARY],
    coordinate: 0,
    trials,
    claimedEpsilon: gaussianEpsilon(noiseMultiplier, DELTA),
    delta: DELTA,
  });
}

describe('auditMechanism', () => {
  test.each([
    [1, 10_000],
    [2, 30_000],
  ])(
    'a sound mechanism with noise multiplier %d, %d trials: over 20 seeds the bound stays below the claim and above 0.3 of it',
    (noiseMultiplier, trials) => {
      for (let seed = 0; seed < 20; seed++) {
        const { epsilonLowerBound, claimedEpsilon, verdict } = audit(
          noiseMultiplier,
          trials,
          seededWords(seed),
        );
        expect(epsilonLowerBound, `seed ${seed}`).toBeLessThan(claimedEpsilon);
        expect(epsilonLowerBound, `seed ${seed}`).toBeGreaterThan(0.3 * claimedEpsilon);
        expect(verdict).toBe('not-refuted');
      }
    },
  );

  test.each(BUGS)('%s: the bound exceeds the claim, over 20 seeds', (bug) => {
    const trials = SUBTLE.includes(bug) ? 60_000 : 2000;
    for (let seed = 0; seed < 20; seed++) {
      const { epsilonLowerBound, claimedEpsilon, verdict } = audit(2, trials, seededWords(seed), bug);
      expect(epsilonLowerBound, `seed ${seed}`).toBeGreaterThan(claimedEpsilon);
      expect(verdict).toBe('refuted');
    }
  });

  test('counts are of the half of the trials that did not choose the threshold', () => {
    const { positives, negatives, truePositives, falsePositives } = audit(2, 1000, cryptoWords(), 'no noise');
    // Without noise the two differ in every release.
    expect({ positives, negatives, truePositives, falsePositives }).toEqual({
      positives: 500,
      negatives: 500,
      truePositives: 500,
      falsePositives: 0,
    });
  });

  test('a canary that changes nothing gives a bound of 0', () => {
    const same = {
      without: SITES,
      with: SITES,
      coordinate: 0,
      trials: 4000,
      claimedEpsilon: 0,
      delta: DELTA,
    };
    const words = seededWords(1);
    const release = gaussianMean({
      words,
      noiseMultiplier: 1,
      clippingNorm: 1,
      weightCap: 1,
      expectedRecords: 2,
    });
    expect(auditMechanism({ ...same, release })).toMatchObject({
      epsilonLowerBound: 0,
      verdict: 'not-refuted',
    });
  });

  test('an odd number of trials, a coordinate that is not there and a NaN are refused', () => {
    const base = { without: 0, with: 1, coordinate: 0, trials: 100, claimedEpsilon: 1, delta: DELTA };
    expect(() => auditMechanism({ ...base, release: () => [0], trials: 99 })).toThrow('not 99');
    expect(() => auditMechanism({ ...base, release: () => [0], coordinate: 1 })).toThrow('coordinate 1');
    expect(() => auditMechanism({ ...base, release: () => [Number.NaN] })).toThrow('NaN');
    expect(() => auditMechanism({ ...base, release: () => [0], claimedEpsilon: -1 })).toThrow('not -1');
  });
});
