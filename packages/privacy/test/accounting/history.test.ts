import { describe, expect, test } from 'vitest';
import {
  type Accountant,
  deltaOf,
  epsilonOf,
  type Mechanism,
  noiseMultiplierFor,
  rdpOf,
  stepsWithin,
} from '../../src/index.ts';

const poisson = (noiseMultiplier: number, samplingRate: number, steps: number): Mechanism => ({
  kind: 'poisson-gaussian',
  noiseMultiplier,
  samplingRate,
  steps,
});

describe.each<Accountant>(['rdp', 'pld'])('accounting by %s', (accountant) => {
  const cost = (...history: Mechanism[]) => epsilonOf(history, 1e-5, accountant);

  test('a history in two parts costs what it costs in one', () => {
    expect(cost(poisson(1, 0.05, 60), poisson(1, 0.05, 140))).toBeCloseTo(cost(poisson(1, 0.05, 200)), 10);
  });

  test('the order of a history’s entries does not matter, and an entry of no steps or no rate adds nothing', () => {
    const [a, b] = [poisson(1, 0.05, 60), poisson(3, 0.5, 4)];
    expect(cost(b, a)).toBeCloseTo(cost(a, b), 9);
    expect(cost(a, poisson(0, 0, 5), poisson(0, 1, 0))).toBe(cost(a));
    expect(cost(a, b)).toBeGreaterThan(Math.max(cost(a), cost(b)));
  });

  test('more steps and a higher rate cost more, more noise less', () => {
    const base = cost(poisson(1, 0.05, 60));
    expect(cost(poisson(1, 0.05, 66))).toBeGreaterThan(base);
    expect(cost(poisson(1, 0.055, 60))).toBeGreaterThan(base);
    expect(cost(poisson(1.1, 0.05, 60))).toBeLessThan(base);
  });

  test('epsilon to delta to epsilon comes back', () => {
    const history = [poisson(0.9, 0.02, 300), poisson(2, 0.3, 10)];
    const epsilon = epsilonOf(history, 1e-6, accountant);
    const delta = deltaOf(history, epsilon, accountant);
    expect(delta / 1e-6).toBeGreaterThan(0.998);
    expect(delta / 1e-6).toBeLessThan(1.002);
    expect(epsilonOf(history, delta, accountant)).toBeCloseTo(epsilon, 3);
  });

  test('Opacus 585 and 844: is never negative, and 0 where delta covers what the noise does not', () => {
    for (const noise of [1, 5, 50])
      for (const rate of [1e-4, 0.1, 1])
        for (const steps of [1, 100])
          for (const delta of [1e-9, 0.01, 0.5, 0.9, 0.999]) {
            const epsilon = epsilonOf([poisson(noise, rate, steps)], delta, accountant);
            const what = `noise ${noise}, rate ${rate}, ${steps} steps, delta ${delta}`;
            expect(epsilon, what).toBeGreaterThanOrEqual(0);
            // A record that is sampled at all with less than delta needs no noise; the grid of losses may add 1e-4.
            if (steps * rate < delta) expect(epsilon, what).toBeLessThan(2e-4);
          }
  });

  test.each([0.02, 2, 10, 100, 1000])(
    'Opacus 775: the noise for a budget of %d is found and keeps it, and a little less noise does not',
    (targetEpsilon) => {
      const budget = { targetEpsilon, delta: 1e-6, samplingRate: 0.05, steps: 100, accountant };
      const z = noiseMultiplierFor(budget);
      const at = (noise: number) => epsilonOf([poisson(noise, 0.05, 100)], 1e-6, accountant);
      expect(at(z)).toBeLessThanOrEqual(targetEpsilon);
      expect(at(z * 0.999)).toBeGreaterThan(targetEpsilon);
    },
  );

  test('the steps for a budget keep it, and one more does not', () => {
    const budget = { targetEpsilon: 2, delta: 1e-6, samplingRate: 0.05, noiseMultiplier: 1.5, accountant };
    const within = stepsWithin(budget);
    const at = (steps: number) => epsilonOf([poisson(1.5, 0.05, steps)], 1e-6, accountant);
    expect(at(within)).toBeLessThanOrEqual(2);
    expect(at(within + 1)).toBeGreaterThan(2);
  });

  test('budgets at the edges', () => {
    const budget = { targetEpsilon: 1, delta: 1e-5, accountant };
    expect(noiseMultiplierFor({ ...budget, samplingRate: 0, steps: 10 })).toBe(0);
    expect(noiseMultiplierFor({ ...budget, samplingRate: 0.1, steps: 0 })).toBe(0);
    expect(stepsWithin({ ...budget, samplingRate: 0, noiseMultiplier: 0 })).toBe(Infinity);
    expect(stepsWithin({ ...budget, samplingRate: 0.5, noiseMultiplier: 0.3 })).toBe(0);
    expect(() => noiseMultiplierFor({ ...budget, delta: 0, samplingRate: 0.1, steps: 1 })).toThrow(
      /delta is 0/,
    );
    expect(() => stepsWithin({ ...budget, targetEpsilon: -1, samplingRate: 1, noiseMultiplier: 1 })).toThrow(
      /targetEpsilon is -1/,
    );
  });
});

