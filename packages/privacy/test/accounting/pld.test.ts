import { describe, expect, test } from 'vitest';
import { createFft, multiplyPower } from '../../src/accounting/fft.ts';
import { normalCdf } from '../../src/accounting/normal.ts';
import { pldDelta, pldEpsilon } from '../../src/accounting/pld.ts';
import { lossDistribution } from '../../src/accounting/privacy-loss.ts';
import { epsilonOf, gaussianDelta, gaussianEpsilon } from '../../src/index.ts';

const steps = (noiseMultiplier: number, samplingRate: number, count: number) => ({
  noiseMultiplier,
  samplingRate,
  steps: count,
});

describe('createFft', () => {
  const vector = () => ({
    re: Float64Array.from({ length: 16 }, (_, i) => Math.sin(i * i + 1)),
    im: Float64Array.from({ length: 16 }, (_, i) => Math.cos(3 * i)),
  });

  test('forward: equals the sum that defines it; inverse: undoes it', () => {
    const [given, found] = [vector(), vector()];
    const fft = createFft(16);
    fft.forward(found);
    for (let k = 0; k < 16; k++) {
      let [re, im] = [0, 0];
      for (let n = 0; n < 16; n++) {
        const angle = (-2 * Math.PI * k * n) / 16;
        re += given.re[n]! * Math.cos(angle) - given.im[n]! * Math.sin(angle);
        im += given.re[n]! * Math.sin(angle) + given.im[n]! * Math.cos(angle);
      }
      expect(found.re[k]).toBeCloseTo(re, 12);
      expect(found.im[k]).toBeCloseTo(im, 12);
    }
    fft.inverse(found);
    given.re.forEach((value, i) => {
      expect(found.re[i]).toBeCloseTo(value, 13);
    });
    expect(() => createFft(12)).toThrow(RangeError);
  });

  test('multiplyPower: the fifth power of 1 + i, times 2', () => {
    const product = { re: Float64Array.of(2), im: Float64Array.of(0) };
    multiplyPower(product, { re: Float64Array.of(1), im: Float64Array.of(1) }, 5);
    // (1 + i)^4 = -4, so (1 + i)^5 = -4 - 4i.
    expect([product.re[0], product.im[0]]).toEqual([-8, -8]);
  });
});

describe('lossDistribution', () => {
  /** sup over outcomes of P - e^epsilon Q for one step: N(0, z^2) against the mixture. */
  function oneStepDelta(z: number, q: number, direction: 'remove' | 'add', epsilon: number): number {
    const ratio = direction === 'remove' ? Math.exp(epsilon) : Math.exp(-epsilon);
    if (ratio <= 1 - q) return direction === 'remove' ? 1 - Math.exp(epsilon) : 0;
    const x = 0.5 + z * z * Math.log((ratio - (1 - q)) / q);
    const above = normalCdf(-x / z);
    const mixed = (1 - q) * above + q * normalCdf((1 - x) / z);
    if (direction === 'remove') return mixed - Math.exp(epsilon) * above;
    return 1 - above - Math.exp(epsilon) * (1 - mixed);
  }

  test.each([
    [1, 0.1, 'remove'],
    [1, 0.1, 'add'],
    [0.4, 0.001, 'remove'],
    [3, 1, 'add'],
  ] as const)(
    'noise %d, rate %d, %s: delta is exact at the grid points and never too low',
    (z, q, direction) => {
      const { interval, first, masses, infinite } = lossDistribution(
        { noiseMultiplier: z, samplingRate: q },
        direction,
        0.01,
        9,
      );
      const deltaAt = (epsilon: number) =>
        masses.reduce(
          (sum, mass, i) => sum + mass * Math.max(0, -Math.expm1(epsilon - (first + i) * interval)),
          infinite,
        );
      for (const epsilon of [0, 0.01, 0.1, 0.5, 1]) {
        const exact = oneStepDelta(z, q, direction, epsilon);
        expect(Math.abs(deltaAt(epsilon) - exact)).toBeLessThan(1e-10);
        expect(deltaAt(epsilon + 0.004)).toBeGreaterThan(
          oneStepDelta(z, q, direction, epsilon + 0.004) - 1e-12,
        );
      }
    },
  );
});

