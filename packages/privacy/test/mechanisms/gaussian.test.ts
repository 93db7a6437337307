import { expect, test } from 'vitest';
import { createGaussianNoise, cryptoWords, noiseStdDev } from '../../src/index.ts';
import { chiSquareDeviations, momentsOf, normalCdf } from './statistics.ts';

const DRAWS = 400_000;
/** What the sampler does with a standard deviation of 1, which is 2^25 steps: see gaussian.ts. */
const BLOCK = 2 ** 17;
const ENTRIES = 2 ** 14;
const BLOCKS = 13 * 512;
const PLACES = 64;
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

test('the noise is normal: chi-square over 200 equal parts of the line, for deviations of 256 and of 509 blocks', () => {
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

test.each([1, 1.99])(
  'every block has its share, with a standard deviation of %s: chi-square over blocks of 2^17 steps',
  (stdDev) => {
    // A layer too few in a block would be off by a fiftieth or more: seen in 4 million draws.
    const noise = new Float64Array(4_000_000);
    const { counts, grid } = drawBlocks({ stdDev }, noise);
    const edges = Array.from({ length: BLOCKS + 1 }, (_, h) => normalCdf((h * BLOCK * grid) / stdDev));
    const expected = Array.from({ length: BLOCKS }, (_, h) => 2 * (edges[h + 1]! - edges[h]!) * noise.length);
    const seen = expected.findIndex((count) => count < 20);
    expect(seen).toBeGreaterThan(900);
    expect(chiSquareDeviations(counts.slice(0, seen), expected.slice(0, seen))).toBeLessThan(7);
  },
);

test('a block has as many entries of the table as whole layers fit under its density, and an entry all of its steps', () => {
  const layers = Array.from({ length: BLOCKS }, (_, h) => Math.floor(densityInLayers((h + 1) * BLOCK)));
  const blocks = layers.flatMap((count, h) => new Array<number>(count).fill(h));
  const rest = ENTRIES - blocks.length;
  expect(rest / ENTRIES).toBeCloseTo(0.028, 3);
  for (const lower of [0, 2 ** 18 - 1]) {
    let entry = 0;
    const words = (): number => (entry < blocks.length ? ((entry++ << 18) | lower) >>> 0 : 0x1234_5678);
    const noise = new Float64Array(blocks.length);
    const sampler = createGaussianNoise({ stdDev: 1, random: words });
    sampler.addTo(noise);
    // The first place above zero, and the last below.
    const steps = blocks.map((h) => (lower === 0 ? h * BLOCK : -(h + 1) * BLOCK));
    expect(noise.every((value, i) => value / sampler.grid === steps[i])).toBe(true);
  }
});

test('what is not in the table has the density less its whole layers: chi-square by block, and by place inside', () => {
  const random = cryptoWords();
  let forced = 0;
  // The last entry of the table is in no block.
  const words = (): number => (forced-- > 0 ? 0xffff_ffff : random());
  const noise = new Float64Array(8192 * 100);
  const sampler = createGaussianNoise({ stdDev: 1, random: words });
  const counts = new Float64Array(BLOCKS);
  const places = new Float64Array(PLACES);
  for (let start = 0; start < noise.length; start += 8192) {
    forced = 8192;
    const part = noise.subarray(start, start + 8192);
    sampler.addTo(part);
    for (const value of part) {
      const distance = distanceOf(value / sampler.grid);
      counts[Math.floor(distance / BLOCK)]! += 1;
      places[Math.floor(((distance % BLOCK) / BLOCK) * PLACES)]! += 1;
    }
  }
  const mass = new Float64Array(BLOCKS);
  const placeMass = new Float64Array(PLACES);
  for (let h = 0; h < BLOCKS; h++) {
    const layers = Math.floor(densityInLayers((h + 1) * BLOCK));
    for (let i = 0; i < PLACES; i++) {
      const height = densityInLayers((h + (i + 0.5) / PLACES) * BLOCK) - layers;
      mass[h]! += height;
      placeMass[i]! += height;
    }
  }
  const total = mass.reduce((a, b) => a + b);
  const share = (part: number): number => (part / total) * noise.length;
  const seen = mass.findIndex((part, h) => h > 900 && share(part) < 20);
  expect(chiSquareDeviations(counts.slice(0, seen), mass.slice(0, seen).map(share))).toBeLessThan(7);
  // The fall inside the blocks is a tenth of what is left over.
  expect(placeMass[0]! / placeMass[PLACES - 1]!).toBeGreaterThan(1.1);
  expect(chiSquareDeviations(places, placeMass.map(share))).toBeLessThan(7);
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

test('floats get the noise of doubles, and the factor comes after it', () => {
  const results = [new Float64Array(20_000), new Float64Array(20_000), new Float32Array(20_000)].map(
    (values, i) => {
      let counter = 0;
      const random = (): number => Math.imul(++counter, 0x9e3779b1) ^ (counter >>> 3);
      createGaussianNoise({ stdDev: 1, random }).addTo(values.fill(0.25), i === 0 ? undefined : 1 / 3);
      return values;
    },
  );
  const [plain, divided, floats] = results as [Float64Array, Float64Array, Float32Array];
  expect(divided).toEqual(plain.map((value) => value * (1 / 3)));
  expect(floats).toEqual(Float32Array.from(divided));
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

/** The density of 2^25 steps' noise at a number of steps, in layers of an entry: 2 * BLOCK steps that share 1 / ENTRIES. */
function densityInLayers(step: number): number {
  const z = step / 2 ** 25;
  return ((2 * BLOCK * ENTRIES) / 2 ** 25 / Math.sqrt(2 * Math.PI)) * Math.exp((-z * z) / 2);
}

/** From 0 in whole steps, the negative ones counted from -1. */
function distanceOf(step: number): number {
  return step >= 0 ? step : -1 - step;
}

function drawBlocks(
  options: { stdDev: number },
  noise: Float64Array,
): { counts: Float64Array; grid: number } {
  const sampler = createGaussianNoise(options);
  sampler.addTo(noise);
  const counts = new Float64Array(BLOCKS);
  for (const value of noise) counts[Math.floor(distanceOf(value / sampler.grid) / BLOCK)]! += 1;
  return { counts, grid: sampler.grid };
}
