import { describe, expect, test } from 'vitest';
import { rateLowerBound, rateUpperBound } from '../../src/audit/clopper-pearson.ts';
import { binomialUpperTail, regularizedIncompleteBeta } from '../../src/audit/incomplete-beta.ts';

describe('regularizedIncompleteBeta', () => {
  test('closed forms: I_x(1, 1) = x, I_x(a, 1) = x^a, I_x(1, b) = 1 - (1 - x)^b, I_1/2(a, a) = 1/2', () => {
    for (const x of [1e-9, 0.1, 0.5, 0.77, 1 - 1e-9]) {
      expect(regularizedIncompleteBeta(x, 1, 1)).toBeCloseTo(x, 14);
      expect(regularizedIncompleteBeta(x, 7, 1)).toBeCloseTo(x ** 7, 14);
      expect(regularizedIncompleteBeta(x, 1, 7)).toBeCloseTo(1 - (1 - x) ** 7, 14);
    }
    for (const a of [0.5, 3, 40, 5000]) expect(regularizedIncompleteBeta(0.5, a, a)).toBeCloseTo(0.5, 10);
    expect(regularizedIncompleteBeta(0, 2, 3)).toBe(0);
    expect(regularizedIncompleteBeta(1, 2, 3)).toBe(1);
  });

  test('the upper tail of a binomial is the sum of its probabilities', () => {
    const [n, p] = [30, 0.3];
    let probability = p ** n;
    let tail = 0;
    for (let k = n; k > 0; k--) {
      tail += probability;
      expect(binomialUpperTail(n, p, k) / tail).toBeCloseTo(1, 11);
      probability *= (k / (n - k + 1)) * ((1 - p) / p);
    }
    expect(binomialUpperTail(n, p, 0)).toBe(1);
  });
});

describe('Clopper-Pearson', () => {
  // scipy 1.17.1: beta.ppf(1 - confidence, k, n - k + 1) and beta.ppf(confidence, k + 1, n - k).
  test.each([
    [900, 1000, 0.975, 0.8797120634813074, 0.91789466564442],
    [50, 1000, 0.975, 0.03733539760466178, 0.06539048791549364],
    [1, 10, 0.95, 0.005116196891823705, 0.39416330243650466],
    [7, 10, 0.99, 0.2971164723205374, 0.9524930010488387],
    [12_345, 100_000, 0.975, 0.12141710670798131, 0.12550476084867196],
    [3, 1_000_000, 0.975, 6.186725501906402e-7, 8.767247788067677e-6],
    [999, 1000, 0.995, 0.992593713061647, 0.9999949874707392],
    [250, 1000, 0.95, 0.2275434796716092, 0.2735536313237202],
  ])('%d of %d at %d: within 1e-10 of another implementation', (k, n, confidence, lower, upper) => {
    expect(Math.abs(rateLowerBound(k, n, confidence) - lower)).toBeLessThan(1e-10);
    expect(Math.abs(rateUpperBound(k, n, confidence) - upper)).toBeLessThan(1e-10);
  });

  test('none and all: 0 and 1, and the roots of the tail on the other side', () => {
    expect(rateLowerBound(0, 500, 0.975)).toBe(0);
    expect(rateUpperBound(500, 500, 0.975)).toBe(1);
    // p^500 = 0.025 and (1 - p)^500 = 0.025.
    expect(rateLowerBound(500, 500, 0.975)).toBeCloseTo(0.025 ** (1 / 500), 12);
    expect(rateUpperBound(0, 500, 0.975)).toBeCloseTo(1 - 0.025 ** (1 / 500), 12);
  });

  test('counts and confidences that can not be are refused with their value', () => {
    expect(() => rateLowerBound(3, 2, 0.9)).toThrow('not 3');
    expect(() => rateLowerBound(-1, 2, 0.9)).toThrow('not -1');
    expect(() => rateUpperBound(1, 0, 0.9)).toThrow('not 0');
    expect(() => rateUpperBound(1.5, 2, 0.9)).toThrow('not 1.5');
    expect(() => rateLowerBound(1, 2, 1)).toThrow('not 1');
  });
});
