/** The resolved form of a configuration: all of its numbers, the model's topology and tensors, and one digest. */
import { FEWEST_SITES } from '@tributary/privacy';
import {
  type AugmentationPlan,
  canonicalJson,
  type FederationView,
  type InputPlan,
  inputSchema,
  sha256,
  type Tensor,
  type TrainingPlan,
  trainingSchema,
} from '@tributary/shared-protocol';
import { ConfigError } from '../errors.ts';
import { describeIssues } from './issues.ts';
import { checkConfig } from './load.ts';
import { unsoundModel, unsoundNoise } from './privacy-rules.ts';
import type { FederationConfig, FederationSettings } from './schema.ts';

/** A model as numbers and text: what the coordinator needs of it, without TensorFlow.js. */
export interface ModelArtifact {
  readonly name: string;
  /** Keras JSON of the LayersModel, as text. */
  readonly topology: string;
  /** float32, in the order of `model.weights`; names differ from each other. */
  readonly weights: readonly Tensor[];
  /** Names of weights that are not trained and not exchanged back. */
  readonly frozenWeights: readonly string[];
}

export interface TensorShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Plain JSON. `digest` covers all but `server`, `invites` and `runDir`, which may change between starts. */
export interface ResolvedFederation
  extends Omit<
    FederationSettings,
    'model' | 'input' | 'training' | 'augmentation' | 'evaluation' | 'strategy'
  > {
  readonly model: string;
  readonly input: InputPlan;
  readonly augmentation: AugmentationPlan;
  readonly training: TrainingPlan;
  readonly strategy: FederationSettings['strategy'] & { readonly weighting: 'examples' | 'uniform' };
  readonly evaluation: Omit<FederationSettings['evaluation'], 'sites'> & { readonly sites: boolean };
  readonly topology: string;
  readonly frozenWeights: readonly string[];
  /** The global model's tensors (float32), in their order on the wire. */
  readonly tensors: readonly TensorShape[];
  /** SHA-256 of the canonical JSON, lower-case hex. */
  readonly digest: string;
}

/**
 * `config` laid over a model's recipe, section by section: what the configuration says wins key by key, an optimizer
 * is taken whole, and `steps` displaces the recipe's `epochs` (and the other way round).
 */
export function withRecipe(config: FederationConfig, recipe: Partial<FederationConfig>): FederationConfig {
  const training = { ...recipe.training, ...config.training };
  if (config.training?.steps !== undefined) delete training.epochs;
  if (config.training?.epochs !== undefined) delete training.steps;
  if (config.training?.epochs !== undefined && config.training.steps !== undefined)
    training.epochs = config.training.epochs;
  return {
    ...recipe,
    ...config,
    input: { ...recipe.input, ...config.input },
    augmentation: { ...recipe.augmentation, ...config.augmentation },
    training,
  };
}

/**
 * The configuration with every default filled in and the model's facts beside it. Without a recipe the input is
 * 224x224, the optimizer Adam at 1e-3, one epoch a round, and the loss follows the number of classes.
 *
 * @throws ConfigError FED_CONFIG_INVALID
 */
