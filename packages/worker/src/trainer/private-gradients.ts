/**
 * The gradient of DP-SGD (Abadi et al. 2016, arXiv 1607.00133): each record's gradient is clipped, they are added up,
 * noise is added to the sum, and the whole is divided by the batch size that is expected. Where the layers allow it, one
 * backward pass over the batch gives every record's norm and the clipped sum (see ghost-layers.ts; that the same pass
 * serves for both is Bu et al. 2023, arXiv 2210.00038); else records go through the model one at a time.
 */
import { tf } from '@tributary/engine';
import { createGaussianNoise, noiseStdDev, type RandomWords } from '@tributary/privacy';
import { WorkerError } from '../errors.ts';
import { type GhostLayer, ghostLayer } from './ghost-layers.ts';
import { allLayers } from './local-model.ts';
import type { Objective } from './objectives.ts';
import { tapLayers } from './taps.ts';

export interface PrivateGradientSettings {
  /** Largest L2 norm of a record's gradient, over all trained weights together, above 0. */
  readonly clippingNorm: number;
  /** Standard deviation of the noise on the sum of gradients, over the clipping norm; above 0. */
  readonly noiseMultiplier: number;
  /**
   * What the noised sum is divided by: sampling rate times records, known beforehand. Never the number of records that a
   * batch happens to have: that is private.
   */
  readonly expectedBatchSize: number;
  /** Where noise comes from. @default node:crypto */
  readonly random?: RandomWords | undefined;
}

export interface PrivateModel {
  readonly model: tf.LayersModel;
  /** The variables that gradients are taken for. */
  readonly trainable: readonly tf.Variable[];
  readonly objective: Pick<Objective, 'loss' | 'encode'>;
  /** Weight of a record's loss by its class. @default 1 each */
  readonly classWeights?: Float32Array | undefined;
}

/** Records with their labels; none is fine. */
export interface Records {
  readonly images: Float32Array;
  /** n, then the shape of one record. */
  readonly shape: readonly number[];
  readonly labels: Int32Array;
}

export interface PrivateGradients {
  /** `ghost`: one pass over many records; `microbatches`: one pass a record, the layers not allowing for more. */
  readonly method: 'ghost' | 'microbatches';
  /** Adds the records' clipped gradients to the sum of the batch that is being made. Nothing is kept of `records`. */
  add(records: Records): Promise<void>;
  /**
   * Ends the batch: noises its sum, which an empty batch has too, and begins the next. The tensors are the caller's, by
   * variable name. What `seen` tells is about private records and has no noise: it stays at this site.
   */
  finish(): { readonly gradients: Record<string, tf.Tensor>; readonly seen: Seen };
}

export interface Seen {
  readonly records: number;
  /** Fraction of the records whose gradient was above the clipping norm; 0 of none. */
  readonly clippedFraction: number;
  /** Mean over the records, or 0 of none. */
  readonly loss: number;
}

/** Most records that go through the model at a time. */
const MAX_CHUNK = 1024;
/** What the records' gradients may take while they go through, in floats: 512 MiB. */
const MAX_FLOATS = 2 ** 27;

/**
 * Returns what computes private gradients of a model, batch after batch. Batches are Poisson samples and differ in size;
 * they are padded to one of a few sizes, so that a lazy engine meets the same graphs again.
 *
 * Throws FED_TRAINER_BATCH_NORM for a model with a batch normalisation that trains, and RangeError for a number out of its
 * range. `method: 'microbatches'` asks for one pass a record whatever the layers.
 */
export function createPrivateGradients(
  target: PrivateModel,
  settings: PrivateGradientSettings,
  { method: asked }: { readonly method?: 'microbatches' } = {},
): PrivateGradients {
  const { trainable } = target;
  const { clippingNorm, noiseMultiplier, expectedBatchSize, random } = settings;
  if (!(expectedBatchSize > 0 && expectedBatchSize < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`expectedBatchSize must be a positive, finite number; got ${expectedBatchSize}`);
  }
  refuseBatchNormalization(target.model);
  const dimension = trainable.reduce((sum, { size }) => sum + size, 0);
  const stdDev = noiseStdDev({ clippingNorm, noiseMultiplier, dimension });
  const noise = createGaussianNoise({ stdDev, random });
  const layers = asked === 'microbatches' ? undefined : ghostLayers(target.model, trainable);
  const run = layers === undefined ? oneByOne(target, clippingNorm) : together(target, layers, clippingNorm);
  const maxChunk = layers === undefined ? MAX_CHUNK : chunkLimit(layers);

  /** By trainable variable, once there is something. */
  let sums: readonly Float32Array[] | undefined;
  let records = 0;
  let clipped = 0;
  let loss = 0;

  return {
    method: layers === undefined ? 'microbatches' : 'ghost',
    async add(batch) {
      const count = batch.labels.length;
      for (let first = 0; first < count; first += maxChunk) {
        const part = slice(batch, first, Math.min(count, first + maxChunk));
        const real = part.labels.length;
        const size = layers === undefined ? real : paddedSize(real, expectedBatchSize, maxChunk);
        const [tallies, ...found] = await run(pad(part, size), real);
        if (sums === undefined) sums = found;
        else for (const [i, values] of found.entries()) addInto(sums[i]!, values);
        clipped += tallies![0]!;
        loss += tallies![1]!;
      }
      records += count;
    },
    finish() {
      const gradients: Record<string, tf.Tensor> = {};
      for (const [i, { name, shape, size }] of trainable.entries()) {
        const values = sums?.[i] ?? new Float32Array(size);
        noise.addTo(values, 1 / expectedBatchSize);
        gradients[name] = tensorOf(values, shape);
      }
      const seen = {
        records,
        clippedFraction: records === 0 ? 0 : clipped / records,
        loss: records === 0 ? 0 : loss / records,
      };
      sums = undefined;
      [records, clipped, loss] = [0, 0, 0];
      return { gradients, seen };
    },
  };
}

