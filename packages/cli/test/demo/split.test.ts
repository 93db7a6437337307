import { describe, expect, test } from 'vitest';
import { siteSizes, splitDigits } from '../../src/demo/split.ts';

const counts = [100, 120, 80, 100, 100, 90, 100, 110, 100, 100];
const sites = ['north', 'harbour', 'hill'];

describe('splitDigits', () => {
  const split = splitDigits({ seed: 1, sites, counts });

  test('every sample is somewhere, and nowhere twice', () => {
    const keys = split.files.map(({ digit, sample }) => `${digit}/${sample}`);
    // 100 + 120 + 80 + 100 + 100 + 90 + 100 + 110 + 100 + 100 = 1000
    expect(keys.length).toBe(1000);
    expect(new Set(keys).size).toBe(1000);
  });

  test('the test set is 15 % of each digit', () => {
    // 15 + 18 + 12 + 15 + 15 + 13.5 -> 14 + 15 + 16.5 -> 17 + 15 + 15 = 151
    expect(split.testCount).toBe(151);
    expect(split.files.filter(({ path }) => path.startsWith('test/')).length).toBe(151);
  });

  test('the same seed gives the same split, another seed another', () => {
    expect(splitDigits({ seed: 1, sites, counts })).toEqual(split);
    expect(splitDigits({ seed: 2, sites, counts }).trainCounts).not.toEqual(split.trainCounts);
  });

  test('it is not IID: some site has at most a quarter of its even share of some digit, yet never none', () => {
    const all = Object.values(split.trainCounts).flat();
    expect(Math.min(...all)).toBeGreaterThanOrEqual(1);
    // An even share is about 100 * 0.85 * 0.9 / 3 = 25; a quarter of it is 6.
    expect(all.filter((count) => count <= 6).length).toBeGreaterThan(0);
  });

  test('digits and perDigit: only those, and so many', () => {
    const two = splitDigits({
      seed: 1,
      sites: ['a', 'b'],
      counts,
      digits: [3, 8],
      perDigit: 20,
      testShare: 0.5,
    });
    expect(new Set(two.files.map(({ digit }) => digit))).toEqual(new Set([3, 8]));
    expect(two.files.length).toBe(40);
    expect(two.testCount).toBe(20);
  });

  test('siteSizes: shares that fall and add up to 1', () => {
    for (const count of [2, 3, 8]) {
      const sizes = siteSizes(count);
      expect(sizes.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
      expect([...sizes].sort((a, b) => b - a)).toEqual(sizes);
    }
  });
});
