/**
 * One round of local training with differential privacy for each record: DP-SGD (Abadi et al. 2016, arXiv 1607.00133)
 * over Poisson batches. What leaves the site is the update alone: it has the noise, and a loss or an accuracy would not.
 * Batches and noise come from node:crypto and not from the run's seed, so that a round that is trained again is another
 * release: whoever accounts counts every attempt whose update was given away.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { tf } from '@tributary/engine';
import { cryptoWords, poissonSampling, type RandomWords } from '@tributary/privacy';
import { crashPoint, type Tensor } from '@tributary/shared-protocol';
import { WorkerError } from '../errors.ts';
import { createOptimizer, decayWeights } from './optimizer.ts';
import { createPrivateGradients, type Seen } from './private-gradients.ts';
import {
  classWeightsOf,
  createClock,
  diverged,
  type JobContext,
  type JobOptions,
  objectiveOf,
  type TrainResult,
} from './train.ts';

/** What each record of a site is promised. */
export interface RecordPrivacy {
  /** Largest L2 norm of a record's gradient, above 0. */
  readonly clippingNorm: number;
  /** Standard deviation of the noise on the sum of gradients, over the clipping norm; above 0. */
  readonly noiseMultiplier: number;
}

export interface PrivateJobOptions extends JobOptions {
  /** Told of each step what the site's operator may see and nobody else: it has no noise. */
  readonly onStep?: (seen: Seen) => void;
  /** Where batches and noise come from. @default node:crypto */
  readonly random?: RandomWords;
}

export interface PrivateTrainResult extends TrainResult {
  /** What the update cost, for an accountant: so many steps of the Poisson-subsampled Gaussian mechanism. */
  readonly spent: {
    readonly samplingRate: number;
    readonly noiseMultiplier: number;
    readonly steps: number;
  };
}

/**
 * Trains from the global weights as trainRound does, but privately. Each record is in a batch with the probability
 * batchSize / trainExamples, and the noised sum is divided by the plan's batchSize, or by trainExamples where that is less:
 * how many records the site has counts as known. An epoch has as many steps as it has batches. `metrics` is empty.
 *
 * Throws as trainRound does, and as createPrivateGradients.
 */
export async function trainPrivateRound(
  context: JobContext,
  job: {
    readonly round: number;
    readonly global: readonly Tensor[];
    readonly learningRate: number;
    readonly privacy: RecordPrivacy;
  },
  options: PrivateJobOptions = {},
): Promise<PrivateTrainResult> {
  const { federation, local, data } = context;
  const { training } = federation;
  const { global, learningRate, privacy } = job;
  const { trainExamples } = data.report;
  if (trainExamples === 0) {
    throw new WorkerError('FED_TRAINER_NO_EXAMPLES', 'There are no training images here, only a test set.');
  }
  const random = options.random ?? cryptoWords();
  const expectedBatchSize = Math.min(training.batchSize, trainExamples);
  // The same numbers that both ends put into their books.
  const { samplingRate, steps } = poissonSampling({ ...privacy, ...training, trainExamples });
  const gradients = createPrivateGradients(
    {
      model: local.model,
      trainable: local.trainable,
      objective: objectiveOf(context),
      classWeights: classWeightsOf(federation),
    },
    { ...privacy, expectedBatchSize, random: options.random },
  );
  const optimizer = createOptimizer(training.optimizer, learningRate);
  try {
    local.setWeights(global);
    const parts = data.poissonBatches({ samplingRate, steps, random, tf, signal: options.signal });
    let step = 0;
    const clock = createClock();
    for await (const part of clock.timed(parts)) {
      options.signal?.throwIfAborted();
      await gradients.add(part);
      if (!part.endsBatch) continue;
      const { gradients: noised, seen } = gradients.finish();
      step++;
      if (!Number.isFinite(seen.loss)) {
        tf.dispose(noised);
        throw diverged(seen.loss, step, job);
      }
      decayWeights(local.trainable, learningRate, training.weightDecay);
      tf.tidy(() => optimizer.applyGradients(withRegularizers(local, noised)));
      tf.dispose(noised);
      local.applyConstraints();
      options.onStep?.(seen);
      options.onProgress?.(Math.min(1, step / steps));
      crashPoint('trainer:after-step');
      // Let messages in: an abort can be heard only between two turns.
      await nextTurn();
    }
    options.signal?.throwIfAborted();
    options.onTiming?.(clock.read());
    const update = await local.readUpdate(global);
    const { noiseMultiplier } = privacy;
    return {
      numExamples: trainExamples,
      metrics: {},
      update,
      spent: { samplingRate, noiseMultiplier, steps },
    };
  } finally {
    optimizer.dispose();
  }
}

/** Adds what doesn't depend on any record, and needs no noise: the gradients of the layers' regularizers. */
function withRegularizers(
  local: JobContext['local'],
  noised: Readonly<Record<string, tf.Tensor>>,
): Record<string, tf.Tensor> {
  const trainable = [...local.trainable];
  const extra = tf.tidy(() => local.extraLoss());
  if (extra === undefined) return { ...noised };
  extra.dispose();
  const { value, grads } = tf.variableGrads(() => local.extraLoss()!, trainable);
  value.dispose();
  return Object.fromEntries(
    trainable.map(({ name }) => {
      const own = noised[name]!;
      return [name, grads[name] == null ? own : tf.add(own, grads[name])];
    }),
  );
}
