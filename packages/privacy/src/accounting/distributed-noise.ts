/**
 * Rényi differential privacy of noise that clients add as whole numbers before their sum is taken modulo a power of two.
 * All is in units of that integer grid: whoever scales by s before rounding scales sensitivities by s and variances by s^2,
 * and takes the sensitivities after rounding.
 */
import { demand } from './parameters.ts';

interface Sensitivity {
  /** The most that one client's integers add up to in absolute value. */
  readonly l1Sensitivity: number;
  /** The most that one client's integers are long, as a vector. */
  readonly l2Sensitivity: number;
}

export interface SkellamNoise extends Sensitivity {
  /** Of the sum's noise in each coordinate; grid units squared. */
  readonly variance: number;
}

export interface DiscreteGaussianNoise extends Sensitivity {
  /** Coordinates of the sum. */
  readonly dimensions: number;
  /** Clients that add noise. */
  readonly clients: number;
  /** The standard deviation of each client's noise; the sum's is sqrt(clients) times that. Grid units. */
  readonly clientStdDev: number;
}

/** The divergence of Skellam noise (Agarwal, Kairouz and Liu 2021, arXiv 2110.04995) at `order` above 1. */
export function skellamRdp(order: number, noise: SkellamNoise): number {
  const { variance, l1Sensitivity, l2Sensitivity } = noise;
  demandOrderAndSensitivity(order, noise);
  demand(variance >= 0 && variance < Infinity, 'variance', variance, '0 or more');
  if (l2Sensitivity === 0) return 0;
  if (variance === 0) return Infinity;
  const gaussian = (order * l2Sensitivity ** 2) / (2 * variance);
  const extra = Math.min(
    ((2 * order - 1) * l2Sensitivity ** 2 + 6 * l1Sensitivity) / (4 * variance ** 2),
    (3 * l1Sensitivity) / (2 * variance),
  );
  return gaussian + extra;
}

/** The divergence of a sum of discrete Gaussians (Kairouz, Liu and Steinke 2021, arXiv 2102.06387) at `order` above 1. */
export function discreteGaussianRdp(order: number, noise: DiscreteGaussianNoise): number {
  const { dimensions, clients, clientStdDev } = noise;
  demandOrderAndSensitivity(order, noise);
  demand(
    Number.isSafeInteger(dimensions) && dimensions >= 1,
    'dimensions',
    dimensions,
    'a whole number, 1 or more',
  );
  demand(clientStdDev >= 0 && clientStdDev < Infinity, 'clientStdDev', clientStdDev, '0 or more');
  if (noise.l2Sensitivity === 0) return 0;
  if (clientStdDev === 0) return Infinity;
  const tau = discreteGaussianSumGap(clients, clientStdDev);
  const stdDev = clientStdDev * Math.sqrt(clients);
  const [l1, l2] = [noise.l1Sensitivity / stdDev, noise.l2Sensitivity / stdDev];
  return Math.min(
    (order * l2 ** 2) / 2 + tau * dimensions,
    (order / 2) * (l2 ** 2 + 2 * l1 * tau + tau ** 2 * dimensions),
    (order / 2) * (l2 + Math.sqrt(dimensions) * tau) ** 2,
  );
}

/** How far a sum of `clients` discrete Gaussians is from one: 0 for one client, tiny from a standard deviation of 2 on. */
export function discreteGaussianSumGap(clients: number, clientStdDev: number): number {
  demand(Number.isSafeInteger(clients) && clients >= 1, 'clients', clients, 'a whole number, 1 or more');
  let sum = 0;
  for (let k = 1; k < clients; k++) sum += Math.exp((-2 * (Math.PI * clientStdDev) ** 2 * k) / (k + 1));
  return 10 * sum;
}

function demandOrderAndSensitivity(order: number, { l1Sensitivity, l2Sensitivity }: Sensitivity): void {
  demand(order > 1 && order < Infinity, 'order', order, 'more than 1');
  demand(l2Sensitivity >= 0 && l2Sensitivity < Infinity, 'l2Sensitivity', l2Sensitivity, '0 or more');
  demand(
    l1Sensitivity >= l2Sensitivity && l1Sensitivity < Infinity,
    'l1Sensitivity',
    l1Sensitivity,
    `at least l2Sensitivity, ${l2Sensitivity}`,
  );
}
