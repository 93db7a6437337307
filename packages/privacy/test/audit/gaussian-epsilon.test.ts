import { expect, test } from 'vitest';
import { gaussianEpsilon } from '../../src/index.ts';

// dp_accounting's get_epsilon_gaussian and get_sigma_gaussian with sensitivity 1.
test.each([
  [1, 1e-5, 4.3771780957],
  [2, 1e-5, 1.9930914044],
  [4, 1e-6, 1.0607018623],
  [10, 1e-5, 0.3406693647],
  [0.5, 1e-3, 7.5812799246],
  [3.7306316348, 1e-5, 1],
  [7.0318266756, 1e-5, 0.5],
  [1.5438614178, 1e-6, 3],
  [0.6002290722, 1e-5, 8],
])('noise multiplier %d at delta %d is epsilon %d', (noiseMultiplier, delta, epsilon) => {
  expect(gaussianEpsilon(noiseMultiplier, delta)).toBeCloseTo(epsilon, 8);
});

test('no noise is no privacy, much noise is all of it', () => {
  expect(gaussianEpsilon(0, 1e-5)).toBe(Infinity);
  expect(gaussianEpsilon(1e6, 1e-5)).toBe(0);
  expect(gaussianEpsilon(0.01, 1e-5)).toBeGreaterThan(5000);
});

test('a negative multiplier and a delta of 0 are refused', () => {
  expect(() => gaussianEpsilon(-1, 1e-5)).toThrow('not -1');
  expect(() => gaussianEpsilon(1, 0)).toThrow('not 0');
});