test('the loss distribution costs less than Rényi’s divergences, three times less at a small rate', () => {
  const history = [poisson(0.8, 0.001, 1000)];
  expect(3 * epsilonOf(history, 1e-6, 'pld')).toBeLessThan(epsilonOf(history, 1e-6, 'rdp'));
});

describe('samples of fixed size', () => {
  const fixedSize = (noiseMultiplier: number): Mechanism => ({
    kind: 'fixed-size-gaussian',
    noiseMultiplier,
    population: 100,
    sample: 10,
    steps: 100,
  });

  test('a replaced record moves the sum by two clipping norms: half the noise of the published figure', () => {
    // stdDev / sensitivity = 1 where stdDev / clippingNorm = 2.
    expect(epsilonOf([fixedSize(2)], 1e-5, 'rdp')).toBeCloseTo(14.0538, 4);
  });

  test('do not mix with additions and removals, nor go through the loss distribution', () => {
    const refused = expect.objectContaining({ code: 'FED_PRIVACY_ACCOUNTANT' });
    expect(() => epsilonOf([fixedSize(2), poisson(1, 0.1, 1)], 1e-5, 'rdp')).toThrow(refused);
    expect(() => epsilonOf([fixedSize(2)], 1e-5, 'pld')).toThrow(refused);
  });
});

describe('a history from a file', () => {
  test('other noise composes with Gaussians', () => {
    const skellam: Mechanism = {
      kind: 'skellam',
      variance: 1e4,
      l1Sensitivity: 300,
      l2Sensitivity: 50,
      steps: 10,
    };
    const discrete: Mechanism = {
      kind: 'discrete-gaussian',
      clients: 10,
      clientStdDev: 30,
      dimensions: 50,
      l1Sensitivity: 300,
      l2Sensitivity: 50,
      steps: 2,
    };
    const [all, ...each] = [
      [poisson(1, 0.1, 5), skellam, discrete],
      [poisson(1, 0.1, 5)],
      [skellam],
      [discrete],
    ].map((history) => rdpOf(history, [2.5, 7]).divergences[1]!);
    expect(all).toBeCloseTo(
      each.reduce((sum, one) => sum + one, 0),
      12,
    );
    // Ten times the Gaussian part, 7 * 50^2 / (2 * 1e4), and a little.
    expect(each[1]).toBeGreaterThan(8.75);
    expect(each[1]).toBeLessThan(8.76);
  });

  test.each([
    [{ kind: 'laplace', steps: 1 }, 'FED_PRIVACY_ACCOUNTANT', 'laplace'],
    [{ ...poisson(1, 0.1, 1), steps: 1.5 }, 'FED_PRIVACY_PARAMETER', 'steps is 1.5'],
    [
      { ...poisson(1, 0.1, 1), noiseMultiplier: Number.NaN },
      'FED_PRIVACY_PARAMETER',
      'noiseMultiplier is NaN',
    ],
    [
      { kind: 'fixed-size-gaussian', noiseMultiplier: 1, population: 10, sample: 11, steps: 1 },
      'FED_PRIVACY_PARAMETER',
      'sample is 11',
    ],
  ])('%j is refused', (mechanism, code, message) => {
    expect(() => epsilonOf([mechanism as Mechanism], 1e-5, 'rdp')).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    );
  });
});
