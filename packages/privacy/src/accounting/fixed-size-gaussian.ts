/**
 * Rényi differential privacy of the Gaussian mechanism on a sample of fixed size, drawn without replacement, for
 * replacing one record (Wang, Balle and Kasiviswanathan 2019, arXiv 1808.00087, theorem 9, with its appendix's tighter terms).
 * This is what "k of n clients at random" is. It costs much more than a Poisson sample of the same rate.
 */
import { LogSum, logBinomial, logExpm1, pointsUnderNormal } from './log-space.ts';
import { demand, demandNoiseMultiplier, demandSamplingRate, LEAST_NOISE } from './parameters.ts';

/**
 * The Rényi divergence of one step at `order` (above 1). `noiseRatio` is the noise's standard deviation over the most
 * that replacing one record changes the sum by, which is two clipping norms. `fraction` is sample / population: 0 costs nothing, more costs
 * Infinity without noise, for which less than 0.01 counts.
 */
export function fixedSizeGaussianRdp(order: number, noiseRatio: number, fraction: number): number {
  demand(order > 1 && order < Infinity, 'order', order, 'more than 1');
  demandNoiseMultiplier(noiseRatio);
  demandSamplingRate(fraction);
  if (fraction === 0) return 0;
  if (fraction === 1) return order / (2 * noiseRatio ** 2);
  if (noiseRatio < LEAST_NOISE) return Infinity;
  const below = Math.floor(order);
  // (order - 1) times the divergence is convex in the order, so a straight line between whole orders is above it.
  const atBelow = cumulant(below, noiseRatio, fraction);
  const atAbove = order === below ? 0 : cumulant(below + 1, noiseRatio, fraction);
  const between = order - below;
  return ((1 - between) * atBelow + between * atAbove) / (order - 1);
}

/** ln(1 + sum over j of q^j binom(order, j) c_j), where c_j bounds the j-th moment of the likelihood ratio less 1. */
function cumulant(order: number, noiseRatio: number, q: number): number {
  const sum = new LogSum();
  sum.add(0);
  for (let j = 2; j <= order; j++) {
    const bound = Math.min(
      Math.LN2 + logMoment(j, noiseRatio),
      2 * Math.LN2 +
        (central(2 * Math.floor(j / 2), noiseRatio) + central(2 * Math.ceil(j / 2), noiseRatio)) / 2,
    );
    sum.add(j * Math.log(q) + logBinomial(order, j) + bound);
  }
  return sum.value;
}

/** ln E[L^j], where L is the likelihood ratio of N(1, noiseRatio^2) to N(0, noiseRatio^2) under the latter. */
function logMoment(j: number, noiseRatio: number): number {
  return (j * (j - 1)) / (2 * noiseRatio ** 2);
}

let known = { noiseRatio: Number.NaN, moments: new Map<number, number>() };

/** ln E[(L - 1)^j] for even j. Kept for one noise ratio: all orders ask for the same ones. */
function central(j: number, noiseRatio: number): number {
  if (j === 2) return logExpm1(1 / noiseRatio ** 2);
  if (known.noiseRatio !== noiseRatio) known = { noiseRatio, moments: new Map() };
  let moment = known.moments.get(j);
  if (moment === undefined) {
    moment = integrateCentral(j, noiseRatio);
    known.moments.set(j, moment);
  }
  return moment;
}

function integrateCentral(j: number, noiseRatio: number): number {
  const step = Math.min(noiseRatio / 4, noiseRatio ** 2 / 3);
  const sum = new LogSum();
  for (const x of pointsUnderNormal(noiseRatio, j, step)) {
    const logL = (2 * x - 1) / (2 * noiseRatio ** 2);
    const size = logL > 0 ? logExpm1(logL) : Math.log(-Math.expm1(logL));
    sum.add(-0.5 * (x / noiseRatio) ** 2 + j * size);
  }
  return sum.value + Math.log(step / (noiseRatio * Math.sqrt(2 * Math.PI)));
}
