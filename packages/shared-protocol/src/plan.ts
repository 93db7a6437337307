/**
 * What a federation tells its sites: the input, the augmentation and the training of one model. These schemas are
 * both the configuration's sections (checked by the coordinator) and the wire's (checked by the worker).
 */
import { z } from 'zod';

const range = z.tuple([z.number(), z.number()]);
/** A shift: a fraction or pixels (number), or the exact pixel values to choose from. */
const shift = z.union([z.number(), z.array(z.number()).min(1)]);

export const inputSchema = z.strictObject({
  /** Pixels. */
  height: z.int().min(1).max(8192),
  width: z.int().min(1).max(8192),
  channels: z.union([z.literal(1), z.literal(3), z.literal(4)]).default(3),
  interpolation: z.enum(['nearest', 'bilinear', 'bicubic']).default('nearest'),
  keepAspectRatio: z.boolean().default(false),
});
export type InputPlan = z.infer<typeof inputSchema>;

/** Keras's ImageDataGenerator, option by option, in camelCase. */
export const augmentationSchema = z.strictObject({
  variant: z.enum(['keras3', 'classic']).default('keras3'),
  featurewiseCenter: z.boolean().default(false),
  samplewiseCenter: z.boolean().default(false),
  featurewiseStdNormalization: z.boolean().default(false),
  samplewiseStdNormalization: z.boolean().default(false),
  zcaWhitening: z.boolean().default(false),
  zcaEpsilon: z.number().positive().default(1e-6),
  /** Degrees. */
  rotationRange: z.number().min(0).default(0),
  widthShiftRange: shift.default(0),
  heightShiftRange: shift.default(0),
  brightnessRange: range.nullable().default(null),
  /** Degrees. */
  shearRange: z.number().min(0).default(0),
  zoomRange: z.union([z.number(), range]).default(0),
  channelShiftRange: z.number().min(0).default(0),
  fillMode: z.enum(['nearest', 'constant', 'reflect', 'wrap']).default('nearest'),
  cval: z.number().default(0),
  horizontalFlip: z.boolean().default(false),
  verticalFlip: z.boolean().default(false),
  rescale: z.number().nullable().default(null),
  interpolationOrder: z.union([z.literal(0), z.literal(1)]).default(1),
  /** Where the affine part runs: exact in JavaScript, or one projective transform a batch on the engine. */
  path: z.enum(['exact', 'batched']).default('exact'),
});
export type AugmentationPlan = z.infer<typeof augmentationSchema>;

export const optimizerSchema = z.discriminatedUnion('name', [
  z.strictObject({
    name: z.literal('sgd'),
    learningRate: z.number().positive(),
    momentum: z.number().min(0).max(1).default(0),
    nesterov: z.boolean().default(false),
  }),
  z.strictObject({
    name: z.literal('adam'),
    learningRate: z.number().positive(),
    beta1: z.number().min(0).max(1).default(0.9),
    beta2: z.number().min(0).max(1).default(0.999),
    epsilon: z.number().positive().default(1e-7),
  }),
  z.strictObject({
    name: z.literal('rmsprop'),
    learningRate: z.number().positive(),
    decay: z.number().min(0).max(1).default(0.9),
    momentum: z.number().min(0).max(1).default(0),
    epsilon: z.number().positive().default(1e-7),
  }),
  z.strictObject({
    name: z.literal('adagrad'),
    learningRate: z.number().positive(),
    initialAccumulator: z.number().min(0).default(0.1),
  }),
]);
export type OptimizerPlan = z.infer<typeof optimizerSchema>;

/** The learning rate of round r (from 1) is optimizer.learningRate times a factor. */
export const scheduleSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('constant') }),
  z.strictObject({
    kind: z.literal('step'),
    everyRounds: z.int().min(1),
    factor: z.number().positive().max(1),
  }),
  z.strictObject({ kind: z.literal('exponential'), factor: z.number().positive().max(1) }),
  z.strictObject({
    kind: z.literal('cosine'),
    totalRounds: z.int().min(1),
    minFactor: z.number().min(0).max(1).default(0),
  }),
]);

