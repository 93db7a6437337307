/**
 * Topology to model. A topology is data from elsewhere: its size is checked first, then its layer classes against the
 * list of those that TensorFlow.js itself has (none of which runs code from the topology), then the number of its
 * parameters while the layers are built, before each allocation.
 */
import { tf } from '@tributary/engine';
import { ModelError } from './errors.ts';
import { isRecord, visitRecords } from './json.ts';

export interface TopologyLimits {
  /** Characters of the JSON text. @default 4,194,304 */
  readonly maxCharacters: number;
  /** Levels of nesting in the JSON. @default 64 */
  readonly maxDepth: number;
  /** Layers, those inside wrappers and nested models counted too. @default 4,096 */
  readonly maxLayers: number;
  /** Parameters of all layers together. @default 500,000,000 */
  readonly maxParameters: number;
}

export const DEFAULT_TOPOLOGY_LIMITS: TopologyLimits = Object.freeze({
  maxCharacters: 4 * 1024 * 1024,
  maxDepth: 64,
  maxLayers: 4096,
  maxParameters: 500_000_000,
});

export interface TopologyOptions {
  readonly limits?: TopologyLimits;
  /**
   * `zeros` builds every weight as zeros, at once and the same each time: right where weights are set afterwards.
   * @default 'zeros'
   */
  readonly initialWeights?: 'zeros' | 'as-written';
}

const CONTAINERS = ['Sequential', 'Model', 'Functional'];
const CELLS = ['SimpleRNNCell', 'GRUCell', 'LSTMCell', 'ConvLSTM2DCell', 'StackedRNNCells'];
/** Every layer class of TensorFlow.js 4.22. */
const LAYERS = [
  ...['InputLayer', 'Dense', 'Activation', 'Dropout', 'SpatialDropout1D', 'Flatten', 'Reshape', 'Permute'],
  ...['RepeatVector', 'Masking', 'Embedding', 'Rescaling', 'Resizing', 'CenterCrop', 'CategoryEncoding'],
  ...['RandomWidth', 'Conv1D', 'Conv2D', 'Conv3D', 'Conv2DTranspose', 'Conv3DTranspose', 'DepthwiseConv2D'],
  ...['SeparableConv2D', 'Cropping2D', 'UpSampling2D', 'ZeroPadding2D', 'ReLU', 'LeakyReLU', 'PReLU', 'ELU'],
  ...['ThresholdedReLU', 'Softmax', 'AveragePooling1D', 'AveragePooling2D', 'AveragePooling3D'],
  ...['MaxPooling1D', 'MaxPooling2D', 'MaxPooling3D', 'GlobalAveragePooling1D', 'GlobalAveragePooling2D'],
  ...[
    'GlobalMaxPooling1D',
    'GlobalMaxPooling2D',
    'Add',
    'Average',
    'Concatenate',
    'Dot',
    'Maximum',
    'Minimum',
  ],
  ...['Multiply', 'BatchNormalization', 'LayerNormalization', 'GaussianNoise', 'GaussianDropout'],
  ...['AlphaDropout', 'Bidirectional', 'TimeDistributed', 'RNN', 'SimpleRNN', 'GRU', 'LSTM', 'ConvLSTM2D'],
];
const KNOWN_CLASSES = new Set([...CONTAINERS, ...CELLS, ...LAYERS]);

/**
 * Returns the model that `topology` (Keras JSON, as LayersModel.toJSON writes it) describes; the caller disposes it.
 *
 * Throws FED_MODEL_TOPOLOGY when the text isn't such JSON or its layers don't fit together, FED_MODEL_LAYER_REFUSED
 * for a layer class that TensorFlow.js hasn't (Lambda among them), FED_MODEL_LIMIT when it is larger than `limits`.
 */
export async function modelFromTopology(
  topology: string,
  options: TopologyOptions = {},
): Promise<tf.LayersModel> {
  const limits = options.limits ?? DEFAULT_TOPOLOGY_LIMITS;
  const json = parseTopology(topology, limits);
  const stopWatching = watchWeights(limits.maxParameters, options.initialWeights !== 'as-written');
  let building: Promise<tf.LayersModel>;
  try {
    // The layers are built before the first await inside, so the watch need not outlive this call.
    building = tf.models.modelFromJSON(json as Parameters<typeof tf.models.modelFromJSON>[0]);
  } finally {
    stopWatching();
  }
  try {
    return await building;
  } catch (error) {
    if (error instanceof ModelError) throw error;
    throw new ModelError('FED_MODEL_TOPOLOGY', `The topology's layers don't fit together: ${String(error)}`, {
      cause: error,
    });
  }
}