/**
 * Gives how many records were clipped and the sum of their losses, and then the clipped sum for each trainable variable:
 * arrays that are the caller's. Only the first `count` records are real; the others have a loss of 0.
 */
type Run = (padded: Records, count: number) => Promise<Float32Array[]>;

/** All records in one pass. */
function together(target: PrivateModel, ghosts: readonly GhostLayer[], clippingNorm: number): Run {
  const { model, trainable, objective } = target;
  const layers = ghosts.map(({ layer }) => layer);
  return async (records, count) => {
    const results = tf.tidy(() => {
      const weights = lossWeights(target, records.labels, count);
      const { losses, taps } = tapLayers(layers, () => {
        const inputs = tf.tensor(records.images, [...records.shape]);
        const outputs = applyModel(model, inputs);
        return tf.mul(objective.loss(objective.encode(records.labels), outputs), weights);
      });
      const parts = taps.map(({ input, gradient }, i) => ghosts[i]!.records(input, gradient));
      const norms = tf.sqrt(tf.addN(parts.map(({ squaredNorms }) => squaredNorms))) as tf.Tensor1D;
      const factors = clippingFactors(norms, clippingNorm);
      const sums = new Map(parts.flatMap((part) => [...part.sum(factors)]));
      const result = [
        tally(norms, losses, clippingNorm),
        ...trainable.map((variable) => sums.get(variable)!),
      ];
      tf.dispose([losses, ...taps.flatMap(({ input, gradient }) => [input, gradient])]);
      return result;
    });
    try {
      return await readAll(results);
    } finally {
      tf.dispose(results);
    }
  };
}

/** One record at a time, each with a backward pass of its own. */
function oneByOne(target: PrivateModel, clippingNorm: number): Run {
  const { model, trainable, objective } = target;
  return async (records, count) => {
    const shapes = [[2], ...trainable.map(({ shape }) => shape)];
    const totals = tf.tidy(() => shapes.map((shape) => tf.variable(tf.zeros(shape), false)));
    try {
      for (let i = 0; i < count; i++) {
        const one = slice(records, i, i + 1);
        tf.tidy(() => {
          const weights = lossWeights(target, one.labels, 1);
          let losses: tf.Tensor | undefined;
          const { grads } = tf.variableGrads(() => {
            const inputs = tf.tensor(one.images, [...one.shape]);
            const outputs = applyModel(model, inputs);
            losses = tf.keep(tf.mul(objective.loss(objective.encode(one.labels), outputs), weights));
            return tf.sum(losses);
          }, [...trainable]);
          const gradients = trainable.map(({ name, shape }) => grads[name] ?? tf.zeros(shape));
          const squares = tf.addN(gradients.map((gradient) => tf.sum(tf.square(gradient))));
          const norms = tf.reshape(tf.sqrt(squares), [1]) as tf.Tensor1D;
          const factor = clippingFactors(norms, clippingNorm);
          const clipped = gradients.map((gradient) => tf.mul(gradient, factor));
          for (const [j, part] of [tally(norms, losses!, clippingNorm), ...clipped].entries()) {
            totals[j]!.assign(tf.add(totals[j]!, part));
          }
          losses!.dispose();
        });
      }
      return await readAll(totals);
    } finally {
      tf.dispose(totals);
    }
  };
}

/** min(1, clippingNorm / norm), 1 for a norm of 0. */
function clippingFactors(norms: tf.Tensor1D, clippingNorm: number): tf.Tensor1D {
  return tf.div(clippingNorm, tf.maximum(norms, clippingNorm));
}

function addInto(sum: Float32Array, values: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (values[i] as number);
}

