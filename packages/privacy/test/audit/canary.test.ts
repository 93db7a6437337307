import { describe, expect, test } from 'vitest';
import { epsilonLowerBound, oneRunEpsilonLowerBound } from '../../src/index.ts';

describe('epsilonLowerBound', () => {
  // For the second: TPR >= .025^(1/500) = .992649, FPR <= .007351, ln((.992649 - 1e-5) / .007351) = 4.9056.
  test.each([
    [900, 1000, 50, 1000, 2.5992],
    [500, 500, 0, 500, 4.9056],
    [1000, 1000, 0, 1000, 5.6006],
    [600, 1000, 400, 1000, 0.2773],
  ])(
    '%d of %d against %d of %d at delta 1e-5',
    (truePositives, positives, falsePositives, negatives, bound) => {
      const counts = { truePositives, positives, falsePositives, negatives };
      expect(epsilonLowerBound(counts, 1e-5)).toBeCloseTo(bound, 4);
    },
  );

  test('both directions: calling positives negative and the other way round gives the same', () => {
    const one = { truePositives: 150, positives: 1000, falsePositives: 0, negatives: 1000 };
    const other = { truePositives: 1000, positives: 1000, falsePositives: 850, negatives: 1000 };
    expect(epsilonLowerBound(other, 1e-5)).toBeCloseTo(epsilonLowerBound(one, 1e-5), 10);
    expect(epsilonLowerBound(one, 1e-5)).toBeGreaterThan(3);
  });

  test('what tells nothing, and what delta explains, gives 0', () => {
    const half = { truePositives: 500, positives: 1000, falsePositives: 500, negatives: 1000 };
    expect(epsilonLowerBound(half, 1e-5)).toBe(0);
    const rare = { truePositives: 3, positives: 1000, falsePositives: 0, negatives: 1000 };
    expect(epsilonLowerBound(rare, 0.5)).toBe(0);
    expect(epsilonLowerBound({ ...half, truePositives: 0 }, 0)).toBeLessThan(Infinity);
  });

  test('more confidence makes the bound smaller; a delta of 1 is refused', () => {
    const counts = { truePositives: 900, positives: 1000, falsePositives: 50, negatives: 1000 };
    expect(epsilonLowerBound(counts, 1e-5, 0.999)).toBeLessThan(epsilonLowerBound(counts, 1e-5));
    expect(() => epsilonLowerBound(counts, 1)).toThrow('not 1');
    expect(() => epsilonLowerBound(counts, 1e-5, 1)).toThrow(RangeError);
  });
});

describe('oneRunEpsilonLowerBound', () => {
  // All of r right at delta 0: q^r = .05 and epsilon = ln(q / (1 - q)); r = 100 gives q = .970487, epsilon = 3.4930.
  test.each([
    [100, 100, 3.493],
    [1000, 1000, 5.8091],
    [75, 100, 0.7022],
    [600, 1000, 0.2975],
    [400, 500, 1.1986],
  ])('%d right of %d at delta 0', (correct, guesses, bound) => {
    expect(oneRunEpsilonLowerBound({ canaries: guesses, guesses, correct }, 0)).toBeCloseTo(bound, 4);
  });

  // Made with scipy's binomial from the formula of their main theorem.
  test.each([
    [100, 100, 100, 1e-5, 3.49021596],
    [1000, 200, 180, 1e-5, 1.79628507],
    [1000, 1000, 600, 1e-3, 0.26599118],
  ])('%d canaries, %d guesses, %d right at delta %d', (canaries, guesses, correct, delta, bound) => {
    expect(oneRunEpsilonLowerBound({ canaries, guesses, correct }, delta)).toBeCloseTo(bound, 6);
  });

  test('a larger delta explains more; guesses by the coin refute nothing', () => {
    const guesses = { canaries: 1000, guesses: 500, correct: 400 };
    const bounds = [0, 1e-6, 1e-4, 1e-2].map((delta) => oneRunEpsilonLowerBound(guesses, delta));
    expect(bounds).toEqual(bounds.toSorted((a, b) => b - a));
    expect(oneRunEpsilonLowerBound({ canaries: 100, guesses: 100, correct: 50 }, 1e-5)).toBe(0);
  });

  test('more right than guessed, or more guessed than canaries, is refused', () => {
    expect(() => oneRunEpsilonLowerBound({ canaries: 9, guesses: 5, correct: 6 }, 0)).toThrow('6,5,9');
    expect(() => oneRunEpsilonLowerBound({ canaries: 4, guesses: 5, correct: 3 }, 0)).toThrow('3,5,4');
    expect(() => oneRunEpsilonLowerBound({ canaries: 9, guesses: 0, correct: 0 }, 0)).toThrow(RangeError);
  });
});
