/**
 * The Gaussian mechanism exactly (Balle and Wang 2018, arXiv 1805.06530): which (epsilon, delta) a release with noise has,
 * and how much noise an (epsilon, delta) needs. It holds for every epsilon, unlike sqrt(2 ln(1.25 / delta)) / epsilon.
 * Sensitivity is 1 throughout: `stdDev` is in units of it, which is what a noise multiplier is. T releases with noise
 * multiplier z are one release with z / sqrt(T).
 */
import { millsRatio, normalCdf, normalPdf } from './normal.ts';
import { demand, demandDelta, demandNoiseMultiplier } from './parameters.ts';
import { smallestWithin } from './search.ts';

/** The smallest delta for `epsilon` (0 or more) of one release with `stdDev` (0 or more). */
export function gaussianDelta(stdDev: number, epsilon: number): number {
  demandNoiseMultiplier(stdDev);
  demand(epsilon >= 0, 'epsilon', epsilon, '0 or more');
  if (stdDev === 0) return epsilon === Infinity ? 0 : 1;
  if (epsilon === Infinity) return 0;
  // delta = cdf(-u) - e^epsilon cdf(-v), and e^epsilon pdf(v) = pdf(u).
  const u = epsilon * stdDev - 1 / (2 * stdDev);
  const v = epsilon * stdDev + 1 / (2 * stdDev);
  const density = normalPdf(u);
  const upper = u >= 0 ? density * millsRatio(u) : normalCdf(-u);
  return Math.max(0, upper - density * millsRatio(v));
}

/** The smallest epsilon for `delta` (0 to 1) of one release with `stdDev`: Infinity for delta 0 or stdDev 0. */
export function gaussianEpsilon(stdDev: number, delta: number): number {
  demandDelta(delta);
  demandNoiseMultiplier(stdDev);
  if (delta >= 1) return 0;
  if (stdDev === 0 || delta === 0) return Infinity;
  if (gaussianDelta(stdDev, 0) <= delta) return 0;
  return smallestWithin((epsilon) => Math.log(gaussianDelta(stdDev, epsilon)), Math.log(delta), {
    start: 1 / stdDev,
  });
}

/** The smallest standard deviation with which one release is (`epsilon`, `delta`)-private; both above 0, delta below 1. */
export function gaussianStdDev(epsilon: number, delta: number): number {
  demand(epsilon > 0 && epsilon < Infinity, 'epsilon', epsilon, 'more than 0');
  demand(delta > 0 && delta < 1, 'delta', delta, 'between 0 and 1');
  return smallestWithin((stdDev) => Math.log(gaussianDelta(stdDev, epsilon)), Math.log(delta), { start: 1 });
}
