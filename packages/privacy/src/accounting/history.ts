/**
 * What a training has released so far, as plain data that can be kept in a checkpoint, and what that costs. Entries of
 * different kinds and numbers compose. A round that was aborted after its sum was released counts as any other.
 */
import { PrivacyError } from '../errors.ts';
import {
  type DiscreteGaussianNoise,
  discreteGaussianRdp,
  type SkellamNoise,
  skellamRdp,
} from './distributed-noise.ts';
import { fixedSizeGaussianRdp } from './fixed-size-gaussian.ts';
import { demand, demandNoiseMultiplier, demandSamplingRate, demandSteps } from './parameters.ts';
import { pldDelta, pldEpsilon } from './pld.ts';
import { composeRdp, type RdpCurve, rdpCurve, rdpDelta, rdpEpsilon } from './rdp.ts';
import { subsampledGaussianRdp } from './subsampled-gaussian.ts';

/** Gaussian noise on the sum of a Poisson sample: each record (or client) in with `samplingRate`, on its own. */
export interface PoissonGaussian {
  readonly kind: 'poisson-gaussian';
  /** stdDev of the noise on the sum / clippingNorm. */
  readonly noiseMultiplier: number;
  /** From 0 to 1. 1 is everyone, every time. */
  readonly samplingRate: number;
  /** How often; a whole number. */
  readonly steps: number;
}

/** Gaussian noise on the sum of `sample` records (or clients) of `population`, drawn without replacement. */
export interface FixedSizeGaussian {
  readonly kind: 'fixed-size-gaussian';
  /** stdDev of the noise on the sum / clippingNorm. One record replaced moves the sum by up to two clipping norms. */
  readonly noiseMultiplier: number;
  readonly population: number;
  /** From 0 to `population`. */
  readonly sample: number;
  readonly steps: number;
}

/** Skellam noise on the sum of everyone's integers. */
export interface SkellamSteps extends SkellamNoise {
  readonly kind: 'skellam';
  readonly steps: number;
}

/** Discrete Gaussian noise of every client on the sum of everyone's integers. */
export interface DiscreteGaussianSteps extends DiscreteGaussianNoise {
  readonly kind: 'discrete-gaussian';
  readonly steps: number;
}

export type Mechanism = PoissonGaussian | FixedSizeGaussian | SkellamSteps | DiscreteGaussianSteps;

/** `rdp`: any mechanism, an upper bound. `pld`: Poisson-subsampled Gaussians only, tight to about 1e-4. */
export type Accountant = 'rdp' | 'pld';

/**
 * The epsilon that a history costs at `delta` (0 to 1): of adding or removing one record, or of replacing one where
 * samples are of fixed size. Throws FED_PRIVACY_PARAMETER for a number out of its range, and FED_PRIVACY_ACCOUNTANT where
 * the two kinds of sampling are mixed or the accountant has no bound for a mechanism.
 */
export function epsilonOf(history: readonly Mechanism[], delta: number, accountant: Accountant): number {
  if (accountant === 'pld') return pldEpsilon(poissonGaussians(history), delta);
  return rdpEpsilon(rdpOf(history), delta).epsilon;
}

/** The delta that a history costs at `epsilon` of 0 or more. Throws as `epsilonOf` does. */
export function deltaOf(history: readonly Mechanism[], epsilon: number, accountant: Accountant): number {
  if (accountant === 'pld') return pldDelta(poissonGaussians(history), epsilon);
  return rdpDelta(rdpOf(history), epsilon);
}

/** The Rényi divergences of a history over the usual orders, or over `orders`. Throws as `epsilonOf` does. */
export function rdpOf(history: readonly Mechanism[], orders?: readonly number[]): RdpCurve {
  const fixedSize = history.filter(({ kind }) => kind === 'fixed-size-gaussian');
  if (fixedSize.length > 0 && fixedSize.length < history.length) {
    throw new PrivacyError(
      'FED_PRIVACY_ACCOUNTANT',
      'Samples of fixed size are accounted for replacing a record and all else for adding or removing one: a history has one or the other.',
    );
  }
  const curves = history.map((one) => rdpCurve(divergenceOf(one), one.steps, orders));
  return curves.length > 0 ? composeRdp(curves) : rdpCurve(() => 0, 0, orders);
}

function divergenceOf(mechanism: Mechanism): (order: number) => number {
  demandSteps(mechanism.steps);
  switch (mechanism.kind) {
    case 'poisson-gaussian': {
      const { noiseMultiplier, samplingRate } = mechanism;
      demandNoiseMultiplier(noiseMultiplier);
      demandSamplingRate(samplingRate);
      return (order) => subsampledGaussianRdp(order, noiseMultiplier, samplingRate);
    }
    case 'fixed-size-gaussian': {
      const { noiseMultiplier, population, sample } = mechanism;
      demandNoiseMultiplier(noiseMultiplier);
      const isCount = (value: number) => Number.isSafeInteger(value) && value >= 0;
      demand(isCount(population) && population > 0, 'population', population, 'a whole number, 1 or more');
      demand(
        isCount(sample) && sample <= population,
        'sample',
        sample,
        `a whole number from 0 to ${population}`,
      );
      return (order) => fixedSizeGaussianRdp(order, noiseMultiplier / 2, sample / population);
    }
    case 'skellam':
      return (order) => skellamRdp(order, mechanism);
    case 'discrete-gaussian':
      return (order) => discreteGaussianRdp(order, mechanism);
    default:
      throw unknownKind(mechanism);
  }
}

function poissonGaussians(history: readonly Mechanism[]): PoissonGaussian[] {
  return history.map((one) => {
    if (one.kind === 'poisson-gaussian') return one;
    throw new PrivacyError(
      'FED_PRIVACY_ACCOUNTANT',
      `The loss distribution of ${one.kind} isn't known to the accountant pld: use rdp.`,
    );
  });
}

/** A history may come from a file. */
function unknownKind(mechanism: never): PrivacyError {
  const { kind } = mechanism as { readonly kind: unknown };
  return new PrivacyError('FED_PRIVACY_ACCOUNTANT', `No accountant knows a mechanism "${String(kind)}".`);
}
