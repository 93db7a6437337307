/**
 * The federation's configuration: every key, its range and its default. What is written here is what
 * `tributary.config.ts` accepts; anything else is an error that names the key.
 */
import {
  addressSchema,
  augmentationSchema,
  inputSchema,
  privacySchema,
  trainingSchema,
} from '@tributary/shared-protocol';
import { z } from 'zod';
import { unsoundWithPrivacy } from './privacy-rules.ts';

/** Builds a tf.LayersModel; typed loosely here because the coordinator imports no TensorFlow.js. */
export type ModelBuilder = (options: {
  /** TensorFlow.js, core and layers in one namespace. */
  readonly tf: unknown;
  readonly input: { readonly height: number; readonly width: number; readonly channels: number };
  readonly numClasses: number;
  readonly seed: number;
}) => unknown;

const share = z.number().gt(0).max(1);

/** Of every strategy of the mean. */
const meanOptions = {
  /** What an update weighs in the mean: its number of examples, or 1. @default 'examples'; 'uniform' where sites are private */
  weighting: z.enum(['examples', 'uniform']).optional(),
  /** L2 norm over all parameters together to which a larger update is scaled down; absent: no clipping. */
  updateClippingNorm: z.number().positive().optional(),
};
/** How much of its former value a server's average keeps. */
const decay = z.number().min(0).lt(1);
const tau = z.number().positive().default(1e-3);

/** Where an optimizer follows the mean update, `serverLearningRate` is the size of its steps. */
export const strategySchema = z.discriminatedUnion('name', [
  z.strictObject({
    /** Federated averaging (McMahan et al. 2017, arXiv 1602.05629). */
    name: z.literal('fed-avg'),
    ...meanOptions,
  }),
  z.strictObject({
    /** With momentum at the server (Hsu et al. 2019, arXiv 1909.06335). */
    name: z.literal('fed-avg-m'),
    ...meanOptions,
    serverLearningRate: z.number().positive().default(1),
    serverMomentum: decay.default(0.9),
  }),
  z.strictObject({
    /** This and the next two: Reddi et al. 2021, arXiv 2003.00295. */
    name: z.literal('fed-adagrad'),
    ...meanOptions,
    serverLearningRate: z.number().positive().default(0.1),
    tau,
  }),
  z.strictObject({
    name: z.literal('fed-adam'),
    ...meanOptions,
    serverLearningRate: z.number().positive().default(0.1),
    beta1: decay.default(0.9),
    beta2: decay.default(0.99),
    tau,
    /** `none` as in the paper, or `flower`: of both averages, as if each had one round more. */
    biasCorrection: z.enum(['none', 'flower']).default('none'),
  }),
  z.strictObject({
    name: z.literal('fed-yogi'),
    ...meanOptions,
    serverLearningRate: z.number().positive().default(0.01),
    beta1: decay.default(0.9),
    beta2: decay.default(0.99),
    tau,
  }),
]);
export type StrategyPlan = z.infer<typeof strategySchema>;

export const cohortSchema = z.strictObject({
  /** Sites a round: all that are ready, a fraction of them (a number that is not whole), or so many (a whole number). */
  size: z
    .union([z.literal('all'), z.number().positive()], {
      error: 'expected "all", a fraction in (0, 1), or a whole number of sites',
    })
    .refine(
      (size) => size === 'all' || size < 1 || Number.isInteger(size),
      'a number above 1 is a count of sites and must be whole',
    )
    .default('all'),
  /** Sites that must be ready before a round starts, and updates below which no round is committed. */
  quorum: z.int().min(1).max(4096).default(2),
  /** Share of the cohort whose updates suffice: the round closes without waiting for the rest. */
  target: share.default(1),
});

export const deadlinesSchema = z.strictObject({
  /** From the plan to the close of a round; an update that is arriving then may take as long again. */
  roundSeconds: z.number().positive().default(3600),
  /** From the evaluation plan until what has arrived is taken. */
  evaluateSeconds: z.number().positive().default(600),
  /** How long the quorum is waited for before the run ends as failed. */
  quorumSeconds: z.number().positive().default(86_400),
  heartbeatSeconds: z.number().positive().default(10),
  /** How long a round waits for a cohort member that was lost, once all others are done. */
  rejoinSeconds: z.number().min(0).default(120),
  /** How often a round below the quorum is opened again before the run ends as failed. */
  extensions: z.int().min(0).default(3),
});

