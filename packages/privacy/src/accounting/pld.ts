/**
 * Accounting by the privacy loss distribution: the tight epsilon of composed Poisson-subsampled Gaussians, for adding and
 * for removing a record (Koskela, Jälkö and Honkela 2020, arXiv 1906.03049; Gopi, Lee and Wutschitz 2021, arXiv 2106.02848).
 * Losses add up over steps, so their distribution is a power in the frequency domain. Before the transform it is tilted by
 * e^(t loss), with the t of Chernoff's bound for the delta in question: rounding errors and the cut-off tail are then small
 * beside delta, however small that is.
 * Everything that is lost on the way is added to delta: what comes out is never below the true value.
 */
import { type Complex, createFft, multiplyPower } from './fft.ts';
import { LogSum } from './log-space.ts';
import {
  demand,
  demandDelta,
  demandNoiseMultiplier,
  demandSamplingRate,
  demandSteps,
  LEAST_NOISE,
} from './parameters.ts';
import {
  type Direction,
  type LossDistribution,
  type LossSample,
  lossDistribution,
  lossSample,
  type SubsampledGaussian,
} from './privacy-loss.ts';
import { lowestPoint } from './search.ts';

/** `steps` releases of a Gaussian mechanism on Poisson samples. */
export interface SubsampledGaussianSteps extends SubsampledGaussian {
  readonly steps: number;
}

/** Grid points of a composition; more would be exacter and slower. */
const MAX_GRID = 2 ** 20;
const MIN_GRID = 2 ** 12;
/** Grid points of the losses of one step. */
const MAX_LOSSES = 2 ** 17;
/** What the grid may add to epsilon, at most about. */
const GRID_ERROR = 1e-4;
/** Between grid points delta is a straight line in e^epsilon, so they may not lie far apart. */
const MAX_INTERVAL = 5e-4;
/** A distribution narrower than this is treated as so wide: nobody asks for a smaller epsilon. */
const LEAST_SPREAD = 1e-6;
/** What may be cut off of the tilted distribution at the upper end. */
const LOG_CUT = Math.log(1e-10);

/** The least epsilon, 0 or more, with which the steps together are (epsilon, delta)-private; delta from 0 to 1. */
export function pldEpsilon(mechanisms: readonly SubsampledGaussianSteps[], delta: number): number {
  demandDelta(delta);
  const active = released(mechanisms);
  if (active.length === 0 || delta === 1) return 0;
  if (delta === 0 || active.some(isNoiseless)) return Infinity;
  const removed = epsilonOf(compose(active, 'remove', { delta }), delta);
  // With the record added no loss exceeds this.
  const bound = -active.reduce((sum, one) => sum + one.steps * Math.log1p(-one.samplingRate), 0);
  return bound <= removed ? removed : Math.max(removed, epsilonOf(compose(active, 'add', { delta }), delta));
}

/** The least delta with which the steps together are (epsilon, delta)-private; epsilon of 0 or more. */
export function pldDelta(mechanisms: readonly SubsampledGaussianSteps[], epsilon: number): number {
  demand(epsilon >= 0, 'epsilon', epsilon, '0 or more');
  const active = released(mechanisms);
  if (active.length === 0 || epsilon === Infinity) return 0;
  if (active.some(isNoiseless)) return 1;
  const directions: readonly Direction[] = ['remove', 'add'];
  return Math.max(
    ...directions.map((direction) => deltaOf(compose(active, direction, { epsilon }), epsilon)),
  );
}

function isNoiseless({ noiseMultiplier }: SubsampledGaussianSteps): boolean {
  return noiseMultiplier < LEAST_NOISE;
}

/** The mechanisms that release anything at all, equal ones as one. */
function released(mechanisms: readonly SubsampledGaussianSteps[]): SubsampledGaussianSteps[] {
  const merged = new Map<string, SubsampledGaussianSteps>();
  for (const { noiseMultiplier, samplingRate, steps } of mechanisms) {
    demandNoiseMultiplier(noiseMultiplier);
    demandSamplingRate(samplingRate);
    demandSteps(steps);
    if (samplingRate === 0 || steps === 0) continue;
    const key = `${noiseMultiplier} ${samplingRate}`;
    const before = merged.get(key)?.steps ?? 0;
    merged.set(key, { noiseMultiplier, samplingRate, steps: before + steps });
  }
  return [...merged.values()];
}

/** The composed distribution, tilted: the probability of loss l is `masses` at l times e^(logMean - tilt l). */
interface Composed {
  readonly interval: number;
  /** Grid index of `masses[0]`. */
  readonly first: number;
  readonly masses: Float64Array;
  readonly tilt: number;
  readonly logMean: number;
  /** Tilted probability that may be missing or wrong in any sum of `masses`. */
  readonly missing: number;
  /** Probability, not tilted, of a loss without bound. */
  readonly infinite: number;
}

