/**
 * What would make a federation's privacy a lie: settings that let something leave a site without noise, or that the
 * accountant has no bound for. Each is refused when the configuration is read, with the reason and what to do instead.
 */
import { createGaussianNoise, divideNoise, longestOnGrid, noiseStdDev, sumGrid } from '@tributary/privacy';
import {
  type AugmentationPlan,
  type PrivacyPlan,
  type SiteLevelPlan,
  sharedNoiseOf,
} from '@tributary/shared-protocol';

export interface UnsoundSetting {
  readonly path: readonly string[];
  readonly message: string;
}

/** The parts of a configuration that privacy has a say in. */
interface PrivateSettings {
  readonly privacy?: PrivacyPlan | undefined;
  readonly augmentation: Partial<AugmentationPlan>;
  readonly evaluation: { readonly sites?: boolean | undefined };
  readonly strategy: {
    readonly name: string;
    readonly weighting?: string | undefined;
    readonly updateClippingNorm?: number | undefined;
  };
}

/** What of the settings can't be had together with their `privacy`. */
export function unsoundWithPrivacy(settings: PrivateSettings): UnsoundSetting[] {
  const { privacy, evaluation, strategy } = settings;
  if (privacy === undefined) return [];
  const unsound: UnsoundSetting[] = [];
  if (privacy.secureAggregation && strategy.updateClippingNorm !== undefined) {
    unsound.push({
      path: ['strategy', 'updateClippingNorm'],
      message:
        'the coordinator sees no single update under secure aggregation, and can scale none down; leave it out: privacy.secureAggregation.clippingRange bounds each value at the site',
    });
  }
  if (privacy.secureAggregation && !OF_THE_MEAN.includes(strategy.name)) {
    unsound.push({
      path: ['strategy', 'name'],
      message: `it compares single updates, and under secure aggregation the coordinator has their sum only; use one of the mean: ${OF_THE_MEAN.join(', ')}`,
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
  const { differentialPrivacy } = privacy;
  return differentialPrivacy.unit === 'record'
    ? [...unsound, ...unsoundForRecords(settings)]
    : [...unsound, ...unsoundForSites(differentialPrivacy, settings)];
}

/** What of a model's topology (Keras JSON, as text) can't be trained with privacy; undefined when all can. */
export function unsoundModel(privacy: PrivacyPlan | undefined, topology: string): string | undefined {
  const unit = privacy?.differentialPrivacy?.unit;
  if (unit === undefined || !/"class_name":\s*"BatchNormalization"/.test(topology)) return undefined;
  return unit === 'record'
    ? 'it has batch normalisation, which mixes the records of a batch: the share of one has no bound, and its moving ' +
        'averages would leave a site without noise; use layer normalisation, or none'
    : 'it has batch normalisation, whose moving averages are statistics of a site’s images: clipped and noised with ' +
        'the weights they would use up the norm, and a variance could fall below zero; use layer normalisation, or none';
}

/** Why noise of so many clipping norms can't be drawn for a model of so many parameters; undefined when it can. */
export function unsoundNoise(privacy: PrivacyPlan | undefined, dimension: number): string | undefined {
  if (privacy?.differentialPrivacy?.unit !== 'site') return undefined;
  const { clippingNorm: norm, noiseMultiplier } = privacy.differentialPrivacy;
  const shares = sharedNoiseOf(privacy);
  try {
    if (shares) {
      longestOnGrid(sumGrid(shares), dimension);
      return undefined;
    }
    const stdDev =
      typeof norm === 'number'
        ? noiseStdDev({ clippingNorm: norm, noiseMultiplier, dimension })
        : noiseStdDev({
            clippingNorm: norm.initial,
            // The largest that it comes to, in the smallest cohort.
            noiseMultiplier: divideNoise({
              noiseMultiplier,
              expectedCohort: 1,
              countStdDev: norm.countStdDev,
            }).sumNoiseMultiplier,
            dimension,
          });
    createGaussianNoise({ stdDev });
    return undefined;
  } catch (error) {
    return `${(error as Error).message}; take less noise, or a smaller model`;
  }
}

const STATISTICS = ['featurewiseCenter', 'featurewiseStdNormalization', 'zcaWhitening'] as const;

function unsoundForRecords({ augmentation }: PrivateSettings): UnsoundSetting[] {
  return STATISTICS.filter((key) => augmentation[key]).map((key) => ({
    path: ['augmentation', key],
    message:
      'its statistics are taken from all of a site’s images and no noise covers them; use samplewiseCenter, samplewiseStdNormalization or rescale',
  }));
}

/** Strategies that see nothing of the updates but their mean. */
const OF_THE_MEAN = ['fed-avg', 'fed-avg-m', 'fed-adagrad', 'fed-adam', 'fed-yogi'];

function unsoundForSites(
  { noise, clippingNorm, noiseMultiplier }: SiteLevelPlan,
  { privacy, strategy }: PrivateSettings,
): UnsoundSetting[] {
  const unsound: UnsoundSetting[] = [];
  if (noise === 'coordinator' && privacy?.secureAggregation) {
    unsound.push({
      path: ['privacy', 'differentialPrivacy', 'noise'],
      message:
        'under secure aggregation the coordinator can clip no update, and the noise would be sized by what each site says of itself; use "distributed", or leave secureAggregation out',
    });
  }
  if (noise === 'distributed' && privacy?.secureAggregation?.clippingRange !== undefined) {
    unsound.push({
      path: ['privacy', 'secureAggregation', 'clippingRange'],
      message: 'it follows from the clipping norm and the noise where that is added in shares; leave it out',
    });
  }
  if (!OF_THE_MEAN.includes(strategy.name)) {
    unsound.push({
      path: ['strategy', 'name'],
      message: `it looks at single updates, and how far one of them moves its result has no bound that noise could be sized by; use one of the mean: ${OF_THE_MEAN.join(', ')}`,
    });
  }
  if (strategy.weighting !== undefined && strategy.weighting !== 'uniform') {
    unsound.push({
      path: ['strategy', 'weighting'],
      message:
        'a site with more examples would move the mean by more than the clipping norm over the cohort, which is what the noise is sized by; leave it out, or set "uniform": all sites weigh the same where sites are private',
    });
  }
  if (strategy.updateClippingNorm !== undefined) {
    unsound.push({
      path: ['strategy', 'updateClippingNorm'],
      message:
        'updates are clipped to privacy.differentialPrivacy.clippingNorm, which the noise is sized by; leave this one out',
    });
  }
  const countStdDev = typeof clippingNorm === 'number' ? undefined : clippingNorm.countStdDev;
  if (countStdDev !== undefined && noiseMultiplier >= 2 * countStdDev) {
    unsound.push({
      path: ['privacy', 'differentialPrivacy', 'clippingNorm', 'countStdDev'],
      message: `the count of unclipped updates alone would spend more than a noise multiplier of ${noiseMultiplier} allows; it must be above ${noiseMultiplier / 2}, or leave it out`,
    });
  }
  return unsound;
}
