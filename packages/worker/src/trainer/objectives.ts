/**
 * Losses and metrics by their Keras names, in either spelling (binaryCrossentropy, binary_crossentropy). Each maps
 * targets and outputs, [n, units] both, to one number an example, so that class weights and averages over examples
 * are exact whatever the batch sizes.
 */
import { tf } from '@tributary/engine';
import { WorkerError } from '../errors.ts';

/** One number for each of the n examples: [n]. */
export type PerExample = (targets: tf.Tensor2D, outputs: tf.Tensor2D) => tf.Tensor;

export interface Objective {
  /** Gives the loss of each example. */
  readonly loss: PerExample;
  /** By the names under which they are reported. */
  readonly metrics: ReadonlyMap<string, PerExample>;
  /** Turns class indices into what the loss compares outputs with: [n, 1] or one-hot [n, units]. */
  encode(labels: Int32Array): tf.Tensor2D;
}

/** Keras's fuzz factor: probabilities are kept this far from 0 and 1. */
const EPSILON = 1e-7;
const TOP_K = 5;

/**
 * Returns the objective of a model with `units` outputs for `numClasses` classes: one output tells two classes apart,
 * any other number has to be that of the classes.
 *
 * Throws FED_TRAINER_OUTPUT when they don't fit, FED_TRAINER_LOSS_UNKNOWN and FED_TRAINER_METRIC_UNKNOWN with the
 * names that there are.
 */
export function createObjective(plan: {
  readonly loss: string;
  readonly metrics: readonly string[];
  readonly units: number;
  readonly numClasses: number;
}): Objective {
  const { units, numClasses } = plan;
  if (units !== numClasses && !(units === 1 && numClasses === 2)) {
    throw new WorkerError(
      'FED_TRAINER_OUTPUT',
      `The model has ${units} outputs and the federation ${numClasses} classes. A model has one output a class, ` +
        'or a single one for two classes.',
    );
  }
  const loss = lookUp(LOSSES, plan.loss, 'FED_TRAINER_LOSS_UNKNOWN', 'loss');
  if (units === 1 && CATEGORICAL.has(loss)) {
    throw new WorkerError(
      'FED_TRAINER_OUTPUT',
      `The loss "${plan.loss}" compares classes, and the model has a single output. Use binaryCrossentropy.`,
    );
  }
  const metrics = new Map<string, PerExample>();
  for (const name of plan.metrics) {
    const accuracy =
      units === 1 || loss === LOSSES['binarycrossentropy'] ? binaryAccuracy : categoricalAccuracy;
    const known = /^acc(uracy)?$/i.test(name)
      ? accuracy
      : lookUp(METRICS, name, 'FED_TRAINER_METRIC_UNKNOWN', 'metric');
    metrics.set(/^acc$/i.test(name) ? 'accuracy' : name, known);
  }
  return { loss, metrics, encode: (labels) => encodeLabels(labels, units) };
}

/** Returns the class that each row of outputs names: the largest, or 1 above one half for a single output. */
export function predictedClasses(outputs: tf.Tensor2D): tf.Tensor {
  return outputs.shape[1] === 1
    ? tf.cast(tf.greater(tf.reshape(outputs, [-1]), 0.5), 'int32')
    : tf.argMax(outputs, 1);
}

function encodeLabels(labels: Int32Array, units: number): tf.Tensor2D {
  if (units === 1) return tf.tensor2d(Float32Array.from(labels), [labels.length, 1]);
  const oneHot = new Float32Array(labels.length * units);
  labels.forEach((label, i) => {
    oneHot[i * units + label] = 1;
  });
  return tf.tensor2d(oneHot, [labels.length, units]);
}

function lookUp(
  table: Readonly<Record<string, PerExample>>,
  name: string,
  code: 'FED_TRAINER_LOSS_UNKNOWN' | 'FED_TRAINER_METRIC_UNKNOWN',
  kind: string,
): PerExample {
  const key = name.replaceAll('_', '').toLowerCase();
  if (Object.hasOwn(table, key)) return table[key]!;
  throw new WorkerError(code, `There is no ${kind} "${name}". Known are ${Object.keys(NAMES).join(', ')}.`);
}

const clipped = (outputs: tf.Tensor2D): tf.Tensor2D => tf.clipByValue(outputs, EPSILON, 1 - EPSILON);

const meanOf = (x: tf.Tensor): tf.Tensor => tf.mean(x, -1);

