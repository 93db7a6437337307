import { describe, expect, test } from 'vitest';
import { normalCdf } from '../../src/accounting/normal.ts';
import { gaussianDelta, gaussianEpsilon, gaussianStdDev } from '../../src/index.ts';

describe('normalCdf', () => {
  test.each([
    [0, 0.5],
    [1, 0.8413447460685429],
    [-1, 0.15865525393145705],
    [-1.999, 0.0228041769326587],
    [-2.001, 0.0226961949456506],
    [-8, 6.220960574271785e-16],
    [-37, 5.72557122252458e-300],
  ])('%d: %d', (x, expected) => {
    expect(Math.abs(normalCdf(x) / expected - 1)).toBeLessThan(1e-11);
  });
});

describe('the Gaussian mechanism', () => {
  test.each([
    [1, 1e-5, 3.7306316348],
    [0.5, 1e-5, 7.0318266756],
    [3, 1e-6, 1.5438614178],
    [8, 1e-5, 0.6002290722],
  ])('gaussianStdDev(%d, %d): the figure of another implementation', (epsilon, delta, stdDev) => {
    expect(gaussianStdDev(epsilon, delta)).toBeCloseTo(stdDev, 9);
  });

  test('at epsilon 1 it needs less than the classic formula', () => {
    expect(gaussianStdDev(1, 1e-5)).toBeLessThan(Math.sqrt(2 * Math.log(1.25 / 1e-5)));
  });

  test.each([
    [1, 1e-5, 4.3771780957],
    [2, 1e-5, 1.9930914044],
    [4, 1e-6, 1.0607018623],
    [10, 1e-5, 0.3406693647],
    [0.5, 1e-3, 7.5812799246],
  ])('gaussianEpsilon(%d, %d): the figure of another implementation', (stdDev, delta, epsilon) => {
    expect(gaussianEpsilon(stdDev, delta)).toBeCloseTo(epsilon, 9);
  });

  test('epsilon, delta and noise come back to each other, also far out', () => {
    for (const epsilon of [1e-3, 0.1, 1, 10, 100]) {
      for (const delta of [0.3, 1e-5, 1e-50]) {
        const stdDev = gaussianStdDev(epsilon, delta);
        expect(gaussianDelta(stdDev, epsilon) / delta).toBeCloseTo(1, 7);
        expect(gaussianEpsilon(stdDev, delta) / epsilon).toBeCloseTo(1, 7);
      }
    }
  });

  test('edges', () => {
    // At epsilon 0 delta is the total variation, 2 cdf(1 / 2 stdDev) - 1.
    expect(gaussianDelta(1, 0)).toBeCloseTo(2 * normalCdf(0.5) - 1, 14);
    expect(gaussianEpsilon(1, 0.4)).toBe(0);
    expect(gaussianEpsilon(1, 1)).toBe(0);
    expect(gaussianEpsilon(1, 0)).toBe(Infinity);
    expect(gaussianEpsilon(0, 1e-5)).toBe(Infinity);
    expect(gaussianDelta(0, 5)).toBe(1);
    expect(gaussianDelta(0, Infinity)).toBe(0);
    expect(() => gaussianStdDev(0, 1e-5)).toThrow(/epsilon is 0/);
    expect(() => gaussianStdDev(1, 0)).toThrow(/delta is 0/);
  });
});
