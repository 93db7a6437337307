import { describe, expect, it } from 'vitest';
import { Mt19937 } from '../../src/images/mt19937.ts';

describe('Mt19937', () => {
  it("gives numpy's legacy stream for a seed", () => {
    // numpy.random.seed(42); numpy.random.random(3)
    const random = new Mt19937(42);
    expect([random.random(), random.random(), random.random()]).toEqual([
      0.3745401188473625, 0.9507143064099162, 0.7319939418114051,
    ]);
  });

  it('seeds again to the same stream, and takes the low 32 bits of a seed', () => {
    const random = new Mt19937(7);
    const first = Array.from({ length: 700 }, () => random.uint32());
    random.seed(7 + 2 ** 32);
    expect(Array.from({ length: 700 }, () => random.uint32())).toEqual(first);
  });

  it('permutes 0 … n-1', () => {
    const order = new Mt19937(0).permutation(10);
    // numpy.random.seed(0); numpy.random.permutation(10)
    expect([...order]).toEqual([2, 8, 4, 9, 1, 6, 7, 3, 0, 5]);
  });

  it('draws nothing to choose from one', () => {
    const random = new Mt19937(3);
    expect(random.choice(1)).toBe(0);
    expect(random.random()).toBe(new Mt19937(3).random());
  });

  it('chooses evenly', () => {
    const counts = [0, 0, 0, 0, 0];
    const random = new Mt19937(1);
    for (let i = 0; i < 50_000; i++) counts[random.choice(5)]!++;
    // Binomial(50000, 1/5): mean 10000, stdDev sqrt(50000 · 0.2 · 0.8) = 89.4; five of them are 447.
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(447);
  });

  it('refuses to choose from none', () => {
    expect(() => new Mt19937(1).choice(0)).toThrow(RangeError);
  });
});
