import { expect, test } from 'vitest';
import { cryptoWords } from '../src/index.ts';

test('words are uniform: every byte value comes about as often as any other (chi-square, 1 in 10^9)', () => {
  const words = cryptoWords();
  const counts = new Float64Array(256);
  const draws = 100_000;
  for (let i = 0; i < draws; i++) {
    const word = words();
    for (let shift = 0; shift < 32; shift += 8) counts[(word >>> shift) & 255]! += 1;
  }
  const expected = (4 * draws) / 256;
  const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // 255 degrees of freedom: mean 255, standard deviation 22.6; six of them above.
  expect(chiSquare).toBeLessThan(391);
  expect(chiSquare).toBeGreaterThan(136);
});

test('two sources never agree', () => {
  const [a, b] = [cryptoWords(), cryptoWords()];
  const same = Array.from({ length: 40_000 }, () => a() === b()).filter(Boolean).length;
  expect(same).toBeLessThan(3);
});
