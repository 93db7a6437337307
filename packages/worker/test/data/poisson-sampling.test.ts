import { cryptoWords } from '@tributary/privacy';
import { expect, it } from 'vitest';
import { samplePoisson } from '../../src/data/poisson-sampling.ts';

// Bounds are six standard errors: chance fails each less than once in a million runs.

it('batch sizes are binomial: their mean is count * rate, and they vary as coins do', () => {
  const random = cryptoWords();
  const [count, rate, batches] = [500, 0.1, 4000];
  const sizes = Array.from({ length: batches }, () => samplePoisson(count, rate, random).length);
  const mean = sizes.reduce((sum, size) => sum + size) / batches;
  const variance = sizes.reduce((sum, size) => sum + (size - mean) ** 2, 0) / batches;
  // 500 * 0.1 = 50, and 500 * 0.1 * 0.9 = 45; a shuffled batch would have a variance of 0.
  expect(Math.abs(mean - 50)).toBeLessThan(6 * Math.sqrt(45 / batches));
  expect(Math.abs(variance / 45 - 1)).toBeLessThan(6 * Math.sqrt(2 / batches));
});

it('each record comes as often as any other, and independently of its neighbour', () => {
  const random = cryptoWords();
  const batches = 20_000;
  const counts = new Float64Array(20);
  let both = 0;
  for (let i = 0; i < batches; i++) {
    const chosen = samplePoisson(20, 0.25, random);
    for (const index of chosen) counts[index]! += 1;
    if (chosen.includes(3) && chosen.includes(4)) both++;
  }
  for (const count of counts) expect(Math.abs(count - 5000)).toBeLessThan(6.5 * Math.sqrt(20_000 * 0.1875));
  // 20,000 / 16
  expect(Math.abs(both - 1250)).toBeLessThan(6 * Math.sqrt(1250));
});

it('a rate of 1 takes all, in order; a batch may be empty', () => {
  const random = cryptoWords();
  expect(samplePoisson(4, 1, random)).toEqual([0, 1, 2, 3]);
  expect(samplePoisson(4, 2 ** -50, random)).toEqual([]);
  expect(samplePoisson(0, 0.5, random)).toEqual([]);
});

it.each([0, -0.1, 1.1, Number.NaN])('a rate of %s is refused', (rate) => {
  expect(() => samplePoisson(3, rate, () => 0)).toThrow(RangeError);
});