/** A tensor of `values` themselves, which are its own from now on: tf.tensor would copy them. */
function tensorOf(values: Float32Array, shape: number[]): tf.Tensor {
  const dataId = {};
  tf.backend().move(dataId, values, shape, 'float32', 1);
  return tf.engine().makeTensorFromDataId(dataId, shape, 'float32');
}

/** How many norms are above the clipping norm, and the sum of the losses: [2]. */
function tally(norms: tf.Tensor1D, losses: tf.Tensor, clippingNorm: number): tf.Tensor {
  const clipped = tf.sum(tf.cast(tf.greater(norms, clippingNorm), 'float32'));
  return tf.stack([clipped, tf.sum(losses)]);
}

function readAll(tensors: readonly tf.Tensor[]): Promise<Float32Array[]> {
  return Promise.all(tensors.map((tensor) => tensor.data() as Promise<Float32Array>));
}

/** By record: its class's weight, or 0 from `count` on. */
function lossWeights({ classWeights }: PrivateModel, labels: Int32Array, count: number): tf.Tensor1D {
  return tf.tensor1d(Float32Array.from(labels, (label, i) => (i < count ? (classWeights?.[label] ?? 1) : 0)));
}

/**
 * Returns the ghosts of all layers that train, or undefined when a trained variable is in none: a norm that lacks one
 * would clip too little.
 */
function ghostLayers(model: tf.LayersModel, trainable: readonly tf.Variable[]): GhostLayer[] | undefined {
  const trained = new Set(trainable);
  const layers: GhostLayer[] = [];
  for (const layer of allLayers(model)) {
    const own = layer.weights.filter((weight) => trained.has(weight.read() as tf.Variable));
    if (own.length === 0) continue;
    const ghost = ghostLayer(layer, trained);
    if (ghost === undefined) return undefined;
    layers.push(ghost);
    for (const weight of own) trained.delete(weight.read() as tf.Variable);
  }
  return trained.size === 0 && layers.length > 0 ? layers : undefined;
}

/** As many records as fit MAX_FLOATS, at most MAX_CHUNK. */
function chunkLimit(layers: readonly GhostLayer[]): number {
  const floats = layers.reduce((sum, { floatsARecord }) => sum + floatsARecord, 0);
  return Math.max(1, Math.min(MAX_CHUNK, Math.floor(MAX_FLOATS / floats)));
}

/**
 * The next multiple of about the square root of the expected size, which is the standard deviation of a Poisson batch: so
 * seven sizes hold nearly all batches, and half a standard deviation is padding.
 */
function paddedSize(count: number, expected: number, limit: number): number {
  const step = Math.ceil(Math.sqrt(expected));
  return Math.min(limit, Math.ceil(count / step) * step);
}

/** Pads with copies of the first record, whose numbers are as good as any. */
function pad(records: Records, size: number): Records {
  const count = records.labels.length;
  if (count === size) return records;
  const length = records.images.length / count;
  const images = new Float32Array(size * length);
  images.set(records.images);
  for (let i = count; i < size; i++) images.set(records.images.subarray(0, length), i * length);
  const labels = new Int32Array(size).fill(records.labels[0]!);
  labels.set(records.labels);
  return { images, labels, shape: [size, ...records.shape.slice(1)] };
}

function slice({ images, shape, labels }: Records, start: number, end: number): Records {
  if (start === 0 && end === labels.length) return { images, shape, labels };
  const length = images.length / labels.length;
  return {
    images: images.subarray(start * length, end * length),
    shape: [end - start, ...shape.slice(1)],
    labels: labels.subarray(start, end),
  };
}

function refuseBatchNormalization(model: tf.LayersModel): void {
  const layer = batchNormalizations(model).find(({ trainable }) => trainable);
  if (layer === undefined) return;
  throw new WorkerError(
    'FED_TRAINER_BATCH_NORM',
    `The layer "${layer.name}" normalises each record by the others of its batch, so no record's influence can be ` +
      'bounded: no differential privacy. Use layer normalisation instead, or none, or freeze it.',
  );
}

function batchNormalizations(model: tf.LayersModel): tf.layers.Layer[] {
  return allLayers(model).filter((layer) => layer.getClassName() === 'BatchNormalization');
}

/** Applies the model as in training, but for batch normalisations, which are frozen: they use the statistics they have. */
function applyModel(model: tf.LayersModel, inputs: tf.Tensor): tf.Tensor2D {
  const frozen = batchNormalizations(model).map((layer) => ({ layer, call: layer.call }));
  for (const { layer, call } of frozen) {
    layer.call = (given, kwargs) => call.call(layer, given, { ...kwargs, training: false });
  }
  try {
    return model.apply(inputs, { training: true }) as tf.Tensor2D;
  } finally {
    for (const { layer, call } of frozen) layer.call = call;
  }
}
