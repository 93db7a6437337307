/** The losses of twenty Adam steps are those of the `cpu` backend, for one network of each kind. */
import * as tf from '@tensorflow/tfjs-core';
import * as layers from '@tensorflow/tfjs-layers';
import { afterAll, describe, expect, it } from 'vitest';
import { registerOnnxRuntime } from '../src/index.ts';
import {
  lstmNetwork,
  mobileNet,
  residualNetwork,
  seedNetwork,
  separableNetwork,
  type Task,
  transformer,
} from './nets.ts';

const STEPS = 20;
const TOLERANCE = 1e-5;

registerOnnxRuntime({ threads: 2, warn: false });

const NETWORKS: readonly (readonly [string, () => Task])[] = [
  ['the seed network', seedNetwork],
  ['a residual network with batch normalisation', residualNetwork],
  ['a depthwise-separable network', separableNetwork],
  ['embedding and LSTM', lstmNetwork],
];

describe('parity with cpu', () => {
  it.each(NETWORKS)(
    '%s: loses alike for 20 steps',
    async (_, makeTask) => {
      const expected = await train('cpu', makeTask());
      const actual = await train('onnxruntime', makeTask());
      expect(largestRelativeDifference(actual, expected)).toBeLessThan(TOLERANCE);
      expect(expected.at(-1)).toBeLessThan(expected[0]!);
    },
    120_000,
  );

  /** Its layers use their running statistics, and the head alone learns. */
  it('MobileNetV2, frozen, with a new head: loses alike for 20 steps', async () => {
    const task = await mobileNet();
    const [expected, actual] = [await trainHead('cpu', task), await trainHead('onnxruntime', task)];
    expect(largestRelativeDifference(actual, expected)).toBeLessThan(TOLERANCE);
    expect(expected.at(-1)).toBeLessThan(expected[0]!);
  }, 120_000);

  /** All 158 weights learn; the normalisations keep to their running statistics, as Keras's guide has it for fine-tuning. */
  it('MobileNetV2, not frozen, with a new head: loses alike for 20 steps', async () => {
    const task = await mobileNet(1);
    const [expected, actual] = [await fineTune('cpu', task), await fineTune('onnxruntime', task)];
    expect(largestRelativeDifference(actual, expected)).toBeLessThan(TOLERANCE);
    expect(expected.at(-1)).toBeLessThan(expected[0]!);
  }, 300_000);

  /**
   * With batch statistics over a few images, MobileNetV2's 52 normalisations amplify rounding, on one and the same engine
   * too: pixels that are 2 ulp brighter move the first loss by 2e-5 to 2e-4 at 32 pixels, and by 2e-6 for eight images of
   * 96 pixels; a dozen steps of SGD at 1e-3 later the two losses are 1e-3 apart. So what a step's loss can be held to here
   * is 2e-4; its predictions, which use the running statistics, to 1e-5.
   */
  it('MobileNetV2: predicts alike, and its losses differ by no more than rounding makes them', async () => {
    const task = await mobileNet();
    const [expected, actual] = [await tryOut('cpu', task), await tryOut('onnxruntime', task)];
    expect(largestRelativeDifference(actual.predicted, expected.predicted)).toBeLessThan(TOLERANCE);
    expect(largestRelativeDifference(actual.losses, expected.losses)).toBeLessThan(2e-4);
  }, 120_000);

  it('a transformer in a custom loop: loses alike for 20 steps', async () => {
    const expected = await loop('cpu');
    const actual = await loop('onnxruntime');
    expect(largestRelativeDifference(actual, expected)).toBeLessThan(TOLERANCE);
    expect(expected.at(-1)).toBeLessThan(expected[0]!);
  });
});

afterAll(() => tf.removeBackend('onnxruntime'));

async function train(backend: string, { build, x, y }: Task): Promise<number[]> {
  await tf.setBackend(backend);
  const model = build();
  const [xs, ys] = [x(), y()];
  const losses: number[] = [];
  for (let step = 0; step < STEPS; step++) losses.push(((await model.trainOnBatch(xs, ys)) as number[])[0]!);
  tf.dispose([xs, ys]);
  model.dispose();
  return losses;
}

async function loop(backend: string): Promise<number[]> {
  await tf.setBackend(backend);
  const { variables, loss } = transformer();
  const optimizer = tf.train.adam(0.003);
  const losses = Array.from({ length: STEPS }, () => {
    const value = optimizer.minimize(loss, true, [...variables])!;
    const [number] = value.dataSync();
    value.dispose();
    return number!;
  });
  tf.dispose([...variables]);
  optimizer.dispose();
  return losses;
}

/** The losses of a head that learns from the features of a frozen network. */
async function trainHead(backend: string, { build, x, y }: Task): Promise<number[]> {
  await tf.setBackend(backend);
  const model = build();
  const [head, pooled] = [model.layers.at(-1)!, model.layers.at(-2)!];
  const features = layers.model({ inputs: model.inputs, outputs: pooled.output as layers.SymbolicTensor });
  const [xs, ys] = [features.predict(x()) as tf.Tensor, y()];
  const own = layers.sequential({
    layers: [layers.layers.dense({ units: 2, activation: 'softmax', inputShape: [xs.shape[1]!] })],
  });
  own.setWeights(head.getWeights());
  own.compile({ optimizer: tf.train.adam(1e-3), loss: 'categoricalCrossentropy' });
  const losses: number[] = [];
  for (let step = 0; step < STEPS; step++) losses.push((await own.trainOnBatch(xs, ys)) as number);
  tf.dispose([xs, ys]);
  own.dispose();
  model.dispose();
  return losses;
}

/** The losses of a network whose weights all learn, with the statistics that it came with. */
async function fineTune(backend: string, { build, x, y }: Task): Promise<number[]> {
  await tf.setBackend(backend);
  const model = build();
  const weights = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const [xs, ys] = [x(), y()];
  const optimizer = tf.train.adam(1e-5);
  const loss = () => {
    const probabilities = model.apply(xs, { training: false }) as tf.Tensor;
    return tf.losses.softmaxCrossEntropy(ys, tf.log(probabilities)) as tf.Scalar;
  };
  const losses = Array.from({ length: STEPS }, () => {
    const value = optimizer.minimize(loss, true, weights)!;
    const [number] = value.dataSync();
    value.dispose();
    return number!;
  });
  tf.dispose([xs, ys]);
  optimizer.dispose();
  model.dispose();
  return losses;
}

/** Predictions with running statistics, and the loss of a step with those of the batch. */
async function tryOut(backend: string, task: Task): Promise<{ predicted: number[]; losses: number[] }> {
  await tf.setBackend(backend);
  const model = task.build();
  const [x, y] = [task.x(), task.y()];
  const predicted = Array.from((model.predict(x) as tf.Tensor).dataSync());
  const [loss] = (await model.trainOnBatch(x, y)) as number[];
  tf.dispose([x, y]);
  model.dispose();
  return { predicted, losses: [loss!] };
}

function largestRelativeDifference(actual: readonly number[], expected: readonly number[]): number {
  return Math.max(...expected.map((value, i) => Math.abs(actual[i]! - value) / Math.abs(value)));
}
