/**
 * One round of local training, and evaluation. A round is a pure function of the global weights, the federation, the
 * site's name, its files and the round's number: the seed comes from them, the optimizer is fresh, and what TensorFlow.js
 * draws itself (dropout) is drawn from that seed. So an attempt that crashed can be made again and gives the same bytes.
 */
import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { repeatable, tf, withSeededRandom } from '@tributary/engine';
import type { RandomWords } from '@tributary/privacy';
import { crashPoint, type FederationView, type Tensor } from '@tributary/shared-protocol';
import { WorkerError } from '../errors.ts';
import type { BatchedTf } from '../images/batched.ts';
import type { LocalModel } from './local-model.ts';
import { createObjective, type Objective, predictedClasses } from './objectives.ts';
import { createOptimizer, decayWeights } from './optimizer.ts';

/** Examples as a trainer needs them; openShard's shard is one. */
export interface TrainingData {
  readonly report: { readonly trainExamples: number; readonly testExamples: number };
  trainBatches(options: {
    seed: number;
    epochs?: number | undefined;
    steps?: number | undefined;
    tf?: BatchedTf | undefined;
    signal?: AbortSignal | undefined;
  }): AsyncIterable<TrainingBatch>;
  /** Poisson samples, in parts; not asked for where there is no training example. */
  poissonBatches(options: {
    samplingRate: number;
    steps: number;
    random: RandomWords;
    tf?: BatchedTf | undefined;
    signal?: AbortSignal | undefined;
  }): AsyncIterable<TrainingBatch & { readonly endsBatch: boolean }>;
  testBatches(options?: { signal?: AbortSignal | undefined }): AsyncIterable<TrainingBatch>;
}

export interface TrainingBatch {
  /** n examples, one after the other; valid until the next batch is asked for. */
  readonly images: Float32Array;
  /** n, then the shape of one example. */
  readonly shape: readonly number[];
  /** Class index, n of them. */
  readonly labels: Int32Array;
}

export interface JobContext {
  readonly federation: FederationView;
  readonly siteName: string;
  readonly local: LocalModel;
  readonly data: TrainingData;
}

export interface JobOptions {
  readonly signal?: AbortSignal;
  /** Share of the job that is done, in [0, 1]. */
  readonly onProgress?: (progress: number) => void;
  /** Called at the end of training. Apart from the result, which is the same however long it took. */
  readonly onTiming?: (timing: Timing) => void;
}

/** Of the loop over batches, in millis. */
export interface Timing {
  readonly totalMs: number;
  /** What went by while no batch was ready. */
  readonly waitedMs: number;
}

export interface TrainResult {
  readonly numExamples: number;
  /** Means over the examples of the last epoch, as seen while training. */
  readonly metrics: Readonly<Record<string, number>>;
  /** local − global. */
  readonly update: Tensor[];
}

export interface EvaluateResult {
  readonly numExamples: number;
  /** Means over the test examples; empty when there are none. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Examples by true class (row) and predicted class (column). */
  readonly confusion: number[][];
}

/** Returns the seed of a site's round, in [0, 2^32): the first four bytes of a SHA-256, big-endian. */
export function roundSeed(seed: number, siteName: string, round: number): number {
  return createHash('sha256').update(`${seed}|${siteName}|${round}`).digest().readUInt32BE(0);
}

/**
 * Trains from the global weights for the plan's epochs or steps and returns the update, metrics `loss` and the plan's.
 *
 * Throws FED_TRAINER_NO_EXAMPLES, FED_TRAINER_DIVERGED when the loss is no longer a number, FED_MODEL_WEIGHTS when the
 * weights don't fit, those of createObjective, and the signal's reason (checked after each step).
 */