export function resolveFederation(
  config: FederationConfig,
  artifact: ModelArtifact,
  file = 'configuration',
): ResolvedFederation {
  const settings = checkConfig(config, file);
  const frozen = new Set(artifact.frozenWeights);
  const names = artifact.weights.map((w) => w.name);
  const issues = [];
  if (new Set(names).size !== names.length) {
    issues.push({ path: 'model', value: artifact.name, message: 'two of its weights have the same name' });
  }
  if (artifact.weights.every((w) => frozen.has(w.name))) {
    issues.push({
      path: 'training.frozenLayers',
      value: undefined,
      message: 'every weight of the model is frozen; nothing would be trained',
    });
  }
  for (const weight of artifact.weights) {
    if (weight.dtype !== 'float32') {
      issues.push({
        path: 'model',
        value: weight.name,
        message: `weights must be float32, not ${weight.dtype}`,
      });
    }
  }
  const { secureAggregation } = settings.privacy ?? {};
  if (secureAggregation && config.cohort?.quorum === undefined)
    settings.cohort.quorum = Math.max(FEWEST_SITES, settings.cohort.quorum);
  if (secureAggregation && settings.cohort.quorum < FEWEST_SITES) {
    issues.push({
      path: 'cohort.quorum',
      value: String(settings.cohort.quorum),
      message: `secure aggregation hides nobody among fewer than ${FEWEST_SITES} sites; set it to ${FEWEST_SITES} or more`,
    });
  }
  const { size } = settings.cohort;
  if (secureAggregation && typeof size === 'number' && Number.isInteger(size) && size < FEWEST_SITES) {
    issues.push({
      path: 'cohort.size',
      value: String(size),
      message: `secure aggregation hides nobody among fewer than ${FEWEST_SITES} sites; ask ${FEWEST_SITES} or more`,
    });
  }
  const unsound = unsoundModel(settings.privacy, artifact.topology);
  if (unsound !== undefined) issues.push({ path: 'model', value: artifact.name, message: unsound });
  const exchanged = artifact.weights.filter(({ name }) => !frozen.has(name));
  const dimension = exchanged.reduce((n, { data }) => n + data.length, 0);
  const noise = unsoundNoise(settings.privacy, dimension);
  if (noise !== undefined)
    issues.push({
      path: 'privacy.differentialPrivacy.noiseMultiplier',
      value: String(settings.privacy?.differentialPrivacy?.noiseMultiplier),
      message: noise,
    });
  if (issues.length > 0) throw new ConfigError(file, issues);

  const { server, invites, runDir, model: _model, ...rest } = settings;
  const described = {
    ...rest,
    model: artifact.name,
    strategy: {
      ...settings.strategy,
      weighting:
        settings.strategy.weighting ??
        (settings.privacy?.differentialPrivacy?.unit === 'site' ? 'uniform' : 'examples'),
    },
    evaluation: {
      ...settings.evaluation,
      sites: settings.evaluation.sites ?? settings.privacy === undefined,
    },
    input: section(inputSchema, { height: 224, width: 224, ...defined(settings.input) }, file),
    training: section(trainingSchema, { ...trainingDefaults(settings), ...defined(settings.training) }, file),
    topology: artifact.topology,
    frozenWeights: [...artifact.frozenWeights],
    tensors: artifact.weights.map(({ name, shape }) => ({ name, shape: [...shape] })),
  };
  const plain = JSON.parse(JSON.stringify(described)) as Omit<
    ResolvedFederation,
    'server' | 'invites' | 'runDir' | 'digest'
  >;
  return {
    ...plain,
    server,
    invites,
    ...(runDir === undefined ? {} : { runDir }),
    digest: sha256(canonicalJson(plain)),
  };
}

/** What a site is told of the federation. */
export function federationView(
  federation: ResolvedFederation,
  runId: string,
  modelBytes: number,
): FederationView {
  const {
    name,
    seed,
    rounds,
    classes,
    input,
    augmentation,
    training,
    privacy,
    strategy,
    maxUnreadableShare,
    topology,
    frozenWeights,
    digest,
  } = federation;
  return {
    name,
    runId,
    configDigest: digest,
    seed,
    rounds,
    classes: [...classes],
    input,
    augmentation,
    training,
    ...(privacy === undefined ? {} : { privacy }),
    ...(privacy?.secureAggregation === undefined ? {} : { weighting: strategy.weighting }),
    maxUnreadableShare,
    topology,
    frozenWeights: [...frozenWeights],
    modelBytes,
  };
}

function trainingDefaults(settings: FederationSettings) {
  return {
    optimizer: { name: 'adam', learningRate: 1e-3 },
    loss: settings.classes.length === 2 ? 'binaryCrossentropy' : 'categoricalCrossentropy',
    ...(settings.training.steps === undefined ? { epochs: 1 } : {}),
  };
}

function section<S extends typeof inputSchema | typeof trainingSchema>(
  schema: S,
  value: unknown,
  file: string,
): S['_zod']['output'] {
  const result = schema.safeParse(value);
  if (!result.success) throw new ConfigError(file, describeIssues(result.error, schema, value));
  return result.data;
}

function defined<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as Partial<T>;
}
