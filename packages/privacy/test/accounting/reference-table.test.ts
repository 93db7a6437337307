/**
 * Published figures of other accountants, row by row. "Rényi" rows: those accountants use the same orders, so whole-order
 * optima agree to all digits given; their series for other orders errs upwards. "Loss distribution" rows: the true value
 * is within 0.001 of the figure; figures of the PRV accountant are its upper end, which is 0.01 above its estimate.
 */
import { describe, expect, test } from 'vitest';
import {
  deltaOf,
  epsilonOf,
  gaussianEpsilon,
  type Mechanism,
  noiseMultiplierFor,
  rdpDelta,
  rdpEpsilon,
  rdpOf,
  subsampledGaussianRdp,
} from '../../src/index.ts';

const poisson = (noiseMultiplier: number, samplingRate: number, steps: number): Mechanism[] => [
  { kind: 'poisson-gaussian', noiseMultiplier, samplingRate, steps },
];

describe('Rényi', () => {
  test.each<
    [row: number, z: number, q: number, steps: number, delta: number, epsilon: number, precision: number]
  >([
    [1, 4.530877117, 1, 1, 1e-6, 1.0, 1e-6],
    [2, 1.3, 150 / 60000, 6000, 1e-5, 0.7242234026, 1e-9],
    [3, 0.7, 1, 2, 1e-5, 10.8602036, 1e-7],
    [4, 1.0, 64 / 10000, 782, 1e-6, 1.616, 1e-3],
    [16, 1.0, 0.1, 100, 1e-5, 7.899255, 1e-6],
    [17, 1.1, 256 / 60000, 14063, 1e-5, 2.596656, 1e-6],
    [18, 0.6, 0.02, 500, 1e-6, 13.461783, 1e-6],
  ])('row %i', (_row, z, q, steps, delta, epsilon, precision) => {
    expect(Math.abs(epsilonOf(poisson(z, q, steps), delta, 'rdp') / epsilon - 1)).toBeLessThan(precision);
  });

  test('row 2: the best order is 19, and no end of the list', () => {
    const { order, orderAtEnd } = rdpEpsilon(rdpOf(poisson(1.3, 150 / 60000, 6000)), 1e-5);
    expect({ order, orderAtEnd }).toEqual({ order: 19, orderAtEnd: false });
  });

  test('row 14: single orders; at 1.5 and 2.5 the published series errs upwards, by 3% and by 1e-4', () => {
    const at = (order: number) => 50 * subsampledGaussianRdp(order, 2.5, 0.01);
    expect(at(5)).toBeCloseTo(2.18075656e-3, 11);
    expect(at(50)).toBeCloseTo(2.38460375e-2, 10);
    expect(at(100)).toBeCloseTo(167.416308, 6);
    // By quadrature with 30 digits: 6.50070897188040e-4 and 1.08541805691812e-3.
    expect(at(1.5)).toBeCloseTo(6.5007089718804e-4, 15);
    expect(at(2.5)).toBeCloseTo(1.08541805691812e-3, 15);
    expect(at(1.5)).toBeLessThan(6.70579741e-4);
    expect(at(2.5)).toBeLessThan(1.0854871e-3);
  });

  test('row 15: a divergence of 1.1 at orders 2 to 32, to epsilon and back', () => {
    const orders = Array.from({ length: 31 }, (_, i) => i + 2);
    const curve = { orders, divergences: orders.map(() => 1.1) };
    const { epsilon, order, orderAtEnd } = rdpEpsilon(curve, 1e-5);
    expect(epsilon).toBeCloseTo(1.32783806176, 10);
    expect({ order, orderAtEnd }).toEqual({ order: 32, orderAtEnd: true });
    expect(rdpDelta(curve, epsilon) / 1e-5).toBeCloseTo(1, 10);
  });
});

