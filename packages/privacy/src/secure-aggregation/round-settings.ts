/** From what a federation says of secure aggregation to the settings of one round: site and coordinator find the same. */
import { type DistributedSum, sumGrid } from '../distributed-sum.ts';
import { PrivacyError } from '../errors.ts';
import { type FixedPointSettings, valueSteps } from './fixed-point.ts';
import type { SecaggSettings } from './plan.ts';

/** What a federation says of it, for all of its rounds. */
export interface FederationMasking {
  /** Values beyond ± this are clipped. In units of the update; > 0. @default 1 */
  readonly clippingRange?: number | undefined;
  /** Where sites add the noise of the sum in shares: it gives the range and its steps. */
  readonly shares?: Omit<DistributedSum, 'valueBits'> | undefined;
  /** From 2 to 31. */
  readonly valueBits: number;
  /** Training examples of the largest site, from 1. */
  readonly maxExamples: number;
  /** Whether an update weighs by its examples, or as every other. */
  readonly weighting: 'examples' | 'uniform';
  /** Share of the cohort that must be there to the end, in (0.5, 1]. @default floor(2n / 3) + 1 of n */
  readonly threshold?: number | undefined;
  /** In cohorts of more than `degree` sites: with how many each shares masks, and how many of them give back a secret. */
  readonly neighbours?: { readonly degree: number; readonly threshold: number } | undefined;
}

type Round = Omit<SecaggSettings, 'fixedPoint' | 'threshold' | 'harary'>;

/**
 * The settings of a round with this cohort. Where updates weigh by examples, a weight has all the bits that the values of
 * so many sites leave of 32, and a unit of it is the fewest examples with which `maxExamples` fits. Throws PrivacyError
 * FED_PRIVACY_SECAGG_OVERFLOW when no bit is left, FED_PRIVACY_PARAMETER for values out of their range.
 */
export function settingsOfRound(masking: FederationMasking, round: Round): SecaggSettings {
  const { threshold, neighbours } = masking;
  const n = round.cohort.length;
  return {
    ...round,
    fixedPoint: fixedPointOf(masking, n),
    ...(threshold === undefined
      ? {}
      : { threshold: Math.max(Math.floor(n / 2) + 1, Math.ceil(threshold * n)) }),
    ...(neighbours === undefined || n <= neighbours.degree ? {} : { harary: neighbours }),
  };
}

function fixedPointOf(
  { valueBits, maxExamples, weighting, shares, ...masking }: FederationMasking,
  sites: number,
): FixedPointSettings {
  const steps = valueSteps(valueBits);
  const clippingRange = shares
    ? sumGrid({ ...shares, valueBits }).clippingRange
    : (masking.clippingRange ?? 1);
  if (weighting === 'uniform') return { clippingRange, steps, maxWeight: 1 };
  const largest = Math.floor((2 ** 32 - 1) / (steps * Math.max(1, sites)));
  if (largest < 1)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_OVERFLOW',
      `values of ${valueBits} bits of ${sites} sites leave no bit of 32 for their weights: take fewer valueBits`,
    );
  const examplesPerWeight = Math.ceil(maxExamples / largest);
  return { clippingRange, steps, maxWeight: Math.ceil(maxExamples / examplesPerWeight), examplesPerWeight };
}