/** Returns the topology as JSON, checked but not built; throws as modelFromTopology does. */
export function parseTopology(topology: string, limits: TopologyLimits = DEFAULT_TOPOLOGY_LIMITS): object {
  if (topology.length > limits.maxCharacters) {
    throw new ModelError(
      'FED_MODEL_LIMIT',
      `The topology has ${topology.length} characters; at most ${limits.maxCharacters} are read.`,
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(topology);
  } catch (error) {
    throw new ModelError('FED_MODEL_TOPOLOGY', `The topology is not JSON: ${String(error)}`, {
      cause: error,
    });
  }
  if (!isRecord(json) || typeof json['class_name'] !== 'string' || !isRecord(json['config'])) {
    throw new ModelError(
      'FED_MODEL_TOPOLOGY',
      'The topology has no class_name and config; give what LayersModel.toJSON() returns.',
    );
  }
  if (!CONTAINERS.includes(json['class_name'])) {
    throw new ModelError(
      'FED_MODEL_TOPOLOGY',
      `The topology is a "${json['class_name']}"; a model is one of ${CONTAINERS.join(', ')}.`,
    );
  }
  checkLayers(json, limits);
  return json;
}

function checkLayers(json: Record<string, unknown>, limits: TopologyLimits): void {
  let layers = 0;
  visitRecords(
    json,
    (record, key) => {
      const className = record['class_name'];
      if (typeof className !== 'string' || !LAYER_KEYS.has(key)) return;
      layers++;
      if (!KNOWN_CLASSES.has(className)) {
        throw new ModelError(
          'FED_MODEL_LAYER_REFUSED',
          `The topology has a layer of class "${className}"${layerName(record)}, which TensorFlow.js does not have.` +
            (className.includes('Lambda') ? ' A Lambda carries code, and code never travels.' : ''),
        );
      }
      if (layers > limits.maxLayers) {
        throw new ModelError('FED_MODEL_LIMIT', `The topology has more than ${limits.maxLayers} layers.`);
      }
    },
    limits.maxDepth,
  );
}

/** Where a topology holds layers, as against initializers, constraints and regularizers. */
const LAYER_KEYS = new Set(['', 'layers', 'layer', 'backward_layer', 'cell', 'cells']);

function layerName(record: Record<string, unknown>): string {
  const config = record['config'];
  return isRecord(config) && typeof config['name'] === 'string' ? ` ("${config['name']}")` : '';
}

/** Makes every layer count its weights before they are allocated, and fill them with zeros; returns the way back. */
function watchWeights(maxParameters: number, zeros: boolean): () => void {
  const prototype = tf.layers.Layer.prototype as unknown as { addWeight: AddWeight };
  const original = prototype.addWeight;
  let parameters = 0;
  prototype.addWeight = function (
    name,
    shape,
    dtype,
    initializer,
    regularizer,
    trainable,
    constraint,
    makeInitializer,
  ) {
    parameters += shape.reduce<number>((product, size) => product * (size ?? 0), 1);
    if (parameters > maxParameters) {
      throw new ModelError(
        'FED_MODEL_LIMIT',
        `The model has more than ${maxParameters} parameters, reached at "${this.name}/${name}" of shape [${shape}].`,
      );
    }
    const [first, make] = zeros
      ? [tf.initializers.zeros(), tf.initializers.zeros]
      : [initializer, makeInitializer];
    return original.call(this, name, shape, dtype, first, regularizer, trainable, constraint, make);
  };
  return () => {
    prototype.addWeight = original;
  };
}
type AddWeight = (
  this: tf.layers.Layer,
  name: string,
  shape: readonly (number | null)[],
  dtype: unknown,
  initializer: unknown,
  regularizer: unknown,
  trainable: unknown,
  constraint: unknown,
  makeInitializer: unknown,
) => tf.LayerVariable;
