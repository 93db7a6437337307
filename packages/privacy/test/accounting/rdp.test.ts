import { describe, expect, test } from 'vitest';
import { normalCdf } from '../../src/accounting/normal.ts';
import {
  composeRdp,
  discreteGaussianRdp,
  discreteGaussianSumGap,
  epsilonOf,
  fixedSizeGaussianRdp,
  RDP_ORDERS,
  rdpCurve,
  rdpDelta,
  rdpEpsilon,
  skellamRdp,
  subsampledGaussianRdp,
} from '../../src/index.ts';

const curveOf = (z: number, q: number, steps = 1) =>
  rdpCurve((order) => subsampledGaussianRdp(order, z, q), steps);

describe('subsampledGaussianRdp', () => {
  test('whole orders by their sum and others by quadrature meet', () => {
    for (const [order, z, q] of [
      [2, 1, 0.1],
      [3, 0.3, 0.9],
      [10, 0.05, 0.1],
      [64, 4, 0.01],
      [1024, 5, 0.01],
    ] as const) {
      const [sum, integral] = [order, order + 1e-9].map((one) => subsampledGaussianRdp(one, z, q));
      expect(Math.abs(integral! / sum! - 1), `${order} ${z} ${q}`).toBeLessThan(1e-7);
    }
  });

  test('order 2 is ln(1 + q^2 (e^(1/z^2) - 1)), also where that is hardly above 0', () => {
    for (const q of [0.3, 1e-3, 1e-7]) {
      const expected = Math.log1p(q * q * Math.expm1(1 / 9));
      expect(Math.abs(subsampledGaussianRdp(2, 3, q) / expected - 1)).toBeLessThan(1e-12);
      expect(Math.abs(subsampledGaussianRdp(2 + 1e-12, 3, q) / expected - 1)).toBeLessThan(1e-9);
    }
  });

  test('an order of 1 + 1e-8 gives the divergence of Kullback and Leibler, not 0', () => {
    // E[g ln g] for z = 1, q = 0.1 by the midpoint rule.
    let expected = 0;
    for (let x = -12 + 5e-4; x < 14; x += 1e-3) {
      const g = 0.9 + 0.1 * Math.exp(x - 0.5);
      expected += ((g * Math.log(g) * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI)) * 1e-3;
    }
    expect(Math.abs(subsampledGaussianRdp(1 + 1e-8, 1, 0.1) / expected - 1)).toBeLessThan(1e-6);
  });

  test('full participation is order / (2 z^2); a rate of 0 costs nothing, no noise costs everything', () => {
    expect(subsampledGaussianRdp(3, 2, 1)).toBe(3 / 8);
    expect(subsampledGaussianRdp(3, 0, 0)).toBe(0);
    expect(subsampledGaussianRdp(3, 0, 0.5)).toBe(Infinity);
    expect(subsampledGaussianRdp(3, 0, 1)).toBe(Infinity);
    // Noise that is next to none counts as none.
    expect(subsampledGaussianRdp(2.5, 1e-200, 0.5)).toBe(Infinity);
    expect(subsampledGaussianRdp(2.5, 1e200, 0.5)).toBe(0);
    // A rate of almost 1 is almost that.
    expect(subsampledGaussianRdp(2.5, 2, 1 - 1e-9)).toBeCloseTo(2.5 / 8, 7);
  });

  test('grows with the order and the rate, falls with the noise', () => {
    const at = (order: number, z: number, q: number) => subsampledGaussianRdp(order, z, q);
    for (const [i, order] of RDP_ORDERS.entries())
      if (i > 0) expect(at(order, 1.1, 0.01)).toBeGreaterThan(at(RDP_ORDERS[i - 1]!, 1.1, 0.01));
    for (const order of [1.1, 2, 7.3, 40]) {
      expect(at(order, 1, 0.02)).toBeGreaterThan(at(order, 1, 0.01));
      expect(at(order, 1, 0.02)).toBeGreaterThan(at(order, 1.01, 0.02));
    }
  });

  test.each([
    [1, 1, 0.1, 'order is 1'],
    [Number.NaN, 1, 0.1, 'order is NaN'],
    [2, -1, 0.1, 'noiseMultiplier is -1'],
    [2, 1, 1.5, 'samplingRate is 1.5'],
  ])('order %d, noise %d, rate %d: refused, with the value', (order, z, q, message) => {
    expect(() => subsampledGaussianRdp(order, z, q)).toThrow(
      expect.objectContaining({ code: 'FED_PRIVACY_PARAMETER', message: expect.stringContaining(message) }),
    );
  });
});

