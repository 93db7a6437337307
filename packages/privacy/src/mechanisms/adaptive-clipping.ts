/**
 * A clipping norm that follows a quantile of the updates' norms, privately: each round the noised fraction of updates
 * that were not clipped moves it up or down by a factor. Andrew, Thakkar, McMahan, Ramaswamy 2021, arXiv 1905.03871.
 */
import type { RandomWords } from '../random.ts';
import { requireClippingNorm } from './clipping.ts';
import { createGaussianNoise } from './gaussian.ts';

export interface AdaptiveClippingSettings {
  /** Where the norm begins, in the parameters' unit, above 0. @default 0.1 */
  readonly initialClippingNorm?: number;
  /** Fraction of updates that should stay as they are, in [0, 1]. @default 0.5 */
  readonly targetQuantile?: number;
  /** How fast the norm follows, above 0: a round changes it by at most about this power of e. @default 0.2 */
  readonly learningRate?: number;
  /** Clients expected in a round: public, and never the number that answered. */
  readonly expectedCohort: number;
  /** Standard deviation of the noise on the count of updates that were not clipped. @default expectedCohort / 20 */
  readonly countStdDev?: number;
}

export interface AdaptiveClippingState {
  /** What the next round clips to, and what that round's noise is for. */
  readonly clippingNorm: number;
}

/** Returns the state before the first round. Throws RangeError for a setting outside its range. */
export function initAdaptiveClipping(settings: AdaptiveClippingSettings): AdaptiveClippingState {
  return { clippingNorm: complete(settings).initialClippingNorm };
}

/**
 * Returns the state of the next round. `withinNorm` tells of each update of this round whether its norm was **at most**
 * the clipping norm (not: whether it was clipped; a framework that confused them ran away from its target).
 *
 * The noise of this round belongs to `state`, which clipped it, and not to what this returns. Noise on the count comes
 * from `random`, @default `node:crypto`. Throws RangeError for a setting outside its range.
 */
export function updateAdaptiveClipping(
  settings: AdaptiveClippingSettings,
  state: AdaptiveClippingState,
  withinNorm: readonly boolean[],
  random?: RandomWords,
): AdaptiveClippingState {
  const { targetQuantile, learningRate, expectedCohort, countStdDev } = complete(settings);
  // Centred, so that one client more or less changes the count by 1/2 and not by 1.
  const count = Float64Array.of(withinNorm.reduce((sum, within) => sum + (within ? 0.5 : -0.5), 0));
  if (countStdDev > 0) {
    createGaussianNoise({ stdDev: countStdDev, ...(random === undefined ? {} : { random }) }).addTo(count);
  }
  const fraction = count[0]! / expectedCohort + 0.5;
  return { clippingNorm: state.clippingNorm * Math.exp(-learningRate * (fraction - targetQuantile)) };
}

/**
 * Returns the noise multiplier of the updates' sum, z_D = (z^-2 - (2 countStdDev)^-2)^(-1/2), with which the sum and
 * the noised count together cost what one sum with `noiseMultiplier` costs (theorem 1). Account for `noiseMultiplier`.
 *
 * Throws RangeError unless 0 < noiseMultiplier < 2 countStdDev: beyond that the count alone would spend all of it.
 */
export function updateNoiseMultiplier(noiseMultiplier: number, countStdDev: number): number {
  if (!(noiseMultiplier > 0 && noiseMultiplier < 2 * countStdDev)) {
    throw new RangeError(
      `noiseMultiplier must be above 0 and below twice countStdDev; got ${noiseMultiplier} and ${countStdDev}`,
    );
  }
  return (noiseMultiplier ** -2 - (2 * countStdDev) ** -2) ** -0.5;
}

function complete(settings: AdaptiveClippingSettings): Required<AdaptiveClippingSettings> {
  const { expectedCohort } = settings;
  if (!(expectedCohort > 0 && expectedCohort < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`expectedCohort must be a positive, finite number; got ${expectedCohort}`);
  }
  const whole = {
    initialClippingNorm: settings.initialClippingNorm ?? 0.1,
    targetQuantile: settings.targetQuantile ?? 0.5,
    learningRate: settings.learningRate ?? 0.2,
    expectedCohort,
    countStdDev: settings.countStdDev ?? expectedCohort / 20,
  };
  requireClippingNorm(whole.initialClippingNorm);
  if (!(whole.targetQuantile >= 0 && whole.targetQuantile <= 1)) {
    throw new RangeError(`targetQuantile must be in [0, 1]; got ${whole.targetQuantile}`);
  }
  if (!(whole.learningRate > 0 && whole.learningRate < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`learningRate must be a positive, finite number; got ${whole.learningRate}`);
  }
  if (!(whole.countStdDev >= 0 && whole.countStdDev < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`countStdDev must be a finite number of at least 0; got ${whole.countStdDev}`);
  }
  return whole;
}