export const configSchema = z
  .strictObject({
    name: z
      .string()
      .regex(
        /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/,
        'expected 1 to 64 letters, digits, dots, dashes or underscores',
      ),
    /** Every draw of the training comes from it: initial weights, cohorts, shuffling, augmentation. */
    seed: z.int().min(0).max(0xffff_ffff).default(1),
    /** The name of a model that Tributary ships, the path of a saved LayersModel, or a function that builds one. */
    model: z.union([z.string().min(1), z.custom<ModelBuilder>((value) => typeof value === 'function')], {
      error: 'expected the name of a model, the path of a saved LayersModel, or a function that builds one',
    }),
    input: inputSchema.partial({ height: true, width: true }).prefault({}),
    classes: z.array(z.string().min(1)).min(2, 'expected at least two class names'),
    augmentation: augmentationSchema.prefault({}),
    training: trainingSchema.partial({ optimizer: true, loss: true }).prefault({}),
    /** Absent: none. */
    privacy: privacySchema.optional(),
    rounds: z.int().min(1).max(1_000_000).default(10),
    cohort: cohortSchema.prefault({}),
    strategy: strategySchema.prefault({ name: 'fed-avg' }),
    deadlines: deadlinesSchema.prefault({}),
    evaluation: z
      .strictObject({
        /** The last round is always evaluated. */
        everyRounds: z.int().min(1).default(1),
        /** Whether the sites evaluate on their own test splits. @default true, and false with `privacy` */
        sites: z.boolean().optional(),
        /** A folder `<class>/*` of images at the coordinator. */
        testDir: z.string().min(1).optional(),
      })
      .prefault({}),
    /** Which checkpoint is the best: by the central evaluation where there is one, else by the sites' weighted one. */
    best: z
      .strictObject({
        metric: z.string().min(1).default('loss'),
        mode: z.enum(['min', 'max']).default('min'),
      })
      .prefault({}),
    earlyStopping: z
      .strictObject({
        metric: z.string().min(1).default('loss'),
        mode: z.enum(['min', 'max']).default('min'),
        /** Evaluated rounds without an improvement after which the run ends. */
        patience: z.int().min(1),
        minDelta: z.number().min(0).default(0),
      })
      .optional(),
    /** A site stops when a larger share of its images than this can't be read. */
    maxUnreadableShare: z.number().min(0).max(1).default(0.05),
    server: z
      .strictObject({
        host: z.string().min(1).default('0.0.0.0'),
        port: z.int().min(0).max(65_535).default(7700),
        tls: z.boolean().default(true),
        /** What sites dial when it differs from the address listened on. */
        publicUrl: z.url().optional(),
        /** Listen at a NATS server in place of a port of the coordinator's own. */
        nats: z
          .strictObject({
            /** `tls://host:4222/prefix`, or `nats://` without TLS; several servers of a cluster with commas. */
            url: addressSchema(
              /^(nats|tls)$/,
              'expected an address like tls://192.0.2.7:4222/tributary, or of a cluster, tls://a:4222,b:4222/tributary',
            ),
            /** File with the coordinator's nkey seed, or a credentials file. */
            credentials: z.string().min(1).optional(),
            /** PEM file: the authority of the server's certificate. */
            ca: z.string().min(1).optional(),
          })
          .optional(),
      })
      .prefault({}),
    invites: z
      .strictObject({
        uses: z.int().min(1).max(4096).default(1),
        expiresMinutes: z
          .number()
          .positive()
          .default(24 * 60),
      })
      .prefault({}),
    /** Where the run is kept. @default `runs/<name>` beside the configuration */
    runDir: z.string().min(1).optional(),
  })
  .superRefine((config, context) => {
    for (const { path, message } of unsoundWithPrivacy(config)) {
      context.addIssue({ code: 'custom', path: [...path], message });
    }
    const duplicate = config.classes.find((name, i) => config.classes.indexOf(name) !== i);
    if (duplicate !== undefined) {
      context.addIssue({
        code: 'custom',
        path: ['classes'],
        message: `class names must differ; "${duplicate}" is there twice`,
      });
    }
    if (config.training.epochs !== undefined && config.training.steps !== undefined) {
      context.addIssue({
        code: 'custom',
        path: ['training', 'steps'],
        message: 'give epochs or steps, not both',
      });
    }
    for (const name of Object.keys(config.training.classWeights)) {
      if (!config.classes.includes(name)) {
        context.addIssue({
          code: 'custom',
          path: ['training', 'classWeights', name],
          message: `not one of the classes ${config.classes.join(', ')}`,
        });
      }
    }
  });

/** What a configuration file may say: `name`, `model` and `classes`, and any of the rest. */
export type FederationConfig = z.input<typeof configSchema>;
/** The same with every default filled in, but for what a model's recipe decides (input size, optimizer, loss). */
export type FederationSettings = z.output<typeof configSchema>;

/** Returns its argument, for the types and for completion in an editor. */
export function defineFederation(config: FederationConfig): FederationConfig {
  return config;
}
