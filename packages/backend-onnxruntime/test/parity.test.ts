/** The losses of twenty Adam steps are those of the `cpu` backend, for one network of each kind. */
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, describe, expect, it } from 'vitest';
import { registerOnnxRuntime } from '../src/index.ts';
import {
  lstmNetwork,
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

function largestRelativeDifference(actual: readonly number[], expected: readonly number[]): number {
  return Math.max(...expected.map((value, i) => Math.abs(actual[i]! - value) / Math.abs(value)));
}