export async function trainRound(
  context: JobContext,
  job: { readonly round: number; readonly global: readonly Tensor[]; readonly learningRate: number },
  options: JobOptions = {},
): Promise<TrainResult> {
  const { federation, local, data } = context;
  const { training } = federation;
  const { round, global, learningRate } = job;
  const { trainExamples } = data.report;
  if (trainExamples === 0) {
    throw new WorkerError('FED_TRAINER_NO_EXAMPLES', 'There are no training images here, only a test set.');
  }
  const objective = objectiveOf(context);
  const classWeights = classWeightsOf(federation);
  const stepsAnEpoch = Math.ceil(trainExamples / training.batchSize);
  const steps = training.steps ?? stepsAnEpoch * (training.epochs ?? 1);
  const seed = roundSeed(federation.seed, context.siteName, round);
  const optimizer = createOptimizer(training.optimizer, learningRate);
  const trainStep = repeatable((...inputs: StepInputs) => takeStep(local, optimizer, objective, inputs));
  let averages = createAverages();
  try {
    local.setWeights(global);
    const batches = data.trainBatches({
      seed,
      ...(training.steps === undefined ? { epochs: training.epochs ?? 1 } : { steps: training.steps }),
      tf,
      signal: options.signal,
    });
    let step = 0;
    const clock = createClock();
    for await (const batch of clock.timed(batches)) {
      options.signal?.throwIfAborted();
      if (step % stepsAnEpoch === 0) averages = createAverages();
      decayWeights(local.trainable, learningRate, training.weightDecay);
      const stepSeed = (seed + Math.imul(step, 0x85ebca6b)) | 0;
      const inputs = inputsOf(batch, objective, classWeights);
      const values = await readAndDispose(withSeededRandom(stepSeed, () => trainStep.run(...inputs)));
      tf.dispose(inputs);
      step++;
      if (!Number.isFinite(values['loss'])) throw diverged(values['loss'], step, job);
      averages.add(values, batch.labels.length);
      options.onProgress?.(Math.min(1, step / steps));
      crashPoint('trainer:after-step');
      // Let messages in: an abort can be heard only between two turns.
      await nextTurn();
    }
    options.signal?.throwIfAborted();
    options.onTiming?.(clock.read());
    const update = await local.readUpdate(global);
    return { numExamples: trainExamples, metrics: averages.result(), update };
  } finally {
    trainStep.dispose();
    optimizer.dispose();
  }
}

/** Returns the metrics of the global weights on the site's test examples. Throws as trainRound does. */
export async function evaluateModel(
  context: JobContext,
  job: { readonly global: readonly Tensor[] },
  options: JobOptions = {},
): Promise<EvaluateResult> {
  const { federation, local, data } = context;
  const { testExamples } = data.report;
  const objective = objectiveOf(context);
  const numClasses = federation.classes.length;
  const confusion = Array.from({ length: numClasses }, () => new Array<number>(numClasses).fill(0));
  const averages = createAverages();
  local.setWeights(job.global);
  let done = 0;
  for await (const batch of data.testBatches({ signal: options.signal })) {
    options.signal?.throwIfAborted();
    const { predicted, measured } = tf.tidy(() => {
      const inputs = tf.tensor(batch.images, [...batch.shape]);
      const outputs = local.model.apply(inputs, { training: false }) as tf.Tensor2D;
      const targets = objective.encode(batch.labels);
      return {
        predicted: predictedClasses(outputs),
        measured: measure(objective, targets, outputs, meanOf(objective.loss(targets, outputs))),
      };
    });
    const classes = await predicted.data();
    predicted.dispose();
    averages.add(await readAndDispose(measured), batch.labels.length);
    batch.labels.forEach((label, i) => {
      confusion[label]![classes[i]!]!++;
    });
    done += batch.labels.length;
    options.onProgress?.(Math.min(1, done / testExamples));
    crashPoint('trainer:after-test-batch');
    await nextTurn();
  }
  options.signal?.throwIfAborted();
  return { numExamples: done, metrics: averages.result(), confusion };
}

export function diverged(
  loss: number | undefined,
  step: number,
  { round, learningRate }: { readonly round: number; readonly learningRate: number },
): WorkerError {
  return new WorkerError(
    'FED_TRAINER_DIVERGED',
    `The loss became ${loss} at step ${step} of round ${round} (learning rate ${learningRate}). ` +
      'Lower the learning rate, or look for images or weights that are not numbers.',
  );
}

