/** The losses of twenty Adam steps are those of the `cpu` backend, for one network of each kind. */
import * as tf from '@tensorflow/tfjs-core';
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

  /**
   * With batch statistics over four images, MobileNetV2's 52 normalisations amplify rounding: on `cpu` itself, pixels
   * that are 2 ulp brighter move its first loss by 1.8e-5 at 32 pixels and by 1.7e-6 at 64. So what a step's loss can be
   * held to here is 2e-4; its predictions, which use the running statistics, to 1e-5.
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
