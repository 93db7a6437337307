/**
 * What would make a federation's privacy a lie: settings that let something leave a site without noise, or that the
 * accountant has no bound for. Each is refused when the configuration is read, with the reason and what to do instead.
 */
import type { AugmentationPlan, PrivacyPlan } from '@tributary/shared-protocol';

export interface UnsoundSetting {
  readonly path: readonly string[];
  readonly message: string;
}

/** The parts of a configuration that privacy has a say in. */
interface PrivateSettings {
  readonly privacy?: PrivacyPlan | undefined;
  readonly augmentation: Partial<AugmentationPlan>;
  readonly evaluation: { readonly sites?: boolean | undefined };
  readonly strategy: { readonly name: string; readonly updateClippingNorm?: number | undefined };
}

const STATISTICS = ['featurewiseCenter', 'featurewiseStdNormalization', 'zcaWhitening'] as const;

/** What of the settings can't be had together with their `privacy`. */
export function unsoundWithPrivacy({
  privacy,
  augmentation,
  evaluation,
  strategy,
}: PrivateSettings): UnsoundSetting[] {
  if (privacy === undefined) return [];
  const unsound: UnsoundSetting[] = [];
  if (privacy.secureAggregation && strategy.updateClippingNorm !== undefined) {
    unsound.push({
      path: ['strategy', 'updateClippingNorm'],
      message:
        'the coordinator sees no single update under secure aggregation, and can scale none down; leave it out: privacy.secureAggregation.clippingRange bounds each value at the site',
    });
  }
  if (privacy.differentialPrivacy === undefined) return unsound;
  if (evaluation.sites === true) {
    unsound.push({
      path: ['evaluation', 'sites'],
      message:
        'metrics of a site’s test images would leave it without noise; set it to false, and evaluate with evaluation.testDir, on images of your own',
    });
  }
  for (const key of STATISTICS) {
    if (!augmentation[key]) continue;
    unsound.push({
      path: ['augmentation', key],
      message:
        'its statistics are taken from all of a site’s images and no noise covers them; use samplewiseCenter, samplewiseStdNormalization or rescale',
    });
  }
  return unsound;
}

/** What of a model's topology (Keras JSON, as text) can't be trained with privacy; undefined when all can. */
export function unsoundModel(privacy: PrivacyPlan | undefined, topology: string): string | undefined {
  if (privacy?.differentialPrivacy === undefined || !/"class_name":\s*"BatchNormalization"/.test(topology))
    return undefined;
  return (
    'it has batch normalisation, which mixes the records of a batch: the share of one has no bound, and its moving ' +
    'averages would leave a site without noise; use layer normalisation, or none'
  );
}