/** -[t log p + (1 - t) log(1 - p)], averaged over outputs. */
const binaryCrossentropy: PerExample = (targets, outputs) => {
  const p = clipped(outputs);
  const positive = tf.mul(targets, tf.log(p));
  const negative = tf.mul(tf.sub(1, targets), tf.log(tf.sub(1, p)));
  return meanOf(tf.neg(tf.add(positive, negative)));
};

/** -sum t log p, over probabilities that are made to sum to 1 first, as Keras does. */
const categoricalCrossentropy: PerExample = (targets, outputs) => {
  const p = tf.clipByValue(tf.div(outputs, tf.sum(outputs, -1, true)), EPSILON, 1 - EPSILON);
  return tf.neg(tf.sum(tf.mul(targets, tf.log(p)), -1));
};

const meanSquaredError: PerExample = (targets, outputs) => meanOf(tf.squaredDifference(targets, outputs));
const meanAbsoluteError: PerExample = (targets, outputs) => meanOf(tf.abs(tf.sub(targets, outputs)));

/** Targets 0 and 1 are read as -1 and 1. */
const signed = (targets: tf.Tensor2D): tf.Tensor2D => tf.sub(tf.mul(targets, 2), 1);
const hinge: PerExample = (targets, outputs) =>
  meanOf(tf.maximum(0, tf.sub(1, tf.mul(signed(targets), outputs))));
const squaredHinge: PerExample = (targets, outputs) =>
  meanOf(tf.square(tf.maximum(0, tf.sub(1, tf.mul(signed(targets), outputs)))));
const categoricalHinge: PerExample = (targets, outputs) => {
  const own = tf.sum(tf.mul(targets, outputs), -1);
  const others = tf.max(tf.mul(tf.sub(1, targets), outputs), -1);
  return tf.maximum(0, tf.add(tf.sub(others, own), 1));
};
const kullbackLeiblerDivergence: PerExample = (targets, outputs) => {
  const t = clipped(targets);
  return tf.sum(tf.mul(t, tf.log(tf.div(t, clipped(outputs)))), -1);
};
const poisson: PerExample = (targets, outputs) =>
  meanOf(tf.sub(outputs, tf.mul(targets, tf.log(tf.add(outputs, EPSILON)))));
/** log(cosh(e)) = e + softplus(-2e) - log 2, which does not overflow. */
const logcosh: PerExample = (targets, outputs) => {
  const error = tf.sub(outputs, targets);
  return meanOf(tf.sub(tf.add(error, tf.softplus(tf.mul(error, -2))), Math.LN2));
};

const binaryAccuracy: PerExample = (targets, outputs) =>
  meanOf(tf.cast(tf.equal(tf.greater(outputs, 0.5), tf.greater(targets, 0.5)), 'float32'));
const categoricalAccuracy: PerExample = (targets, outputs) =>
  tf.cast(tf.equal(tf.argMax(targets, -1), tf.argMax(outputs, -1)), 'float32');
const topKCategoricalAccuracy: PerExample = (targets, outputs) => {
  const k = Math.min(TOP_K, outputs.shape[1]);
  const own = tf.sum(tf.mul(targets, outputs), -1, true);
  const better = tf.sum(tf.cast(tf.greater(outputs, own), 'float32'), -1);
  return tf.cast(tf.less(better, k), 'float32');
};

const NAMED_LOSSES = {
  binaryCrossentropy,
  categoricalCrossentropy,
  // Labels are class indices here; they become one-hot for either loss.
  sparseCategoricalCrossentropy: categoricalCrossentropy,
  meanSquaredError,
  mse: meanSquaredError,
  meanAbsoluteError,
  mae: meanAbsoluteError,
  hinge,
  squaredHinge,
  categoricalHinge,
  kullbackLeiblerDivergence,
  poisson,
  logcosh,
};
const NAMES: Readonly<Record<string, PerExample>> = {
  ...NAMED_LOSSES,
  accuracy: categoricalAccuracy,
  binaryAccuracy,
  categoricalAccuracy,
  sparseCategoricalAccuracy: categoricalAccuracy,
  topKCategoricalAccuracy,
};
const CATEGORICAL = new Set<PerExample>([categoricalCrossentropy, categoricalHinge]);
const LOSSES = lowerCased(NAMED_LOSSES);
const METRICS = lowerCased(NAMES);

function lowerCased(table: Readonly<Record<string, PerExample>>): Record<string, PerExample> {
  return Object.fromEntries(Object.entries(table).map(([name, compute]) => [name.toLowerCase(), compute]));
}
