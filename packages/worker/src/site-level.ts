/**
 * Privacy of the site as a whole, at the site: its update is clipped before it leaves and, where the federation has the
 * noise at the sites, noised. Trained as without privacy: nothing but the update tells of it, so no metrics are sent.
 */
import { FEWEST_SITES, fewestHonest, PrivacyError, protectShare, protectUpdate } from '@tributary/privacy';
import type { MessageOf, SharedNoisePlan, SiteLevelPlan, Tensor } from '@tributary/shared-protocol';

/** The L2 norm to which an update is clipped: the federation's, or the one that the plan tells where that adapts. */
export function updateNorm({ clippingNorm }: SiteLevelPlan, told: number | undefined): number | undefined {
  return typeof clippingNorm === 'number' ? clippingNorm : told;
}

/** What a plan tells of the round that a site that is private as a whole has to know. */
export type ToldOfRound = Pick<MessageOf<'plan'>, 'clippingNorm' | 'cohortSize' | 'minUpdates'>;

/**
 * The result of training as it may leave: its update clipped, and noised, in place; without metrics. Throws PrivacyError
 * FED_PRIVACY_UPDATE_NOT_FINITE, and FED_PRIVACY_PARAMETER where shares of the noise can't be sized.
 */
export function protectResult<T extends { readonly update: readonly Tensor[] }>(
  result: T,
  privacy: SiteLevelPlan,
  told: ToldOfRound,
  shares?: SharedNoisePlan,
): T & { readonly metrics: Readonly<Record<string, number>> } {
  const tensors = result.update.map(({ data }) => data as Float32Array);
  const clippingNorm = updateNorm(privacy, told.clippingNorm);
  if (clippingNorm === undefined) throw new TypeError('a plan without a clipping norm was not declined');
  if (shares) protectShare(tensors, { ...shares, honest: honestSites(told) });
  else {
    const noiseMultiplier = privacy.noise === 'site' ? privacy.noiseMultiplier : undefined;
    protectUpdate(tensors, { clippingNorm, noiseMultiplier });
  }
  return { ...result, metrics: {} };
}

/** Sites whose noise is counted on. What the plan told of them is held against the cohort that the update is masked with. */
function honestSites({ cohortSize, minUpdates }: ToldOfRound): number {
  if (cohortSize === undefined || minUpdates === undefined)
    throw new PrivacyError(
      'FED_PRIVACY_PARAMETER',
      'the plan does not tell how many sites share the noise: the coordinator speaks an older protocol',
    );
  return fewestHonest({ asked: cohortSize, fewest: Math.max(FEWEST_SITES, minUpdates) });
}
