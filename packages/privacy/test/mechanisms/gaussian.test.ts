import { expect, test } from 'vitest';
import { createGaussianNoise, noiseStdDev } from '../../src/index.ts';
import { chiSquareDeviations, momentsOf, normalCdf } from './statistics.ts';

const DRAWS = 400_000;
// Bounds are at least six standard errors: chance fails each less than once in a million runs.

test.each([0.3, 1, 3, 1000])('stdDev %s is the standard deviation, not the variance', (stdDev) => {
  const noise = new Float64Array(DRAWS);
  createGaussianNoise({ stdDev }).addTo(noise);
  const moments = momentsOf(noise);
  // Standard errors: 1 / sqrt(n), 1 / sqrt(2n) and sqrt(24 / n).
  expect(Math.abs(moments.mean) / stdDev).toBeLessThan(6 / Math.sqrt(DRAWS));
  expect(Math.abs(moments.stdDev / stdDev - 1)).toBeLessThan(6 / Math.sqrt(2 * DRAWS));
  expect(Math.abs(moments.kurtosis - 3)).toBeLessThan(7 * Math.sqrt(24 / DRAWS));
});

test('the noise is normal: chi-square over 200 equal parts of the line, for deviations of 32 and of 63 blocks', () => {
  for (const stdDev of [1, 1.99]) {
    const noise = new Float64Array(DRAWS);
    createGaussianNoise({ stdDev }).addTo(noise);
    const edges = Array.from({ length: 199 }, (_, i) => (i - 99) * 0.03);
    const cumulative = [0, ...edges.map(normalCdf), 1];
    const counts = new Float64Array(200);
    for (const value of noise) {
      const part = Math.floor(value / stdDev / 0.03) + 100;
      counts[Math.min(199, Math.max(0, part))]! += 1;
    }
    const expected = Array.from({ length: 200 }, (_, i) => (cumulative[i + 1]! - cumulative[i]!) * DRAWS);
    expect(chiSquareDeviations(counts, expected)).toBeLessThan(7);
  }
});

test('inside a block the density falls as it should: chi-square over 64 places, all blocks together', () => {
  // A uniform place in each block would be off by up to a thirtieth of the slope: seen in 4 million draws.
  const noise = new Float64Array(4_000_000);
  const sampler = createGaussianNoise({ stdDev: 1 });
  sampler.addTo(noise);
  const counts = new Float64Array(64);
  for (const value of noise) counts[Math.floor((Math.abs(value / sampler.grid) % 2 ** 20) / 2 ** 14)]! += 1;
  const mass = new Float64Array(64);
  for (let i = 0; i < 13 * 32 * 64; i++) mass[i % 64]! += Math.exp(-(((i + 0.5) / 2048) ** 2) / 2);
  const total = mass.reduce((a, b) => a + b, 0);
  const expected = mass.map((part) => (part / total) * noise.length);
  expect(expected[0]! / expected[63]!).toBeGreaterThan(1.02);
  expect(chiSquareDeviations(counts, expected)).toBeLessThan(7);
});

test('the tails are there: one in 15,787 beyond four standard deviations', () => {
  const noise = new Float64Array(2_000_000);
  createGaussianNoise({ stdDev: 2 }).addTo(noise);
  const far = noise.filter((value) => Math.abs(value) > 8).length;
  // Poisson with mean 2e6 * 6.334e-5 = 126.7, standard deviation 11.3.
  expect(Math.abs(far - 126.7)).toBeLessThan(6 * 11.3);
});

test('what comes out is on the grid, whatever went in', () => {
  const sampler = createGaussianNoise({ stdDev: 0.7 });
  expect(Math.log2(sampler.grid)).toBe(-26);
  const values = Float64Array.from({ length: 1000 }, (_, i) => Math.sin(i) * 10 ** ((i % 20) - 10));
  sampler.addTo(values);
  for (const value of values) expect(Number.isInteger(value / sampler.grid)).toBe(true);
});

test('values are rounded to the nearest step: the same noise on 0.49 and on 0 steps, one more on 0.51', () => {
  const results = [0, 0.49, 0.51, -0.51, 7.5e9 + 0.49, 2 ** 60].map((steps) => {
    let counter = 0;
    const sampler = createGaussianNoise({
      stdDev: 1,
      random: () => Math.imul(++counter, 0x9e3779b1) >>> 0,
    });
    const values = Float64Array.of(steps * sampler.grid);
    sampler.addTo(values);
    return values[0]! / sampler.grid;
  });
  const noise = results[0]!;
  expect(results.map((result) => result - noise)).toEqual([0, 0, 1, -1, 7.5e9, expect.closeTo(2 ** 60, -3)]);
});

test('numbers of one vector are independent: no correlation with the next', () => {
  const noise = new Float64Array(DRAWS);
  createGaussianNoise({ stdDev: 1 }).addTo(noise);
  let product = 0;
  for (let i = 1; i < DRAWS; i++) product += noise[i]! * noise[i - 1]!;
  expect(Math.abs(product / DRAWS)).toBeLessThan(6 / Math.sqrt(DRAWS));
});

test('a NaN and an infinity stay what they are', () => {
  const values = Float64Array.of(Number.NaN, Number.POSITIVE_INFINITY);
  createGaussianNoise({ stdDev: 1 }).addTo(values);
  expect([...values]).toEqual([Number.NaN, Number.POSITIVE_INFINITY]);
});

test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])(
  'a standard deviation of %s is refused',
  (stdDev) => {
    expect(() => createGaussianNoise({ stdDev })).toThrow(RangeError);
  },
);

test('the standard deviation of a sum’s noise is multiplier times norm, and what rounding to the grid costs', () => {
  // 1.5 * 2 / (1 - 1.5 * sqrt(10^6) / 2^25)
  expect(noiseStdDev({ clippingNorm: 2, noiseMultiplier: 1.5, dimension: 1e6 })).toBeCloseTo(3.000134, 6);
  expect(noiseStdDev({ clippingNorm: 1, noiseMultiplier: 1, dimension: 1 })).toBeCloseTo(1, 7);
  expect(() => noiseStdDev({ clippingNorm: 1, noiseMultiplier: 0, dimension: 1 })).toThrow(RangeError);
  expect(() => noiseStdDev({ clippingNorm: 0, noiseMultiplier: 1, dimension: 1 })).toThrow(RangeError);
  expect(() => noiseStdDev({ clippingNorm: 1, noiseMultiplier: 1e5, dimension: 1e6 })).toThrow(RangeError);
});
