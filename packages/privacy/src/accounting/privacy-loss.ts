/**
 * The privacy loss of one step of the Poisson-subsampled Gaussian: how likely each loss is, on a grid. Each part of the
 * distribution between two grid points is split between them so that its probability under both neighbouring data sets is
 * kept (Doroshenko et al. 2022, arXiv 2207.04380). That never understates a delta, is exact at the grid points, and is off
 * by the square of the grid's interval, where rounding up would be off by the interval itself in every step.
 */
import { logRatio } from './subsampled-gaussian.ts';

/** Whether the data set that the outcome is drawn from has the record that the other one lacks, or lacks it. */
export type Direction = 'remove' | 'add';

export interface SubsampledGaussian {
  readonly noiseMultiplier: number;
  /** Above 0. */
  readonly samplingRate: number;
}

/** Probabilities of the losses `(first + i) * interval`. */
export interface LossDistribution {
  readonly interval: number;
  readonly first: number;
  readonly masses: Float64Array;
  /** The probability that stands for a loss without bound: what was cut off. */
  readonly infinite: number;
}

/** Losses at points of an outcome, and the logarithm of how much each weighs: for moments, not for bounds. */
export interface LossSample {
  readonly losses: Float64Array;
  readonly logWeights: Float64Array;
}

/** Nodes and weights of Gauss and Legendre's rule with four points, on [-1, 1]. */
const NODES = [-0.8611363115940526, -0.3399810435848563, 0.3399810435848563, 0.8611363115940526];
const WEIGHTS = [0.3478548451374539, 0.6521451548625461, 0.6521451548625461, 0.3478548451374539];

/** The distribution on a grid of `interval`. Outcomes beyond `reach` standard deviations are cut off, at less than e^(-reach^2 / 2). */
export function lossDistribution(
  step: SubsampledGaussian,
  direction: Direction,
  interval: number,
  reach: number,
): LossDistribution {
  const outcomes = outcomesOf(step, direction, reach);
  const { z, sign, lossAt, logDensity, outcomeAt } = outcomes;
  const first = Math.floor(outcomes.leastLoss / interval);
  const last = Math.max(first, Math.ceil(outcomes.mostLoss / interval) - 1);
  const masses = new Float64Array(last - first + 2);
  const piece = Math.min(z / 8, (z * z) / 4);
  const wholeUp = -Math.expm1(-interval);
  let from = outcomes.start;
  for (let bin = first; bin <= last; bin++) {
    // Outcomes go from the least loss to the greatest: upwards for `remove`, downwards for `add`.
    const edge = bin === last ? outcomes.end : outcomeAt((bin + 1) * interval);
    const to = sign > 0 ? clamp(edge, from, outcomes.end) : clamp(edge, outcomes.end, from);
    const pieces = Math.max(1, Math.ceil(Math.abs(to - from) / piece));
    const half = (to - from) / pieces / 2;
    let below = 0;
    let above = 0;
    for (let i = 0; i < pieces; i++) {
      const centre = from + half * (2 * i + 1);
      for (let node = 0; node < 4; node++) {
        const x = centre + half * NODES[node]!;
        const loss = lossAt(x);
        const mass = Math.abs(half) * WEIGHTS[node]! * Math.exp(logDensity(x, loss));
        const up = clamp(-Math.expm1(bin * interval - loss) / wholeUp, 0, 1);
        above += mass * up;
        below += mass * (1 - up);
      }
    }
    masses[bin - first]! += below;
    masses[bin - first + 1]! += above;
    from = to;
  }
  // What was cut off at the lower end counts as the least loss that is left, at the upper end as boundless.
  const cut = Math.exp(-0.5 * reach * reach);
  masses[1]! += cut;
  const sum = masses.reduce((total, mass) => total + mass, 0);
  for (let i = 0; i < masses.length; i++) masses[i]! /= sum;
  return { interval, first, masses, infinite: cut };
}

/** Some hundreds of losses with weights, for the moments of the distribution. */
export function lossSample(step: SubsampledGaussian, direction: Direction, reach: number): LossSample {
  const { z, start, end, logDensity, lossAt } = outcomesOf(step, direction, reach);
  const [low, high] = [Math.min(start, end), Math.max(start, end)];
  const count = Math.min(20_000, Math.ceil((high - low) / Math.min(z / 8, (z * z) / 3)));
  const width = (high - low) / count;
  const losses = new Float64Array(count);
  const logWeights = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const x = low + (i + 0.5) * width;
    losses[i] = lossAt(x);
    logWeights[i] = logDensity(x, losses[i]!) + Math.log(width);
  }
  return { losses, logWeights };
}

function outcomesOf(
  { noiseMultiplier: z, samplingRate: q }: SubsampledGaussian,
  direction: Direction,
  reach: number,
) {
  const sign = direction === 'remove' ? 1 : -1;
  const [low, high] = [-reach * z, (direction === 'remove' ? 1 : 0) + reach * z];
  const [start, end] = sign > 0 ? [low, high] : [high, low];
  const lossAt = (x: number) => sign * logRatio(x, z, q);
  const logScale = Math.log(z * Math.sqrt(2 * Math.PI));
  // The data set without the record gives N(0, z^2); with it, that times the ratio, whose logarithm is then the loss.
  const logDensity = (x: number, loss: number) =>
    -0.5 * (x / z) ** 2 - logScale + (direction === 'remove' ? loss : 0);
  return {
    z,
    sign,
    start,
    end,
    lossAt,
    logDensity,
    leastLoss: lossAt(start),
    mostLoss: lossAt(end),
    outcomeAt: (loss: number) => outcomeWithRatio(sign * loss, z, q),
  };
}

/** The outcome at which the ratio's logarithm is `logG`; minus Infinity where it is never so small. */
function outcomeWithRatio(logG: number, z: number, q: number): number {
  const excess = -Math.expm1(Math.log1p(-q) - logG);
  return excess > 0 ? 0.5 + z * z * (logG + Math.log(excess) - Math.log(q)) : -Infinity;
}

function clamp(x: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, x));
}
