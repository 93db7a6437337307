import { expect, test } from 'vitest';
import {
  createSkellamNoise,
  rotate,
  rotateBack,
  roundedNorm,
  roundStochastically,
  stepsPerUnit,
} from '../../src/index.ts';
import { momentsOf } from './statistics.ts';

const SEED = new Uint8Array(32).fill(7);
const norm = (values: ArrayLike<number>) =>
  Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));

test('a rotation keeps the norm, turns back exactly, and spreads a spike evenly', () => {
  const spike = new Float64Array(1000);
  spike[3] = 8;
  const rotated = rotate(spike, SEED);
  expect(rotated.length).toBe(1024);
  // 8 / sqrt(1024)
  for (const value of rotated) expect(Math.abs(value)).toBeCloseTo(0.25, 12);
  expect(norm(rotated)).toBeCloseTo(8, 12);
  const back = rotateBack(rotated, SEED, 1000);
  for (const [i, value] of back.entries()) expect(value).toBeCloseTo(spike[i]!, 12);
});

test('the sum of rotated vectors turns back into their sum; another seed does not', () => {
  const a = Float64Array.from({ length: 50 }, (_, i) => Math.sin(i));
  const b = Float64Array.from({ length: 50 }, (_, i) => Math.cos(3 * i));
  const sum = rotate(a, SEED).map((value, i) => value + rotate(b, SEED)[i]!);
  const back = rotateBack(sum, SEED, 50);
  for (let i = 0; i < 50; i++) expect(back[i]).toBeCloseTo(a[i]! + b[i]!, 12);
  const other = rotateBack(sum, new Uint8Array(32), 50);
  expect(other.filter((value, i) => Math.abs(value - back[i]!) > 1e-3).length).toBeGreaterThan(10);
  expect(() => rotate(a, new Uint8Array(5))).toThrow(RangeError);
  expect(() => rotateBack(sum, SEED, 100)).toThrow(RangeError);
});

test('the norm of a rounded vector is bounded by the smaller of the two bounds', () => {
  // (10 + sqrt 4)^2 = 144 and 100 + 4 / 4 + sqrt(2 * 1/2) * (10 + 2 / 2) = 112
  expect(roundedNorm({ clippingNorm: 10, dimension: 4 })).toBeCloseTo(Math.sqrt(112), 12);
  // (1 + 1)^2 = 4 and 1 + 1 / 4 + sqrt(2 ln 10^6) * (1 + 1 / 2) = 9.1
  expect(roundedNorm({ clippingNorm: 1, dimension: 1, beta: 1e-6 })).toBe(2);
});

test('rounding is to a neighbour, right on average, and within the norm', () => {
  const values = Float64Array.from({ length: 1000 }, (_, i) => Math.sin(i) * 3);
  const maxNorm = roundedNorm({ clippingNorm: norm(values), dimension: 1000 });
  const sums = new Float64Array(1000);
  const repeats = 500;
  for (let repeat = 0; repeat < repeats; repeat++) {
    const rounded = roundStochastically(values, maxNorm);
    expect(norm(rounded)).toBeLessThanOrEqual(maxNorm);
    for (const [i, whole] of rounded.entries()) {
      if (Math.abs(whole - values[i]!) >= 1) throw new Error(`${values[i]} became ${whole}`);
      sums[i]! += whole;
    }
  }
  // The error of one mean has a standard deviation of sqrt(p (1 - p) / 500), at most 0.0224; of them all, 1/1000 more.
  const errors = sums.map((sum, i) => sum / repeats - values[i]!);
  expect(Math.abs(momentsOf(errors).mean)).toBeLessThan((6 * 0.0224) / Math.sqrt(1000));
  expect(Math.max(...errors.map(Math.abs))).toBeLessThan(6.5 * 0.0224);
});

test('values that were not clipped can’t be rounded into the norm', () => {
  expect(() => roundStochastically(Float64Array.of(10, 10), 3)).toThrow(RangeError);
});

test('steps fill the bits: 2^bits = 2 k sqrt(c^2 n^2 / d + (step^2 / 4 + sd^2) n) / step', () => {
  const plan = { bits: 16, clients: 100, dimension: 2 ** 20, clippingNorm: 2, localStdDev: 0.3 };
  const step = 1 / stepsPerUnit(plan);
  const right = (2 * 4 * Math.sqrt((4 * 100 ** 2) / 2 ** 20 + (step ** 2 / 4 + 0.09) * 100)) / step;
  expect(right).toBeCloseTo(2 ** 16, 6);
  expect(() => stepsPerUnit({ ...plan, bits: 4, clients: 1000 })).toThrow(RangeError);
});

test('section 6, 11 (PySyft 6954): the sum of all clients at the clipping norm, with their noise, does not wrap', () => {
  const plan = { bits: 16, clients: 20, dimension: 1024, clippingNorm: 2, localStdDev: 0.3, deviations: 7 };
  const { bits, clients, dimension, clippingNorm, localStdDev } = plan;
  const steps = stepsPerUnit(plan);
  const maxNorm = roundedNorm({ clippingNorm: clippingNorm * steps, dimension });
  const noise = createSkellamNoise({ variance: (localStdDev * steps) ** 2 });
  // All the same, so that nothing cancels: a sum of norm 40.
  const raw = Float64Array.from({ length: dimension }, (_, i) => Math.sin(i * i));
  const rotated = rotate(
    raw.map((value) => (value * clippingNorm) / norm(raw)),
    SEED,
  );
  const sum = new Int32Array(dimension);
  for (let client = 0; client < clients; client++) {
    const whole = roundStochastically(
      rotated.map((value) => value * steps),
      maxNorm,
    );
    noise.addTo(whole);
    for (const [i, value] of whole.entries()) sum[i]! += value;
  }
  // What is left of it in so many bits, back around zero.
  const modular = sum.map((value) => (value << (32 - bits)) >> (32 - bits));
  // Noise of 0.3 sqrt(20) = 1.34, and rounding: seven of their standard deviations. A sum that wraps is off by 25.
  const bound = 7 * Math.sqrt(clients * (localStdDev ** 2 + 1 / (4 * steps * steps)));
  for (const [i, value] of modular.entries())
    expect(Math.abs(value / steps - clients * rotated[i]!)).toBeLessThan(bound);
  expect(2 ** bits / steps).toBeGreaterThan(2.5 * bound);
});
