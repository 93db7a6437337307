/**
 * Privacy of the site as a whole, at the site: its update is clipped before it leaves and, where the federation has the
 * noise at the sites, noised. Trained as without privacy: nothing but the update tells of it, so no metrics are sent.
 */
import { protectUpdate } from '@tributary/privacy';
import type { SiteLevelPlan, Tensor } from '@tributary/shared-protocol';

/** The L2 norm to which an update is clipped: the federation's, or the one that the plan tells where that adapts. */
export function updateNorm({ clippingNorm }: SiteLevelPlan, told: number | undefined): number | undefined {
  return typeof clippingNorm === 'number' ? clippingNorm : told;
}

/**
 * The result of training as it may leave: its update clipped, and noised, in place; without metrics. `clippingNorm`: what
 * the plan tells. Throws PrivacyError FED_PRIVACY_UPDATE_NOT_FINITE.
 */
export function protectResult<T extends { readonly update: readonly Tensor[] }>(
  result: T,
  privacy: SiteLevelPlan,
  clippingNorm: number | undefined,
): T & { readonly metrics: Readonly<Record<string, number>> } {
  const norm = updateNorm(privacy, clippingNorm);
  if (norm === undefined) throw new TypeError('a plan without a clipping norm was not declined');
  protectUpdate(
    result.update.map(({ data }) => data as Float32Array),
    { clippingNorm: norm, noiseMultiplier: privacy.noise === 'site' ? privacy.noiseMultiplier : undefined },
  );
  return { ...result, metrics: {} };
}