export function objectiveOf({ federation, local }: JobContext): Objective {
  const { loss, metrics } = federation.training;
  return createObjective({ loss, metrics, units: local.units, numClasses: federation.classes.length });
}

/** Loss weight by class index, or undefined when all weigh 1. */
export function classWeightsOf({ training, classes }: FederationView): Float32Array | undefined {
  if (Object.keys(training.classWeights).length === 0) return undefined;
  return Float32Array.from(classes, (name) => training.classWeights[name] ?? 1);
}

/** Means of a batch by name, not yet read from the engine. */
type Measured = Record<string, tf.Tensor>;

const meanOf = (x: tf.Tensor): tf.Scalar => tf.mean(x);

function measure(
  objective: Objective,
  targets: tf.Tensor2D,
  outputs: tf.Tensor2D,
  loss: tf.Scalar,
): Measured {
  // Losses clip probabilities, and clipping hides a NaN on some engines: 0 * outputs keeps it.
  const measured: Measured = { loss: tf.add(loss, tf.mul(tf.sum(outputs), 0)) };
  for (const [name, metric] of objective.metrics) measured[name] = meanOf(metric(targets, outputs));
  return measured;
}

/** What a step takes: images, targets, and a weight an example where classes have weights. */
type StepInputs = [images: tf.Tensor, targets: tf.Tensor2D, ...weights: tf.Tensor1D[]];

function inputsOf(
  { images, shape, labels }: TrainingBatch,
  objective: Objective,
  classWeights: Float32Array | undefined,
): StepInputs {
  const inputs: StepInputs = [tf.tensor(images, [...shape]), objective.encode(labels)];
  if (classWeights !== undefined)
    inputs.push(tf.tensor1d(Float32Array.from(labels, (label) => classWeights[label]!)));
  return inputs;
}

/** Forward, backward, and one step of the optimizer. */
function takeStep(
  local: LocalModel,
  optimizer: tf.Optimizer,
  objective: Objective,
  [images, targets, weights]: StepInputs,
): Measured {
  const measured = tf.tidy(() => {
    let outputs: tf.Tensor2D | undefined;
    const { value, grads } = tf.variableGrads(() => {
      outputs = local.model.apply(images, { training: true }) as tf.Tensor2D;
      tf.keep(outputs);
      const each = objective.loss(targets, outputs);
      const losses = weights === undefined ? each : tf.mul(each, weights);
      const extra = local.extraLoss();
      return extra === undefined ? meanOf(losses) : tf.add(meanOf(losses), extra);
    }, [...local.trainable]);
    optimizer.applyGradients(grads);
    const result = measure(objective, targets, outputs!, value);
    outputs!.dispose();
    return result;
  });
  local.applyConstraints();
  return measured;
}

async function readAndDispose(measured: Measured): Promise<Record<string, number>> {
  const values: Record<string, number> = {};
  for (const [name, tensor] of Object.entries(measured)) {
    values[name] = (await tensor.data())[0]!;
    tensor.dispose();
  }
  return values;
}

/** Measures a loop over batches: how long it ran, and how much of that it waited for the next. */
export function createClock() {
  const startedAt = performance.now();
  let waitedMs = 0;
  return {
    async *timed<T>(batches: AsyncIterable<T>): AsyncGenerator<T> {
      let askedAt = performance.now();
      for await (const batch of batches) {
        waitedMs += performance.now() - askedAt;
        yield batch;
        askedAt = performance.now();
      }
    },
    read: () => ({ totalMs: performance.now() - startedAt, waitedMs }),
  };
}

/** Averages over examples from averages over batches. */
function createAverages(): {
  add(values: Readonly<Record<string, number>>, examples: number): void;
  result(): Record<string, number>;
} {
  const sums = new Map<string, number>();
  let count = 0;
  return {
    add(values, examples) {
      count += examples;
      for (const [name, value] of Object.entries(values))
        sums.set(name, (sums.get(name) ?? 0) + value * examples);
    },
    result: () => Object.fromEntries([...sums].map(([name, sum]) => [name, sum / count])),
  };
}