export const trainingSchema = z.strictObject({
  optimizer: optimizerSchema,
  loss: z.string().min(1),
  metrics: z.array(z.string().min(1)).default(['accuracy']),
  batchSize: z.int().min(1).default(32),
  /** Passes over the site's shard in one round; or `steps`, batches a round. Exactly one of the two. */
  epochs: z.int().min(1).optional(),
  steps: z.int().min(1).optional(),
  /** Decoupled weight decay (Loshchilov and Hutter 2019), applied each step as w -= learningRate * weightDecay * w. */
  weightDecay: z.number().min(0).default(0),
  /** Class name to loss weight; classes not named weigh 1. */
  classWeights: z.record(z.string(), z.number().positive()).default({}),
  /** Names of layers that keep their weights. */
  frozenLayers: z.array(z.string()).default([]),
  learningRateSchedule: scheduleSchema.default({ kind: 'constant' }),
  /** Share of each class's images held out for evaluation at a site that has no test folder. */
  validationSplit: z.number().gt(0).lt(1).optional(),
});
export type TrainingPlan = z.infer<typeof trainingSchema>;

/** A clipping norm that follows a quantile of the updates' norms (Andrew et al. 2021, arXiv 1905.03871). */
const adaptiveNormSchema = z.strictObject({
  /** The first round's, in the parameters' unit. */
  initial: z.number().positive(),
  /** Share of updates that should stay as they are. */
  targetQuantile: z.number().min(0).max(1).default(0.5),
  /** A round changes the norm by about this power of e at most. */
  learningRate: z.number().positive().default(0.2),
  /**
   * Standard deviation of the noise on the count of updates that stayed as they were; above half the noise multiplier.
   *
   * @default a twentieth of the sites that are asked, and the noise multiplier at least
   */
  countStdDev: z.number().positive().optional(),
});

/** Each image of a site, by DP-SGD at the site (Abadi et al. 2016, arXiv 1607.00133). */
const recordLevelSchema = z.strictObject({
  unit: z.literal('record'),
  /** L2 norm to which the gradient of one image is scaled down. */
  clippingNorm: z.number().positive(),
  /** Standard deviation of the noise in a step's sum of gradients, in clipping norms. */
  noiseMultiplier: z.number().positive(),
});

const fixedNorm = {
  /** L2 norm, over all trained parameters together, to which an update is scaled down. */
  clippingNorm: z
    .number({ error: 'expected a number above 0; a norm that adapts needs noise: "coordinator"' })
    .positive(),
  /** Standard deviation of the noise, in clipping norms. */
  noiseMultiplier: z.number().positive(),
};

/**
 * All that a site tells by its update. `coordinator`: noise on the sum of a round's clipped updates (McMahan et al. 2018,
 * arXiv 1710.06963); `site`: on each clipped update, before it leaves; `distributed`: a share of it on each, so that their
 * sum under secure aggregation has all of it (Agarwal et al. 2021, arXiv 2110.04995).
 */
const siteLevelSchema = z.discriminatedUnion('noise', [
  z.strictObject({
    unit: z.literal('site'),
    noise: z.literal('coordinator'),
    /** L2 norm, over all trained parameters together, to which an update is scaled down. */
    clippingNorm: z.union([z.number().positive(), adaptiveNormSchema], {
      error: 'expected a number above 0, or { initial, targetQuantile, learningRate, countStdDev }',
    }),
    /** Standard deviation of the noise, in clipping norms. */
    noiseMultiplier: z.number().positive(),
  }),
  z.strictObject({
    unit: z.literal('site'),
    noise: z.literal('site'),
    ...fixedNorm,
  }),
  z.strictObject({ unit: z.literal('site'), noise: z.literal('distributed'), ...fixedNorm }),
]);

/** How updates travel as whole numbers under masks, of which the coordinator learns the sum (Bonawitz et al. 2017). */
export const secureAggregationSchema = z.strictObject({
  /**
   * Values of an update beyond ± this are clipped; each round tells what share of them was. It follows from the noise where
   * that is added in shares, and is left out then.
   *
   * @default 1
   */
  clippingRange: z.number().positive().optional(),
  /** Bits of a value: its range is cut into 2^bits − 2 steps, between which is rounded at random. */
  valueBits: z.int().min(2).max(24).default(16),
  /** Training examples of the largest site. Where updates weigh by examples, one with more can't take part. */
  maxExamples: z.int().min(1).default(100_000),
  /**
   * Share of a round's sites that must be there to its end, above a half. Absent: floor(2n / 3) + 1 of n, which bears a
   * coordinator that works with fewer than a third of the sites.
   */
  threshold: z.number().gt(0.5).max(1).optional(),
  /**
   * For cohorts of more than about 50: each site masks with `degree` others, an even number, of which `threshold` give
   * back a secret (Bell et al. 2020). Absent: everybody with everybody.
   */
  neighbours: z.strictObject({ degree: z.int().min(2), threshold: z.int().min(2) }).optional(),
});
export type SecureAggregationPlan = z.infer<typeof secureAggregationSchema>;

