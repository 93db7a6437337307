/**
 * Rényi differential privacy of the Gaussian mechanism on a Poisson sample (each record in with probability q, on its
 * own), for adding or removing one record. Mironov, Talwar and Zhang 2019, arXiv 1908.10530: the divergence of order a is
 * ln(E[g(x)^a]) / (a - 1), where x is N(0, z^2) and g(x) = 1 - q + q exp((2x - 1) / (2 z^2)), whose mean is 1.
 * Whole orders have a finite sum; others are integrated, which spares the alternating series of the paper.
 */
import { LogSum, logBinomial, logExpm1, pointsUnderNormal } from './log-space.ts';
import { demand, demandNoiseMultiplier, demandSamplingRate, LEAST_NOISE } from './parameters.ts';

/** The largest whole order that is summed; larger ones are integrated. */
const MAX_SUM_ORDER = 4096;

/**
 * The Rényi divergence of one step at `order` (any number above 1): 0 for a sampling rate of 0, else Infinity without
 * noise, for which less than 0.01 counts. `noiseMultiplier` is stdDev / clippingNorm of the noise on the sum.
 */
export function subsampledGaussianRdp(order: number, noiseMultiplier: number, samplingRate: number): number {
  demand(order > 1 && order < Infinity, 'order', order, 'more than 1');
  demandNoiseMultiplier(noiseMultiplier);
  demandSamplingRate(samplingRate);
  if (samplingRate === 0) return 0;
  if (samplingRate === 1) return order / (2 * noiseMultiplier ** 2);
  if (noiseMultiplier < LEAST_NOISE) return Infinity;
  return Number.isInteger(order) && order <= MAX_SUM_ORDER
    ? summed(order, noiseMultiplier, samplingRate)
    : integrated(order, noiseMultiplier, samplingRate);
}

/** Binomial weights add up to 1 and the first two exponents are 0, so the sum less 1 has positive terms only. */
function summed(order: number, z: number, q: number): number {
  const sum = new LogSum();
  for (let i = 2; i <= order; i++) {
    const weight = logBinomial(order, i) + (order - i) * Math.log1p(-q) + i * Math.log(q);
    sum.add(weight + logExpm1((i * (i - 1)) / (2 * z * z)));
  }
  return logOnePlusExp(sum.value) / (order - 1);
}

function integrated(order: number, z: number, q: number): number {
  // The normal density varies over z, g over z^2.
  const step = Math.min(z / 4, (z * z) / 3);
  const excess = new LogSum();
  for (const x of pointsUnderNormal(z, order, step)) {
    const density = -0.5 * (x / z) ** 2;
    excess.add(density + logExcess(order, logRatio(x, z, q)));
  }
  const logMean = excess.value + Math.log(step / (z * Math.sqrt(2 * Math.PI)));
  // The mean of the excess is (E[g^a] - 1) / (a - 1).
  return logOnePlusExp(logMean + Math.log(order - 1)) / (order - 1);
}

/** ln g(x): the privacy loss of what came out as `x`. */
export function logRatio(x: number, noiseMultiplier: number, samplingRate: number): number {
  const exponent = (2 * x - 1) / (2 * noiseMultiplier * noiseMultiplier);
  if (samplingRate === 1) return exponent;
  if (exponent > 500) return exponent + Math.log(samplingRate);
  return Math.log1p(samplingRate * Math.expm1(exponent));
}

/**
 * ln of (g^a - 1 - a (g - 1)) / (a - 1), which is never negative: with the mean of g being 1, it averages to what is
 * sought without the 1 that would drown it. Also right for a hardly above 1.
 */
function logExcess(order: number, logG: number): number {
  const beyond = order - 1;
  if (beyond * logG > 30) return order * logG - Math.log(beyond) + Math.log1p(-Math.exp(-beyond * logG));
  const u = Math.expm1(logG);
  if (Math.abs(u) * (1 + order) < 0.1) {
    // The binomial series from its third term on.
    let term = (order * u * u) / 2;
    let sum = 0;
    for (let k = 3; sum + term !== sum && k < 40; k++) {
      sum += term;
      term *= (u * (order + 1 - k)) / k;
    }
    return Math.log(sum);
  }
  return Math.log(((1 + u) * Math.expm1(beyond * logG)) / beyond - u);
}

function logOnePlusExp(x: number): number {
  return x > 40 ? x : Math.log1p(Math.exp(x));
}
