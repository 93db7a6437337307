import { expect, test } from 'vitest';
import { createSkellamNoise, localVariance } from '../../src/index.ts';
import { chiSquareDeviations, momentsOf } from './statistics.ts';

const DRAWS = 400_000;
// Bounds are at least six standard errors: chance fails each less than once in a million runs.

function draw(variance: number): Int32Array {
  const values = new Int32Array(DRAWS);
  createSkellamNoise({ variance }).addTo(values);
  return values;
}

test.each([0.3, 1, 100, 4096 ** 2])('the variance is %s, and the kurtosis 3 + 1 / variance', (variance) => {
  const { mean, stdDev, kurtosis } = momentsOf(draw(variance));
  const error = Math.sqrt((kurtosis - 1) / DRAWS);
  expect(Math.abs(mean)).toBeLessThan(6 * Math.sqrt(variance / DRAWS));
  expect(Math.abs(stdDev ** 2 / variance - 1)).toBeLessThan(6 * error);
  expect(Math.abs(kurtosis / (3 + 1 / variance) - 1)).toBeLessThan(variance < 1 ? 0.15 : 0.06);
});

test.each([0.8, 7.5])(
  'its law at variance %s is that of a Poisson minus a Poisson: chi-square',
  (variance) => {
    // The convolution of two Poisson laws of mean variance / 2.
    const poisson = [Math.exp(-variance / 2)];
    for (let k = 1; k < 60; k++) poisson.push((poisson[k - 1]! * variance) / 2 / k);
    const reach = variance < 1 ? 4 : 10;
    const law = Array.from({ length: 2 * reach + 1 }, (_, i) =>
      poisson.reduce((sum, p, k) => sum + p * (poisson[k + i - reach] ?? 0), 0),
    );
    const counts = new Float64Array(2 * reach + 1);
    let inside = 0;
    for (const value of draw(variance)) {
      if (Math.abs(value) > reach) continue;
      counts[value + reach]! += 1;
      inside++;
    }
    const mass = law.reduce((a, b) => a + b);
    expect(Math.abs(inside / DRAWS - mass)).toBeLessThan(6 * Math.sqrt((1 - mass) / DRAWS) + 1e-9);
    expect(
      chiSquareDeviations(
        counts,
        law.map((p) => (p / mass) * inside),
      ),
    ).toBeLessThan(10);
  },
);

test('shares of as many survivors as are permitted add up to the noise that was asked for', () => {
  const share = localVariance({ centralVariance: 900, threshold: 7, colluders: 2 });
  // 900 / (7 - 2): two of the seven may know their own noise.
  expect(share).toBe(180);
  const sum = new Int32Array(DRAWS);
  for (let client = 0; client < 5; client++) createSkellamNoise({ variance: share }).addTo(sum);
  expect(Math.abs(momentsOf(sum).stdDev / 30 - 1)).toBeLessThan(6 / Math.sqrt(2 * DRAWS));
});

test('sums wrap modulo 2^32', () => {
  const values = new Int32Array(1000).fill(2 ** 31 - 1);
  createSkellamNoise({ variance: 1e6 }).addTo(values);
  expect(values.some((value) => value < 0)).toBe(true);
});

test('settings outside their range are refused', () => {
  for (const variance of [0, -1, Number.NaN, 2 ** 33]) {
    expect(() => createSkellamNoise({ variance })).toThrow(RangeError);
  }
  expect(() => localVariance({ centralVariance: 1, threshold: 3, colluders: 3 })).toThrow(RangeError);
  expect(() => localVariance({ centralVariance: 0, threshold: 3, colluders: 0 })).toThrow(RangeError);
});