describe('fixedSizeGaussianRdp', () => {
  const epsilon = (z: number, q: number, steps: number) =>
    rdpEpsilon(
      rdpCurve((order) => fixedSizeGaussianRdp(order, z, q), steps),
      1e-5,
    ).epsilon;

  test('the figures of another accountant, which are far above a Poisson sample of the same rate', () => {
    expect(epsilon(1, 10 / 100, 100)).toBeCloseTo(14.0538, 4);
    expect(epsilon(2, 5 / 20, 50)).toBeCloseTo(10.2045, 4);
    expect(rdpEpsilon(curveOf(1, 0.1, 100), 1e-5).epsilon).toBeLessThan(7.9);
  });

  test('order 2 by hand: ln(1 + q^2 min(4 (e^v - 1), 2 e^v)) with v = 1/z^2', () => {
    expect(fixedSizeGaussianRdp(2, 1, 0.1)).toBeCloseTo(Math.log1p(0.01 * 2 * Math.E), 14);
    expect(fixedSizeGaussianRdp(2, 2, 0.1)).toBeCloseTo(Math.log1p(0.01 * 4 * Math.expm1(0.25)), 14);
  });

  test('everyone is a plain Gaussian, no one is nothing', () => {
    expect(fixedSizeGaussianRdp(5, 2, 1)).toBe(5 / 8);
    expect(fixedSizeGaussianRdp(5, 0, 0)).toBe(0);
    expect(fixedSizeGaussianRdp(5, 0, 0.1)).toBe(Infinity);
  });
});

describe('conversion', () => {
  test('edges: nothing released, no noise, delta 0 and 1', () => {
    expect(rdpEpsilon(curveOf(0, 0), 0).epsilon).toBe(0);
    expect(rdpEpsilon(curveOf(0, 0.1, 0), 1e-5).epsilon).toBe(0);
    expect(rdpEpsilon(curveOf(0, 0.1), 1e-5).epsilon).toBe(Infinity);
    expect(rdpEpsilon(curveOf(1, 0.1), 0).epsilon).toBe(Infinity);
    expect(rdpEpsilon(curveOf(1, 0.1), 1).epsilon).toBe(0);
    expect(rdpDelta(curveOf(0, 0.1), 3)).toBe(1);
    expect(rdpDelta(curveOf(0, 0), 0)).toBe(0);
    expect(rdpDelta(curveOf(1, 0.1), Infinity)).toBe(0);
  });

  test('is never negative, and 0 where delta covers the total variation', () => {
    expect(rdpEpsilon(curveOf(1000, 1e-4), 0.5).epsilon).toBe(0);
    expect(rdpEpsilon({ orders: [1 + 1e-8], divergences: [0.5] }, 1e-5).epsilon).toBe(Infinity);
  });

  test('tensorflow/privacy 166: an order of 1 + 1e-8 in the list takes nothing off', () => {
    const [z, q] = [1, 105 / 100_000];
    const orders = [1 + 1e-8, ...RDP_ORDERS];
    const withIt = rdpCurve((order) => subsampledGaussianRdp(order, z, q), 1, orders);
    const loss = [{ kind: 'poisson-gaussian', noiseMultiplier: z, samplingRate: q, steps: 1 }] as const;
    for (const delta of [1e-4, 1e-5, 1e-9]) {
      const { epsilon } = rdpEpsilon(withIt, delta);
      expect(epsilon).toBe(rdpEpsilon(curveOf(z, q), delta).epsilon);
      expect(epsilon).toBeGreaterThan(epsilonOf(loss, delta, 'pld'));
      expect(epsilonOf(loss, delta, 'pld')).toBeGreaterThan(0);
    }
    // At the delta of that report 0 is right: the total variation is q (2 cdf(1/2) - 1) = 0.0004.
    expect(q * (2 * normalCdf(0.5) - 1)).toBeLessThan(1e-3);
    expect(rdpEpsilon(withIt, 1e-3).epsilon).toBe(0);
  });

  test('epsilon to delta to epsilon comes back', () => {
    for (const delta of [1e-3, 1e-5, 1e-9]) {
      const curve = curveOf(1.1, 0.01, 1000);
      const { epsilon } = rdpEpsilon(curve, delta);
      expect(rdpDelta(curve, epsilon) / delta).toBeCloseTo(1, 9);
    }
  });

  test('says when the best order is an end of the list', () => {
    // A tiny divergence wants an order far above 1024.
    expect(rdpEpsilon(curveOf(100, 1e-2), 1e-8)).toMatchObject({ order: 1024, orderAtEnd: true });
    expect(rdpEpsilon(curveOf(0.05, 0.5, 10), 1e-5)).toMatchObject({ order: 1.1, orderAtEnd: true });
  });

  test('composition adds, order by order, and refuses other orders', () => {
    const [a, b] = [curveOf(1, 0.1, 3), curveOf(2, 0.3, 5)];
    const both = composeRdp([a, b]);
    expect(both.divergences[7]).toBe(a.divergences[7]! + b.divergences[7]!);
    expect(() => composeRdp([a, { orders: [2], divergences: [1] }])).toThrow(RangeError);
  });
});

