/**
 * Privacy of whole sites with the noise at the coordinator: central DP-FedAvg (McMahan et al. 2018, arXiv 1710.06963).
 * Every update is clipped here once more, all weigh the same, noise goes on their sum, and the sum is divided by the
 * number of sites that were asked: a number that is public before any of them answers. The norm may adapt (Andrew et al.
 * 2021, arXiv 1905.03871). See docs/adr/0011-privacy-of-sites.md.
 */
import {
  type AdaptiveClippingSettings,
  arrivedWhole,
  createGaussianNoise,
  divideNoise,
  noiseStdDev,
  type RandomWords,
  updateAdaptiveClipping,
} from '@tributary/privacy';
import { parameterCount, type SiteLevelPlan } from '@tributary/shared-protocol';
import type { Fold } from './aggregate/fold.ts';
import { refuseOverdraft } from './privacy-books.ts';
import type { RunContext } from './round/context.ts';
import type { CommittedRound } from './run/records.ts';
import type { MeanUpdate } from './strategy.ts';

type Central = Extract<SiteLevelPlan, { noise: 'coordinator' }>;

/** To which the updates of the next round are clipped, and whether the sites have to be told. */
export interface RoundNorm {
  readonly clippingNorm: number;
  readonly adapts: boolean;
}

/** A round's updates, ready for the strategy. */
export interface Release {
  readonly mean: MeanUpdate;
  /** For the record of its commit. */
  readonly committed: Pick<CommittedRound, 'nextClippingNorm'>;
}

/** The norm of the round after the last commit; undefined where the coordinator adds no noise. */
export function roundNorm({ federation, state }: RunContext): RoundNorm | undefined {
  const central = centralOf({ federation });
  if (central === undefined) return undefined;
  const { clippingNorm } = central;
  if (typeof clippingNorm === 'number') return { clippingNorm, adapts: false };
  const { nextClippingNorm = clippingNorm.initial } = state.commits.at(-1) ?? {};
  return { clippingNorm: nextClippingNorm, adapts: true };
}

/**
 * The mean for the strategy: `plain`, or that of what `fold` holds with noise, where that is the coordinator's to add. Each
 * call draws
 * noise of its own and counts for every site in the fold, so the record of it is on the disk first. `asked`: sites that
 * were asked in the round. `random`: @default `node:crypto`.
 *
 * Throws BudgetSpent when one more release would overdraw a site's budget, CoordinatorError FED_RUN_STORAGE.
 */
export function releaseMean(
  context: RunContext,
  fold: Fold,
  plain: MeanUpdate,
  options: {
    readonly round: number;
    readonly asked: number;
    /** Names, sorted: whose updates the fold has. */
    readonly sites: readonly string[];
    readonly random?: RandomWords;
  },
): Release {
  const central = centralOf(context);
  const norm = roundNorm(context);
  if (central === undefined || norm === undefined) return { mean: plain, committed: {} };
  const { clippingNorm } = norm;
  const { round, asked, sites, random } = options;
  refuseOverdraft(context, round, sites);
  const entry = { type: 'noised', round, sites, clippingNorm, expectedCohort: asked } as const;
  context.record(entry, { durable: true });

  const dimension = parameterCount(context.manifest);
  const noise = noiseOf(central, asked);
  const stdDev = noiseStdDev({
    clippingNorm: contribution(clippingNorm, dimension),
    noiseMultiplier: noise.sumNoiseMultiplier,
    dimension,
  });
  // Before the sums have noise, and each norm is that of the round that clipped.
  const whole = sites.map((name) => arrivedWhole(fold.norms.get(name) ?? 0, clippingNorm));
  fold.addNoise(createGaussianNoise({ stdDev, random }));
  const { settings } = noise;
  const next = settings && updateAdaptiveClipping(settings, { clippingNorm }, whole, random).clippingNorm;
  return {
    mean: fold.mean(asked),
    committed: next === undefined ? {} : { nextClippingNorm: next },
  };
}

/** What the round's noise multiplier comes to, and how the norm adapts, if it does. */
function noiseOf(
  { noiseMultiplier, clippingNorm }: Central,
  expectedCohort: number,
): { readonly sumNoiseMultiplier: number; readonly settings?: AdaptiveClippingSettings } {
  if (typeof clippingNorm === 'number') return { sumNoiseMultiplier: noiseMultiplier };
  const { targetQuantile, learningRate } = clippingNorm;
  const { sumNoiseMultiplier, countStdDev } = divideNoise({
    noiseMultiplier,
    expectedCohort,
    countStdDev: clippingNorm.countStdDev,
  });
  return { sumNoiseMultiplier, settings: { targetQuantile, learningRate, expectedCohort, countStdDev } };
}

/**
 * The most that one site's update can change the sums, as an L2 norm: the clipping norm, and what rounding adds to it. A
 * norm that is summed over n numbers is right to n * 2^-53 of itself, for n up to 2^31 to 2^-22; each term is cut to a
 * multiple of 2^-50.
 */
function contribution(clippingNorm: number, dimension: number): number {
  return clippingNorm * (1 + 2 ** -22) + Math.sqrt(dimension) * 2 ** -50;
}

function centralOf({ federation }: Pick<RunContext, 'federation'>): Central | undefined {
  const privacy = federation.privacy?.differentialPrivacy;
  return privacy?.unit === 'site' && privacy.noise === 'coordinator' ? privacy : undefined;
}