/** What protects a site's updates and images, and how much of it a run may use up. */
export const privacySchema = z
  .strictObject({
    /** `true`: with the defaults. Absent or `false`: the coordinator sees each update. */
    secureAggregation: z
      .union(
        [
          z.boolean().transform((on) => (on ? secureAggregationSchema.parse({}) : undefined)),
          secureAggregationSchema,
        ],
        { error: 'expected true, false, or its settings' },
      )
      .optional(),
    /** `unit` says whom it protects. Absent: no noise. */
    differentialPrivacy: z.discriminatedUnion('unit', [recordLevelSchema, siteLevelSchema]).optional(),
    /** The most that each site spends in the whole run; a round beyond it is refused. Goes with `differentialPrivacy`. */
    budget: z
      .strictObject({
        epsilon: z.number().positive(),
        delta: z.number().gt(0).lt(1),
      })
      .optional(),
  })
  .superRefine(({ secureAggregation, differentialPrivacy, budget }, context) => {
    if (
      differentialPrivacy?.unit === 'site' &&
      differentialPrivacy.noise === 'distributed' &&
      secureAggregation === undefined
    )
      context.addIssue({
        code: 'custom',
        path: ['differentialPrivacy', 'noise'],
        message:
          'each site adds a share of the noise only, and without secure aggregation the coordinator sees each update with no more than that; set privacy.secureAggregation, or noise: "site"',
      });
    if (differentialPrivacy !== undefined && budget === undefined)
      context.addIssue({
        code: 'custom',
        path: ['budget'],
        message: 'differential privacy needs a budget, such as { epsilon: 8, delta: 1e-5 }',
      });
    if (budget !== undefined && differentialPrivacy === undefined)
      context.addIssue({
        code: 'custom',
        path: ['budget'],
        message: 'without differentialPrivacy nothing bounds what is spent; set it, or leave the budget out',
      });
  });
export type PrivacyPlan = z.infer<typeof privacySchema>;
/** Differential privacy with the budget that goes with it. */
export interface DifferentialPrivacyPlan {
  readonly differentialPrivacy: NonNullable<PrivacyPlan['differentialPrivacy']>;
  readonly budget: NonNullable<PrivacyPlan['budget']>;
}

/** What of `privacy` bounds what may be learned of a record; undefined when nothing does. */
export function differentialPrivacyOf(privacy: PrivacyPlan | undefined): DifferentialPrivacyPlan | undefined {
  const { differentialPrivacy, budget } = privacy ?? {};
  return differentialPrivacy && budget && { differentialPrivacy, budget };
}

/** Noise that sites add in shares to what they mask, with the bits of a value there; undefined where there is none. */
export function sharedNoiseOf(privacy: PrivacyPlan | undefined): SharedNoisePlan | undefined {
  const { differentialPrivacy, secureAggregation } = privacy ?? {};
  if (differentialPrivacy?.unit !== 'site' || differentialPrivacy.noise !== 'distributed') return undefined;
  return secureAggregation && { ...differentialPrivacy, valueBits: secureAggregation.valueBits };
}
export type SharedNoisePlan = Extract<SiteLevelPlan, { noise: 'distributed' }> & {
  readonly valueBits: number;
};
/** Privacy of whole sites, as a configuration and `welcome` say it. */
export type SiteLevelPlan = z.infer<typeof siteLevelSchema>;

/** All that a site must know to take part; sent in `welcome`. */
export const federationViewSchema = z.strictObject({
  name: z.string(),
  runId: z.string(),
  /** SHA-256 of the resolved configuration, lower-case hex. */
  configDigest: z.string(),
  seed: z.int().min(0).max(0xffff_ffff),
  rounds: z.int().min(1),
  /** Names in the order of the model's outputs. */
  classes: z.array(z.string()).min(1),
  input: inputSchema,
  augmentation: augmentationSchema,
  training: trainingSchema,
  /** Absent: updates leave the sites as they are. A worker that does not know the key refuses the federation. */
  privacy: privacySchema.optional(),
  /** With secure aggregation, whose sites weigh their updates themselves: by their examples, or all the same. */
  weighting: z.enum(['examples', 'uniform']).optional(),
  /** A site stops when a larger share of its images than this can't be read, in [0, 1]. */
  maxUnreadableShare: z.number().min(0).max(1),
  /** Keras JSON of the LayersModel, as text; its SHA-256 is in the configuration's digest. */
  topology: z.string(),
  /** Weight names that stay at every site and are not exchanged (those of frozen layers). */
  frozenWeights: z.array(z.string()),
  /** Size of the global model's tensor frame, for a site's check of its disk; absent when not known yet. */
  modelBytes: z.int().min(0).optional(),
});
export type FederationView = z.infer<typeof federationViewSchema>;
