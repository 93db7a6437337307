import { describe, expect, test } from 'vitest';
import {
  epsilonOf,
  epsilonSpent,
  fewestHonest,
  longestOnGrid,
  protectShare,
  siteLevelHistory,
  siteLevelRound,
  sumGrid,
} from '../src/index.ts';

const PLAN = { clippingNorm: 0.5, noiseMultiplier: 1.2, valueBits: 16 };

describe('sumGrid', () => {
  test.each([
    PLAN,
    { clippingNorm: 3, noiseMultiplier: 0.3, valueBits: 20 },
    { clippingNorm: 1e-3, noiseMultiplier: 8, valueBits: 18 },
    { clippingNorm: 40, noiseMultiplier: 20, valueBits: 24 },
  ])('%j: whole steps that a float32 holds, and room for the norm and ten deviations', (plan) => {
    const { stepsPerUnit, clippingRange, normInSteps } = sumGrid(plan);
    expect(Number.isInteger(Math.log2(stepsPerUnit))).toBe(true);
    expect(normInSteps).toBe(plan.clippingNorm * stepsPerUnit);
    // The fixed point's own step is one of the grid's.
    expect((2 * clippingRange) / (2 ** plan.valueBits - 2)).toBeCloseTo(1 / stepsPerUnit, 15);
    expect(clippingRange).toBeGreaterThan(plan.clippingNorm * 1.25 * (1 + 10 * plan.noiseMultiplier));
    expect(clippingRange * stepsPerUnit).toBeLessThan(2 ** 24);
    // What the sampler can draw.
    expect(1.25 * normInSteps * plan.noiseMultiplier).toBeLessThanOrEqual(2 ** 16);
  });

  test('refuses bits that leave too few steps, and a model whose rounding would be as large as the norm', () => {
    expect(() => sumGrid({ ...PLAN, valueBits: 8 })).toThrow(/take more valueBits/);
    expect(() => sumGrid({ ...PLAN, noiseMultiplier: 200 })).toThrow(/take more valueBits/);
    const grid = sumGrid(PLAN);
    expect(longestOnGrid(grid, 1e6)).toBeLessThan(1.25 * grid.normInSteps);
    expect(() => longestOnGrid(grid, 1e8)).toThrow(/take more valueBits/);
  });
});

describe('fewestHonest', () => {
  test.each([
    [3, 3, 3],
    // Of four, one may collude, and one may drop out.
    [4, 3, 2],
    [5, 5, 4],
    [10, 3, 2],
    [10, 10, 7],
    [50, 40, 24],
  ])('%i asked, %i or more in the sum: %i', (asked, fewest, honest) => {
    expect(fewestHonest({ asked, fewest })).toBe(honest);
  });

  test('is what is left in the worst of all attempts that secure aggregation lets through', () => {
    for (let asked = 3; asked <= 40; asked++)
      for (let fewest = 3; fewest <= asked; fewest++) {
        const honest = fewestHonest({ asked, fewest });
        for (let n = fewest; n <= asked; n++)
          for (let colluders = 0; 3 * colluders < n; colluders++) {
            const survivors = Math.max(fewest, Math.floor((2 * n) / 3) + 1);
            expect(survivors - colluders).toBeGreaterThanOrEqual(honest);
          }
        expect(honest).toBeGreaterThanOrEqual(1);
      }
  });
});

describe('protectShare', () => {
  test('leaves whole steps: the update, clipped, and noise of which so many shares are all of it', () => {
    const dimension = 20_000;
    const honest = 4;
    const { stepsPerUnit, normInSteps } = sumGrid(PLAN);
    const sum = new Float64Array(dimension);
    for (let site = 0; site < honest; site++) {
      // Its norm is 10: clipped to 0.5, each number is 0.5 / sqrt(dimension), in steps some 3.
      const update = [
        new Float32Array(dimension / 2).fill(0.0707),
        new Float32Array(dimension / 2).fill(0.0707),
      ];
      expect(protectShare(update, { ...PLAN, honest })).toMatchObject({ clipped: true });
      let at = 0;
      for (const value of update.flatMap((tensor) => [...tensor])) {
        const steps = value * stepsPerUnit;
        expect(Number.isInteger(steps)).toBe(true);
        sum[at++]! += steps;
      }
    }
    const mean = sum.reduce((a, b) => a + b, 0) / dimension;
    const variance = sum.reduce((a, b) => a + (b - mean) ** 2, 0) / dimension;
    const longest = longestOnGrid(sumGrid(PLAN), dimension);
    const stdDev = PLAN.noiseMultiplier * longest;
    const exact = (honest * normInSteps) / Math.sqrt(dimension);
    expect(Math.abs(mean - exact)).toBeLessThan((5 * stdDev) / Math.sqrt(dimension));
    // The variance of a variance is 2 / n; rounding adds a quarter of a step squared at most a site.
    expect(Math.abs(variance / stdDev ** 2 - 1)).toBeLessThan(5 * Math.sqrt(2 / dimension) + 1e-3);
  });

  test('a site that is alone with its share has less: the rest is the others’', () => {
    const dimension = 20_000;
    const share = (honest: number) => {
      const update = [new Float32Array(dimension)];
      protectShare(update, { ...PLAN, honest });
      return update[0]!.reduce((a, b) => a + b * b, 0) / dimension;
    };
    expect(share(1) / share(9)).toBeGreaterThan(8);
    expect(share(1) / share(9)).toBeLessThan(10);
  });
});

describe('what a round of shares costs', () => {
  test('is what Gaussian noise of the same multiplier costs, and a little more', () => {
    const rounds = (n: number, shares?: { valueBits: number }) =>
      Array.from({ length: n }, () => siteLevelRound(PLAN, shares));
    const gaussian = epsilonOf(siteLevelHistory(rounds(10)), 1e-5, 'rdp');
    const shared = epsilonSpent(rounds(10, { valueBits: 16 }), 1e-5);
    expect(shared).toBeGreaterThan(gaussian);
    expect(shared).toBeLessThan(gaussian * 1.001);
    expect(siteLevelHistory(rounds(10, { valueBits: 16 }))).toMatchObject([{ kind: 'skellam', steps: 10 }]);
  });

  test('is bounded by the grid alone, whatever the model’s size', () => {
    for (const valueBits of [16, 20])
      for (const dimension of [1, 1000, 100_000]) {
        const grid = sumGrid({ ...PLAN, valueBits });
        const l2Sensitivity = longestOnGrid(grid, dimension);
        const exact = epsilonOf(
          [
            {
              kind: 'skellam',
              l2Sensitivity,
              l1Sensitivity: Math.min(l2Sensitivity ** 2, Math.sqrt(dimension) * l2Sensitivity),
              variance: (PLAN.noiseMultiplier * l2Sensitivity) ** 2,
              steps: 5,
            },
          ],
          1e-6,
          'rdp',
        );
        const booked = epsilonSpent(
          Array.from({ length: 5 }, () => siteLevelRound(PLAN, { valueBits })),
          1e-6,
        );
        expect(exact).toBeLessThanOrEqual(booked * (1 + 1e-12));
      }
  });
});
