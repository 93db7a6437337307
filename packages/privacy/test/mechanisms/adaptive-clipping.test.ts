import { expect, test } from 'vitest';
import {
  type AdaptiveClippingSettings,
  clipToNorm,
  initAdaptiveClipping,
  updateAdaptiveClipping,
  updateNoiseMultiplier,
} from '../../src/index.ts';
import { momentsOf } from './statistics.ts';

/** Rounds over the same two records, without noise: the norm after each round, and each round's clipped sum. */
function track(settings: AdaptiveClippingSettings, records: readonly number[], rounds: number) {
  const norms: number[] = [];
  const sums: number[] = [];
  let state = initAdaptiveClipping(settings);
  for (let round = 0; round < rounds; round++) {
    const updates = records.map((value) => [Float32Array.of(value)]);
    const within = updates.map((update) => !clipToNorm(update, state.clippingNorm).clipped);
    sums.push(updates.reduce((sum, update) => sum + update[0]![0]!, 0));
    state = updateAdaptiveClipping(settings, state, within);
    norms.push(state.clippingNorm);
  }
  return { norms, sums };
}
const close = (values: readonly number[]) => values.map((value) => expect.closeTo(value, 6));

test('records 5 and -2.5, target 0, learning rate ln 2, from 16 (vector of tensorflow_privacy)', () => {
  const settings = {
    initialClippingNorm: 16,
    targetQuantile: 0,
    learningRate: Math.LN2,
    expectedCohort: 2,
    countStdDev: 0,
  };
  const { norms, sums } = track(settings, [5, -2.5], 5);
  expect(norms).toEqual(close([8, 4, 2.8284271, 2, 2]));
  expect(sums).toEqual(close([2.5, 2.5, 1.5, 0.3284271, 0]));
});

test('records -1.5 and 3, target 1, learning rate ln 2, from 0.5 (vector of tensorflow_privacy)', () => {
  const settings = {
    initialClippingNorm: 0.5,
    targetQuantile: 1,
    learningRate: Math.LN2,
    expectedCohort: 2,
    countStdDev: 0,
  };
  const { norms, sums } = track(settings, [-1.5, 3], 5);
  expect(norms).toEqual(close([1, 2, 2.8284271, 4, 4]));
  expect(sums).toEqual(close([0, 0, 0.5, 1.3284271, 1.5]));
});

test('all above: the norm grows by exp(learningRate * target) (vector of TFF)', () => {
  const settings = {
    initialClippingNorm: 314159 / 1e5,
    targetQuantile: 0.61803,
    learningRate: 271828 / 1e5,
    expectedCohort: 2,
    countStdDev: 0,
  };
  const next = updateAdaptiveClipping(settings, initAdaptiveClipping(settings), [false, false]);
  expect(next.clippingNorm).toBeCloseTo((314159 / 1e5) * Math.exp((271828 / 1e5) * 0.61803), 6);
});

test('section 6, 3 (Flower): a round’s own norm is still there for its noise when the next round’s is known', () => {
  const settings = { initialClippingNorm: 4, expectedCohort: 2, countStdDev: 0 };
  const state = initAdaptiveClipping(settings);
  const next = updateAdaptiveClipping(settings, state, [false, false]);
  // Nothing was within: it grows, by exp(0.2 * 0.5), where Flower's wrappers shrink it.
  expect(next.clippingNorm).toBeCloseTo(4 * Math.exp(0.1), 12);
  expect(state.clippingNorm).toBe(4);
});

test('the defaults: from 0.1 with fractions 0, 0, 0.2 and 1', () => {
  const settings = { expectedCohort: 5, countStdDev: 0 };
  let state = initAdaptiveClipping(settings);
  const norms = [0, 0, 1, 5].map((within) => {
    state = updateAdaptiveClipping(
      settings,
      state,
      Array.from({ length: 5 }, (_, i) => i < within),
    );
    return state.clippingNorm;
  });
  expect(norms.map((norm) => norm.toFixed(10))).toEqual([
    '0.1105170918',
    '0.1221402758',
    '0.1296930087',
    '0.1173510871',
  ]);
});

test('half of the multiplier’s worth goes to the count: z_D for z and the standard deviation of the count', () => {
  expect(updateNoiseMultiplier(1, 5)).toBeCloseTo(1.005037815, 9);
  expect(updateNoiseMultiplier(3, 5)).toBeCloseTo(3.14485451, 8);
  expect(updateNoiseMultiplier(2, 5)).toBeCloseTo(2.041241452, 9);
  expect(updateNoiseMultiplier(1, 1)).toBeCloseTo(1.154700538, 9);
  expect(() => updateNoiseMultiplier(2, 1)).toThrow(RangeError);
});

test('the fraction is over the expected cohort, and its noise has the standard deviation of the count over it', () => {
  // 40 of 50 came, all within: (40 / 2) / 50 + 1/2 = 0.9 on average, and the noise is m / 20 / m = 0.05.
  const settings = { initialClippingNorm: 1, learningRate: 1, targetQuantile: 0.5, expectedCohort: 50 };
  const within = new Array<boolean>(40).fill(true);
  const fractions = Array.from(
    { length: 600 },
    () =>
      0.5 - Math.log(updateAdaptiveClipping(settings, initAdaptiveClipping(settings), within).clippingNorm),
  );
  const { mean, stdDev } = momentsOf(fractions);
  // Six standard errors: 0.05 / sqrt(600) and 0.05 / sqrt(1200).
  expect(Math.abs(mean - 0.9)).toBeLessThan(6 * 0.00204);
  expect(Math.abs(stdDev - 0.05)).toBeLessThan(6 * 0.00144);
});

test('settings outside their range are refused', () => {
  expect(() => initAdaptiveClipping({ expectedCohort: 0 })).toThrow(RangeError);
  expect(() => initAdaptiveClipping({ expectedCohort: 5, targetQuantile: 1.1 })).toThrow(RangeError);
  expect(() => initAdaptiveClipping({ expectedCohort: 5, learningRate: 0 })).toThrow(RangeError);
  expect(() => initAdaptiveClipping({ expectedCohort: 5, initialClippingNorm: 0 })).toThrow(RangeError);
  expect(() => initAdaptiveClipping({ expectedCohort: 5, countStdDev: -1 })).toThrow(RangeError);
});