type Goal = { readonly delta: number } | { readonly epsilon: number };

function compose(mechanisms: readonly SubsampledGaussianSteps[], direction: Direction, goal: Goal): Composed {
  const steps = mechanisms.reduce((sum, one) => sum + one.steps, 0);
  const logDelta = 'delta' in goal ? Math.log(goal.delta) : -60;
  // What is cut off of each outcome, e^(-reach^2 / 2), is 1e-7 of delta in all.
  const reach = Math.sqrt(2 * (Math.log(steps) - logDelta + 16));
  const samples = mechanisms.map((one) => ({ ...lossSample(one, direction, reach), steps: one.steps }));
  const logMeanAt = (t: number) => samples.reduce((sum, one) => sum + one.steps * sampleLogMean(one, t), 0);
  const momentsAt = (t: number) => samples.map((one) => tiltedMoments(one, t)).reduce(addMoments);
  // A normal loss wants sqrt(-2 ln delta) / spread; one that is bounded above would want no end of it.
  const mostTilt = (10 * (1 + Math.sqrt(-2 * logDelta))) / momentsAt(0).stdDev;
  let tilt = lowestPoint(
    'delta' in goal ? (t) => (logMeanAt(t) - logDelta) / t : (t) => logMeanAt(t) - t * goal.epsilon,
    mostTilt * 1e-6,
    mostTilt,
  );
  let { mean, stdDev } = momentsAt(tilt);

  // Splitting a loss between grid points adds at most interval^2 / 8 to its variance.
  const error = Math.min(GRID_ERROR, GRID_ERROR * Math.max(0.01, stdDev));
  let interval = Math.min(
    Math.max(MAX_INTERVAL, stdDev / 8192),
    stdDev / 64,
    Math.sqrt((8 * error) / (steps * (tilt + 1))),
  );
  let size = MIN_GRID;
  while (size * interval < 16 * stdDev && size < MAX_GRID) size *= 2;
  interval = Math.max(interval, (16 * stdDev) / size, lossRange(samples) / MAX_LOSSES);
  for (let parts: Part[] | undefined; ; ) {
    // A tilt that tells neighbours on the grid apart by more than e makes much of the grid's own error.
    if (tilt * interval > 1) {
      tilt = 1 / interval;
      ({ mean, stdDev } = momentsAt(tilt));
    }
    parts ??= mechanisms.map((one) => {
      const distribution = lossDistribution(one, direction, interval, reach);
      return { distribution, logMasses: distribution.masses.map(Math.log), steps: one.steps };
    });
    const first = Math.round(mean / interval) - size / 2;
    const cut = upperTail(parts, tilt, (first + size) * interval, stdDev);
    if (cut < LOG_CUT) return convolve(parts, tilt, first, size, Math.exp(cut));
    if (size < MAX_GRID) {
      size *= 2;
    } else {
      interval *= 2;
      parts = undefined;
    }
  }
}

/** How far the losses of one step reach, for the mechanism where that is furthest. */
function lossRange(samples: readonly LossSample[]): number {
  return Math.max(...samples.map(({ losses }) => Math.abs(losses.at(-1)! - losses[0]!)));
}

interface Part {
  readonly distribution: LossDistribution;
  readonly logMasses: Float64Array;
  readonly steps: number;
}

function convolve(parts: readonly Part[], tilt: number, first: number, size: number, cut: number): Composed {
  const fft = createFft(size);
  const product: Complex = { re: new Float64Array(size).fill(1), im: new Float64Array(size) };
  let [steps, logMean, infinite] = [0, 0, 0];
  for (const part of parts) {
    const { distribution, logMasses, steps: times } = part;
    const { interval } = distribution;
    const one = logMeanOf(part, tilt);
    const vector: Complex = { re: new Float64Array(size), im: new Float64Array(size) };
    const shift = tilt * distribution.first * interval - one;
    // Losses a whole grid apart share a place: what wraps around can only raise delta.
    let place = modulo(distribution.first, size);
    for (let i = 0; i < logMasses.length; i++, place++) {
      if (place === size) place = 0;
      vector.re[place]! += Math.exp(logMasses[i]! + tilt * interval * i + shift);
    }
    fft.forward(vector);
    multiplyPower(product, vector, times);
    steps += times;
    logMean += times * one;
    infinite += times * distribution.infinite;
  }
  fft.inverse(product);
  const masses = new Float64Array(size);
  const start = modulo(first, size);
  for (let i = 0; i < size; i++) masses[i] = Math.max(0, product.re[(start + i) % size]!);
  const { interval } = parts[0]!.distribution;
  const rounding = 8 * Number.EPSILON * (steps + 4) * Math.log2(size);
  return { interval, first, masses, tilt, logMean, missing: cut + rounding, infinite: Math.min(1, infinite) };
}