describe('loss distribution', () => {
  test.each<[row: number, z: number, q: number, steps: number, delta: number, epsilon: number]>([
    [3, 0.7, 1, 2, 1e-5, 10.1224946],
    [4, 1.0, 64 / 10000, 782, 1e-6, 1.199],
    [16, 1.0, 0.1, 100, 1e-5, 7.046603],
    [17, 1.1, 256 / 60000, 14063, 1e-5, 2.381779],
    [18, 0.6, 0.02, 500, 1e-6, 11.906239],
  ])('row %i', (_row, z, q, steps, delta, epsilon) => {
    expect(Math.abs(epsilonOf(poisson(z, q, steps), delta, 'pld') - epsilon)).toBeLessThan(1e-3);
  });

  test.each<[row: number, z: number, q: number, steps: number, delta: number, epsilon: number]>([
    [5, 0.8, 0.001, 1000, 1e-6, 0.4777712662],
    [6, 1.5, 0.05, 100, 1e-6, 1.9538531357],
    [7, 2.0, 0.05, 100, 1e-6, 1.2836373796],
    [8, 3.0, 0.05, 1000, 1e-6, 2.5275743261],
    // 90 epochs at 0.04; the figure's own program counts 90 // 0.04 steps, which is one less than 2250.
    [9, 1.5, 0.04, 2249, 1e-5, 6.7773957122],
  ])('row %i: 0.01 below the upper end, to 0.001', (_row, z, q, steps, delta, upper) => {
    expect(Math.abs(epsilonOf(poisson(z, q, steps), delta, 'pld') - (upper - 0.01))).toBeLessThan(1e-3);
  });

  test('row 9: the central limit (Gaussian differential privacy) is near, and too low', () => {
    // mu = q sqrt(T (e^(1/z^2) - 1)), and a Gaussian release with 1 / mu.
    const mu = 0.04 * Math.sqrt(2249 * Math.expm1(1 / 1.5 ** 2));
    const limit = gaussianEpsilon(1 / mu, 1e-5);
    expect(limit).toBeGreaterThan(6.59);
    expect(limit).toBeLessThan(6.6);
    expect(epsilonOf(poisson(1.5, 0.04, 2249), 1e-5, 'pld')).toBeGreaterThan(limit);
  });

  test('rows 10 and 11: delta at epsilon 1', () => {
    expect(Math.abs(deltaOf(poisson(0.5, 0.2, 3), 1, 'pld') - 0.15594)).toBeLessThan(1e-3);
    expect(Math.abs(deltaOf(poisson(Math.sqrt(3), 1, 3), 1, 'pld') - 0.126936)).toBeLessThan(1e-4);
  });

  test('row 11: the best attack at a false positive rate of 0.1 finds 0.38914', () => {
    // Every (epsilon, delta) bounds the true positive rate by e^epsilon FPR + delta; the least of the bounds is sharp.
    const bounds = Array.from({ length: 11 }, (_, i) => {
      const epsilon = 0.6 + i / 25;
      return Math.exp(epsilon) * 0.1 + deltaOf(poisson(Math.sqrt(3), 1, 3), epsilon, 'pld');
    });
    expect(Math.abs(Math.min(...bounds) - 0.38914)).toBeLessThan(1e-3);
  });
});

describe('the noise for a budget', () => {
  test('row 12: one step at epsilon 1', () => {
    const z = noiseMultiplierFor({ targetEpsilon: 1, delta: 1e-5, samplingRate: 0.01, steps: 1 });
    expect(Math.abs(z - 0.67379294682)).toBeLessThan(1e-3);
  });

  test.each<[steps: number, rdp: number, prv: number]>([
    [2000, 1.3562, 1.2915],
    [2250, 1.416, 1.34765625],
  ])('row 13: %i steps at epsilon 8, found to 0.01 by the others', (steps, rdp, prv) => {
    const budget = { targetEpsilon: 8, delta: 1e-5, samplingRate: 0.04, steps };
    expect(Math.abs(noiseMultiplierFor({ ...budget, accountant: 'rdp' }) - rdp)).toBeLessThan(1e-3);
    const byLoss = noiseMultiplierFor({ ...budget, accountant: 'pld' });
    expect(byLoss).toBeLessThan(prv);
    expect(byLoss).toBeGreaterThan(prv - 0.01);
  });
});