describe('noise of whole numbers', () => {
  test('skellamRdp: a D2^2 / 2v and the lesser of two terms, by hand', () => {
    // Order 3, v = 100, D1 = 8, D2 = 4: 3*16/200 = 0.24; (5*16 + 48) / 40000 = 0.0032 < 24/200.
    expect(skellamRdp(3, { variance: 100, l1Sensitivity: 8, l2Sensitivity: 4 })).toBeCloseTo(0.2432, 14);
    // v = 1, D1 = D2 = 4: 24; (80 + 24) / 4 = 26 > 12/2 = 6.
    expect(skellamRdp(3, { variance: 1, l1Sensitivity: 4, l2Sensitivity: 4 })).toBe(30);
    expect(skellamRdp(3, { variance: 0, l1Sensitivity: 4, l2Sensitivity: 4 })).toBe(Infinity);
    expect(skellamRdp(3, { variance: 0, l1Sensitivity: 0, l2Sensitivity: 0 })).toBe(0);
  });

  test('discreteGaussianSumGap: the figures of the specification', () => {
    expect(discreteGaussianSumGap(10, 1)).toBeCloseTo(5.4352e-4, 8);
    expect(discreteGaussianSumGap(100, 2) / 7.16e-17).toBeCloseTo(1, 2);
    expect(discreteGaussianSumGap(1, 0.5)).toBe(0);
  });

  test('discreteGaussianRdp: one client has the Gaussian bound, several a little more', () => {
    const noise = { clients: 1, clientStdDev: 8, dimensions: 1000, l1Sensitivity: 20, l2Sensitivity: 4 };
    // 3 (4/8)^2 / 2
    expect(discreteGaussianRdp(3, noise)).toBe(0.375);
    const four = discreteGaussianRdp(3, { ...noise, clients: 4, clientStdDev: 1 });
    // D2 = 4/2 = 2: 6 at least; tau = 10 (e^(-pi^2) + e^(-4/3 pi^2) + e^(-3/2 pi^2)) = 5.4e-4; 1000 tau = 0.54 more at most.
    expect(four).toBeGreaterThan(6);
    expect(four).toBeLessThan(6.55);
  });

  test('refuses sensitivities that contradict each other', () => {
    expect(() => skellamRdp(2, { variance: 1, l1Sensitivity: 1, l2Sensitivity: 2 })).toThrow(
      /l1Sensitivity is 1/,
    );
    const noise = { clients: 0, clientStdDev: 1, dimensions: 1, l1Sensitivity: 1, l2Sensitivity: 1 };
    expect(() => discreteGaussianRdp(2, noise)).toThrow(/clients is 0/);
  });
});