describe('pldEpsilon', () => {
  test.each([
    [0.7, 2, 1e-5],
    [4, 16, 1e-5],
    [40, 1600, 1e-5],
    [40, 16, 1e-12],
    [0.5, 1, 1e-30],
    [0.05, 1, 1e-6],
    [1000, 1, 1e-5],
    [2, 1, 0.19],
  ])(
    'everyone in every step, noise %d, %i steps, delta %d: the Gaussian, never below it',
    (z, count, delta) => {
      const exact = gaussianEpsilon(z / Math.sqrt(count), delta);
      const found = pldEpsilon([steps(z, 1, count)], delta);
      expect(found).toBeGreaterThanOrEqual(exact);
      expect(found).toBeLessThan(exact + 5e-4);
    },
  );

  test('mechanisms of different noise compose: 1/z^2 adds up for Gaussians', () => {
    // 2/9 + 3/16 + 1/4
    const exact = gaussianEpsilon(1 / Math.sqrt(2 / 9 + 3 / 16 + 1 / 4), 1e-6);
    const found = pldEpsilon([steps(3, 1, 2), steps(4, 1, 3), steps(2, 1, 1)], 1e-6);
    expect(found).toBeGreaterThanOrEqual(exact);
    expect(found).toBeLessThan(exact + 5e-4);
  });

  test.each([
    // Plain convolutions in numpy, losses rounded down and up to a grid of 3e-5.
    [[steps(3.6084795756179195, 0.0027069412997418386, 48)], 7.429998260135509e-7, 0.01797, 0.01945],
    [
      [steps(1.2057905659207326, 0.3041639793970099, 5), steps(1.5678429612246245, 0.001209699050392171, 21)],
      1.693791227817804e-5,
      3.71688,
      3.71769,
    ],
    [
      [
        steps(3.0942961669075255, 0.026045287640133318, 3),
        steps(0.5074281585692967, 0.08652919964777805, 19),
      ],
      1.0313719100637885e-3,
      8.4473,
      8.44798,
    ],
  ])('%j: between what rounding every loss down and up gives', (mechanisms, delta, down, up) => {
    const found = pldEpsilon(mechanisms, delta);
    expect(found).toBeGreaterThan(down);
    expect(found).toBeLessThan(up);
    // The truth is about half-way.
    expect(Math.abs(found - (down + up) / 2)).toBeLessThan(5e-5);
  });

  test('one step on a sample: amplification to ln(1 + q (e^epsilon - 1)) of a delta of q times that of the Gaussian', () => {
    // Removing a record from a Poisson sample: delta'(ln(1 + q (e^epsilon - 1))) = q delta(epsilon), exactly.
    for (const [z, q, delta] of [
      [0.8, 0.5, 1e-4],
      [0.8, 0.01, 1e-4],
      [0.8, 1e-6, 1e-4],
      [0.5, 1e-6, 1e-3],
    ] as const) {
      const exact = Math.log1p(q * Math.expm1(gaussianEpsilon(z, delta)));
      const found = pldEpsilon([steps(z, q, 1)], q * delta);
      expect(found).toBeGreaterThan(exact - 1e-9);
      expect(found).toBeLessThan(exact + 5e-4);
    }
  });

  test('edges: nothing released, no noise, delta 0 and 1, a delta above the chance of being sampled', () => {
    expect(pldEpsilon([], 0)).toBe(0);
    expect(pldEpsilon([steps(0, 0, 10), steps(0, 0.5, 0)], 0)).toBe(0);
    expect(pldEpsilon([steps(0, 0.1, 1)], 1e-5)).toBe(Infinity);
    // Noise that is next to none counts as none.
    expect(pldEpsilon([steps(1e-200, 0.1, 1)], 1e-5)).toBe(Infinity);
    expect(pldEpsilon([steps(1e200, 0.1, 1)], 1e-5)).toBe(0);
    expect(pldEpsilon([steps(1, 0.1, 1)], 0)).toBe(Infinity);
    expect(pldEpsilon([steps(1, 0.1, 1)], 1)).toBe(0);
    expect(pldEpsilon([steps(0.5, 1e-6, 1)], 1e-3)).toBe(0);
    // The same without noise worth speaking of: a millionth at most, however narrow the distribution.
    expect(pldEpsilon([steps(0.02, 1e-6, 1)], 1e-3)).toBeLessThan(1e-6);
  });

  test.each([
    [1, 0.2, 500, 1e-5],
    [0.6, 0.5, 400, 1e-5],
    [0.4, 0.05, 2000, 1e-6],
    [20, 1, 4000, 1e-9],
  ])(
    'prv_accountant 36 and 42, Opacus 601: noise %d, rate %d, %i steps: a large epsilon is found, a little below Rényi’s bound',
    (z, q, count, delta) => {
      const found = pldEpsilon([steps(z, q, count)], delta);
      const bound = epsilonOf(
        [{ kind: 'poisson-gaussian', noiseMultiplier: z, samplingRate: q, steps: count }],
        delta,
        'rdp',
      );
      expect(found).toBeLessThan(bound);
      // Rényi's bound is 7 to 25% too high where epsilon is not small.
      expect(found).toBeGreaterThan(bound * 0.9);
    },
  );

  test('hardly any noise is a large epsilon, and no failure', () => {
    // A Gaussian with 0.02, sampled once in a hundred: delta 1e-5 is 1e-3 of the sampled case, and ln q is taken off.
    const exact = gaussianEpsilon(0.02, 1e-3) + Math.log(0.01);
    expect(pldEpsilon([steps(0.02, 0.01, 1)], 1e-5) / exact).toBeCloseTo(1, 2);
  });
});

describe('pldDelta', () => {
  test('is the Gaussian’s, never below it', () => {
    for (const epsilon of [0, 0.5, 2, 8]) {
      const exact = gaussianDelta(1 / Math.sqrt(3), epsilon);
      const found = pldDelta([steps(1, 1, 3)], epsilon);
      expect(found).toBeGreaterThanOrEqual(exact * (1 - 1e-9));
      expect(found).toBeLessThan(exact * 1.002);
    }
  });

  test('edges', () => {
    expect(pldDelta([], 0)).toBe(0);
    expect(pldDelta([steps(1, 0.5, 1)], Infinity)).toBe(0);
    expect(pldDelta([steps(0, 0.5, 1)], 1)).toBe(1);
    expect(() => pldDelta([steps(1, 0.5, 1)], -1)).toThrow(/epsilon is -1/);
  });
});