/** Delta at the grid points from the top down: `visit` gets it for each, and stops by returning true. */
function walkDown(
  composed: Composed,
  visit: (epsilon: number, delta: number, lost: number) => boolean,
): void {
  const { interval, first, masses, tilt, logMean, missing, infinite } = composed;
  const [keep, gain] = [Math.exp(-interval), -Math.expm1(-interval)];
  let delta = 0;
  let above = 0;
  for (let i = masses.length - 1; i >= 0; i--) {
    const epsilon = (first + i) * interval;
    const scale = Math.exp(logMean - tilt * epsilon);
    // delta = sum over losses l above epsilon of p(l) (1 - e^(epsilon - l))
    delta = keep * delta + gain * above;
    if (visit(epsilon, delta, missing * scale + infinite)) return;
    above += masses[i]! * scale;
  }
}

function epsilonOf(composed: Composed, goal: number): number {
  const { interval } = composed;
  let found = composed.first * interval;
  let upper = Number.NaN;
  walkDown(composed, (epsilon, delta, lost) => {
    if (epsilon + interval <= 0) {
      found = 0;
      return true;
    }
    const enough = goal - lost;
    if (delta > enough) {
      // Between grid points delta is linear in e^epsilon.
      const share = upper < enough ? (delta - enough) / (delta - upper) : 1;
      found = Number.isNaN(upper) ? Infinity : epsilon + Math.log1p(Math.expm1(interval) * share);
      return true;
    }
    upper = delta;
    return false;
  });
  return Math.max(0, found);
}

function deltaOf(composed: Composed, goal: number): number {
  const { interval } = composed;
  let found = 1;
  let upper = 0;
  walkDown(composed, (epsilon, delta, lost) => {
    if (epsilon <= goal) {
      const share = Math.min(1, Math.expm1(goal - epsilon) / Math.expm1(interval));
      found = delta + (upper - delta) * share + lost;
      return true;
    }
    upper = delta;
    return false;
  });
  return Math.min(1, found);
}

/** ln of the tilted probability of a composed loss of `edge` or more, by Chernoff's bound. */
function upperTail(parts: readonly Part[], tilt: number, edge: number, stdDev: number): number {
  const logMeanAt = (t: number) => parts.reduce((sum, part) => sum + part.steps * logMeanOf(part, t), 0);
  const atTilt = logMeanAt(tilt);
  return Math.min(...[8, 4, 2].map((s) => logMeanAt(tilt + s / stdDev) - atTilt - (s / stdDev) * edge));
}

/** ln E[e^(t loss)] of the losses that are bounded, in one step. */
function logMeanOf({ distribution: { interval, first }, logMasses }: Part, t: number): number {
  const slope = t * interval;
  let largest = -Infinity;
  for (let i = 0; i < logMasses.length; i++) largest = Math.max(largest, logMasses[i]! + slope * i);
  let sum = 0;
  for (let i = 0; i < logMasses.length; i++) sum += Math.exp(logMasses[i]! + slope * i - largest);
  return largest + Math.log(sum) + slope * first;
}

function sampleLogMean({ losses, logWeights }: LossSample, t: number): number {
  const sum = new LogSum();
  for (let i = 0; i < losses.length; i++) sum.add(logWeights[i]! + t * losses[i]!);
  return sum.value;
}

interface Moments {
  readonly mean: number;
  readonly stdDev: number;
}

function tiltedMoments(sample: LossSample & { readonly steps: number }, tilt: number): Moments {
  const logMean = sampleLogMean(sample, tilt);
  let [mean, square] = [0, 0];
  const weights = sample.losses.map((loss, i) => Math.exp(sample.logWeights[i]! + tilt * loss - logMean));
  weights.forEach((weight, i) => {
    mean += weight * sample.losses[i]!;
  });
  weights.forEach((weight, i) => {
    square += weight * (sample.losses[i]! - mean) ** 2;
  });
  return { mean: sample.steps * mean, stdDev: Math.max(LEAST_SPREAD, Math.sqrt(sample.steps * square)) };
}

function addMoments(a: Moments, b: Moments): Moments {
  return { mean: a.mean + b.mean, stdDev: Math.hypot(a.stdDev, b.stdDev) };
}

function modulo(index: number, size: number): number {
  return ((index % size) + size) % size;
}
