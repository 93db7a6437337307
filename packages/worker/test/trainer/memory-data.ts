/** Training data in memory and a federation to go with it, for tests of the trainer. */

import { seededRandom, tf } from '@tributary/engine';
import {
  augmentationSchema,
  type FederationView,
  federationViewSchema,
  inputSchema,
  type Tensor,
  trainingSchema,
} from '@tributary/shared-protocol';
import { samplePoisson } from '../../src/data/poisson-sampling.ts';
import type { TrainingBatch, TrainingData } from '../../src/trainer/train.ts';

export interface Examples {
  readonly exampleShape: readonly number[];
  /** One array an example. */
  readonly values: readonly Float32Array[];
  readonly labels: readonly number[];
}

/** Data whose training batches come in an order drawn from the round's seed. */
export function memoryData(train: Examples, test: Examples, batchSize: number): TrainingData {
  return {
    report: { trainExamples: train.labels.length, testExamples: test.labels.length },
    async *trainBatches({ seed, epochs, steps }) {
      const random = seededRandom(seed);
      let left = steps ?? Number.POSITIVE_INFINITY;
      for (let epoch = 0; epoch < (epochs ?? Number.POSITIVE_INFINITY); epoch++) {
        const order = train.labels.map((_, i) => [random(), i] as const).sort((a, b) => a[0] - b[0]);
        for (let i = 0; i < order.length; i += batchSize) {
          if (left-- <= 0) return;
          yield batchOf(
            train,
            order.slice(i, i + batchSize).map(([, index]) => index),
          );
        }
      }
    },
    async *poissonBatches({ samplingRate, steps, random }) {
      for (let step = 0; step < steps; step++) {
        const chosen = samplePoisson(train.labels.length, samplingRate, random);
        // In two parts, of which one may be empty.
        const half = chosen.length >> 1;
        yield { ...batchOf(train, chosen.slice(0, half)), endsBatch: false };
        yield { ...batchOf(train, chosen.slice(half)), endsBatch: true };
      }
    },
    async *testBatches() {
      for (let i = 0; i < test.labels.length; i += batchSize) {
        yield batchOf(test, test.labels.map((_, index) => index).slice(i, i + batchSize));
      }
    },
  };
}

function batchOf({ exampleShape, values, labels }: Examples, chosen: readonly number[]): TrainingBatch {
  const length = exampleShape.reduce((product, size) => product * size, 1);
  const images = new Float32Array(chosen.length * length);
  for (const [i, index] of chosen.entries()) images.set(values[index]!, i * length);
  return {
    images,
    shape: [chosen.length, ...exampleShape],
    labels: Int32Array.from(chosen, (index) => labels[index]!),
  };
}

/** Examples of which class k is brighter in its k-th band: learnt in a few steps. */
export function bandedExamples(
  count: number,
  exampleShape: readonly number[],
  numClasses: number,
  seed: number,
): Examples {
  const random = seededRandom(seed);
  const length = exampleShape.reduce((product, size) => product * size, 1);
  const labels = Array.from({ length: count }, (_, i) => i % numClasses);
  const values = labels.map((label) =>
    Float32Array.from({ length }, (_, i) => {
      const band = Math.floor((i * numClasses) / length);
      return random() * 0.5 + (band === label ? 0.5 : 0);
    }),
  );
  return { exampleShape, values, labels };
}

/** A federation for `topology`; the rest is plain unless given. */
export function federationFor(
  topology: string,
  classes: readonly string[],
  training: object,
  rest: Partial<FederationView> = {},
): FederationView {
  return federationViewSchema.parse({
    name: 'test',
    runId: 'run-1',
    configDigest: '0'.repeat(64),
    seed: 42,
    rounds: 3,
    classes: [...classes],
    input: inputSchema.parse({ height: 8, width: 8, channels: 1 }),
    augmentation: augmentationSchema.parse({}),
    training: trainingSchema.parse(training),
    maxUnreadableShare: 0.1,
    topology,
    frozenWeights: [],
    ...rest,
  });
}

/** One example (1, 2) of class 1. */
export const oneExample: Examples = { exampleShape: [2], values: [Float32Array.of(1, 2)], labels: [1] };

/** One sigmoid "d" of it, weights and bias zero: p = 1/2. */
export function oneSigmoid(extra: object = {}): tf.LayersModel {
  return tf.sequential({
    layers: [
      tf.layers.dense({
        units: 1,
        activation: 'sigmoid',
        kernelInitializer: 'zeros',
        inputShape: [2],
        name: 'd',
        ...extra,
      }),
    ],
  });
}

/** The weights after an update, of which some tensors may be missing. */
export function added(global: readonly Tensor[], update: readonly Tensor[]): Tensor[] {
  return global.map((tensor) => {
    const change = update.find(({ name }) => name === tensor.name)?.data as Float32Array | undefined;
    const data = (tensor.data as Float32Array).map((value, i) => value + (change?.[i] ?? 0));
    return { ...tensor, data };
  });
}

export function tensorOf(tensors: readonly Tensor[], name: string): number[] {
  return Array.from(tensors.find((tensor) => tensor.name === name)!.data as Float32Array);
}
