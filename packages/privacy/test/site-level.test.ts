import { seededWords } from '@tributary/testkit';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  arrivedWhole,
  clipToNorm,
  divideNoise,
  epsilonSpent,
  gaussianEpsilon,
  isWithinBudget,
  protectUpdate,
  type SiteLevelRound,
  spendingHistory,
} from '../src/index.ts';
import { momentsOf } from './mechanisms/statistics.ts';

const DELTA = 1e-5;
const rounds = (noiseMultiplier: number, count: number): SiteLevelRound[] =>
  Array.from({ length: count }, () => ({ unit: 'site', noiseMultiplier }));

describe('the account of a site', () => {
  test.each([
    // One release: the analytic Gaussian by dp_accounting.
    [1, 1, 4.3771780957],
    [2, 1, 1.9930914044],
    [10, 1, 0.3406693647],
    // T Gaussians with multiplier z are one with z / sqrt(T): 4 / sqrt(4) = 2, 10 / sqrt(100) = 1.
    [4, 4, 1.9930914044],
    [10, 100, 4.3771780957],
  ])('noise multiplier %d over %d rounds costs epsilon %d, and not less', (noiseMultiplier, count, exact) => {
    const epsilon = epsilonSpent(rounds(noiseMultiplier, count), DELTA);
    expect(epsilon).toBeGreaterThan(exact - 1e-6);
    expect(epsilon).toBeLessThan(exact + 2e-3);
  });

  test('rounds with different noise compose: 1 / z^2 adds up', () => {
    // 1/4 + 1/4 + 1/16 + 1/16 = 5/8.
    const both = [...rounds(2, 2), ...rounds(4, 2)];
    const exact = gaussianEpsilon(Math.sqrt(8 / 5), DELTA);
    expect(epsilonSpent(both, DELTA)).toBeCloseTo(exact, 2);
    expect(spendingHistory(both)).toEqual([
      { kind: 'poisson-gaussian', noiseMultiplier: 2, samplingRate: 1, steps: 2 },
      { kind: 'poisson-gaussian', noiseMultiplier: 4, samplingRate: 1, steps: 2 },
    ]);
  });

  // FL frameworks have added up the epsilons of sites or rounds as if that were an accountant: 50 x 0.65 is 33.
  test('50 rounds at multiplier 5 cost about 7: not 50 times one, and not one', () => {
    const epsilon = epsilonSpent(rounds(5, 50), DELTA);
    expect(epsilon).toBeGreaterThan(6);
    expect(epsilon).toBeLessThan(8);
  });

  test('choosing some of the sites gives no amplification: one round costs a site the same whoever else is asked', () => {
    expect(spendingHistory(rounds(1, 1))).toEqual([
      { kind: 'poisson-gaussian', noiseMultiplier: 1, samplingRate: 1, steps: 1 },
    ]);
  });

  test('a budget has room up to its epsilon', () => {
    const epsilon = epsilonSpent(rounds(3, 7), DELTA);
    expect(isWithinBudget(rounds(3, 7), { epsilon, delta: DELTA })).toBe(true);
    expect(isWithinBudget(rounds(3, 8), { epsilon, delta: DELTA })).toBe(false);
  });

  test('rounds of records are counted beside those of the site', () => {
    const record = { noiseMultiplier: 2, trainExamples: 100, batchSize: 10, epochs: 1 };
    expect(spendingHistory([record, ...rounds(2, 1)])).toEqual([
      { kind: 'poisson-gaussian', noiseMultiplier: 2, samplingRate: 0.1, steps: 10 },
      { kind: 'poisson-gaussian', noiseMultiplier: 2, samplingRate: 1, steps: 1 },
    ]);
  });
});

describe('protectUpdate', () => {
  test('clips over all tensors together (data of Flower’s tests: the norm is 4, so the factor is 1.5 / 4)', () => {
    const update = [
      Float32Array.of(1.5, -0.5, 2, -1),
      Float32Array.of(0.5, -0.5),
      Float32Array.of(-0.5, 1.5, -1, 2),
      Float32Array.of(-0.5, 0.5),
    ];
    // 2.25 + 0.25 + 4 + 1 = 7.5, + 0.5, + 7.5, + 0.5 = 16.
    expect(protectUpdate(update, { clippingNorm: 1.5 })).toEqual({ norm: 4, clipped: true });
    expect([...update[0]!]).toEqual([0.5625, -0.1875, 0.75, -0.375].map((v) => expect.closeTo(v, 6)));
  });

  // flwrlabs/flower#7631: a norm of zero crashed the round.
  test('an update of zeros stays one without noise, and becomes noise alone with it', () => {
    const zeros = [new Float32Array(40_000), new Float32Array(10)];
    expect(protectUpdate(zeros, { clippingNorm: 2 })).toEqual({ norm: 0, clipped: false });
    expect(zeros[0]!.every((value) => value === 0)).toBe(true);

    protectUpdate(zeros, { clippingNorm: 2, noiseMultiplier: 3, random: seededWords(1) });
    const { mean, stdDev } = momentsOf(zeros[0]!);
    // z C = 6; five standard deviations of a mean of 40,000: 5 x 6 / 200 = 0.15, and of a deviation: 5 x 6 / sqrt(80,000).
    expect(Math.abs(mean)).toBeLessThan(0.15);
    expect(Math.abs(stdDev - 6)).toBeLessThan(0.107);
    expect(zeros[1]!.every((value) => value !== 0)).toBe(true);
  });

  // Flower's LocalDpMod takes the sensitivity beside the clipping norm; one user set 1e-4 with a norm of 1, "epsilon 10".
  test('the noise grows with the norm that was clipped to: there is no sensitivity to set', () => {
    const spread = (clippingNorm: number) => {
      const update = [new Float32Array(20_000)];
      protectUpdate(update, { clippingNorm, noiseMultiplier: 1, random: seededWords(2) });
      return momentsOf(update[0]!).stdDev;
    };
    // Each deviation is right to 1 / sqrt(40,000); five times that, for the quotient of two: 3.6 %.
    expect(Math.abs(spread(1000) / spread(1) - 1000)).toBeLessThan(36);
  });

  test('noise differs from number to number, tensor to tensor, and time to time', () => {
    const noised = () => {
      const update = [new Float32Array(4), new Float32Array(4)];
      protectUpdate(update, { clippingNorm: 1, noiseMultiplier: 1 });
      return [...update[0]!, ...update[1]!];
    };
    expect(new Set([...noised(), ...noised()]).size).toBe(16);
  });

  test('nothing that is not finite gets through', () => {
    const update = [Float32Array.of(1, Number.NaN)];
    expect(() => protectUpdate(update, { clippingNorm: 1, noiseMultiplier: 1 })).toThrow(
      expect.objectContaining({ code: 'FED_PRIVACY_UPDATE_NOT_FINITE' }),
    );
  });
});

describe('arrivedWhole', () => {
  test('says of what a site has clipped that it was, and of all that is shorter by a millionth that it was not', () => {
    const value = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1e6, max: 1e6 });
    fc.assert(
      fc.property(
        fc.float32Array({ minLength: 1, maxLength: 40, noNaN: true, noDefaultInfinity: true }),
        value,
        (drawn, c) => {
          // Numbers that have all of a float's bits, and a norm that is not below what they can be scaled to.
          const update = drawn.map((x) => (Math.abs(x) < 1e-20 || Math.abs(x) > 1e20 ? 1 : x));
          const clippingNorm = Math.max(1e-6, Math.abs(c));
          const { clipped } = clipToNorm([update], clippingNorm);
          const norm = Math.sqrt(update.reduce((sum, x) => sum + x * x, 0));
          fc.pre(clipped || norm < clippingNorm * (1 - 1e-6));
          expect(arrivedWhole(norm, clippingNorm)).toBe(!clipped);
        },
      ),
    );
  });
});

describe('divideNoise', () => {
  test.each([
    // From the theorem: z_D = (z^-2 - (2 sigma_b)^-2)^(-1/2); sigma_b is 100 / 20 where it is not given.
    [{ noiseMultiplier: 1, expectedCohort: 100 }, 5, 1.005037815],
    [{ noiseMultiplier: 3, expectedCohort: 100, countStdDev: 5 }, 5, 3.14485451],
    [{ noiseMultiplier: 2, expectedCohort: 100 }, 5, 2.041241452],
    // Five sites: 5 / 20 is less than the multiplier, which takes its place. (1 - 1/4)^(-1/2) = 1.1547.
    [{ noiseMultiplier: 1, expectedCohort: 5 }, 1, 1.154700538],
  ])('%j', (options, countStdDev, sum) => {
    const divided = divideNoise(options);
    expect(divided).toEqual({ countStdDev, sumNoiseMultiplier: expect.closeTo(sum, 8) });
    // Together they cost what was asked for: the count of halves has a sensitivity of 1/2.
    expect(divided.sumNoiseMultiplier ** -2 + (2 * countStdDev) ** -2).toBeCloseTo(
      options.noiseMultiplier ** -2,
      12,
    );
  });

  test('refuses a count with so little noise that it alone would spend more', () => {
    expect(() => divideNoise({ noiseMultiplier: 2, expectedCohort: 100, countStdDev: 1 })).toThrow(
      RangeError,
    );
  });
});
