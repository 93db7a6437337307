/**
 * Computes some kernels and trains the digits network on WebGPU in a process of its own, which a driver may end, and
 * prints what a test wants to know as one line of JSON.
 */
import { writeSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import { type OnnxRuntimeBackend, registerOnnxRuntime } from '../src/index.ts';
import { digitsNetwork, imageGradient } from './nets.ts';

const STEPS = 20;

registerOnnxRuntime({ device: 'webgpu', threads: 1, warn: false });
await tf.setBackend('onnxruntime');
const backend = tf.backend() as OnnxRuntimeBackend;
const kernels: Record<string, number[]> = {};
const explained = await backend.explain(() => {
  const odd = tf.tensor1d([0, 1, 0, 1], 'bool');
  const high = tf.tensor1d([0, 0, 1, 1], 'bool');
  const [a, b] = [
    tf.randomUniform([2, 3, 4], -1, 1, 'float32', 1),
    tf.randomUniform([2, 5, 3], -1, 1, 'float32', 2),
  ];
  const results = {
    or: tf.logicalOr(odd, high),
    isNaN: tf.isNaN(tf.tensor1d([1, Number.NaN, Number.POSITIVE_INFINITY, 0])),
    product: tf.matMul(a, b, true, true),
    expected: tf.transpose(tf.matMul(b, a), [0, 2, 1]),
    gradient: imageGradient(),
  };
  backend.flush();
  for (const [name, result] of Object.entries(results)) kernels[name] = [...result.dataSync()];
  tf.dispose(results);
});
const onTheCpu = explained.flushes.flatMap(({ byOperator }) =>
  byOperator.flatMap(({ name }) => (name.includes('on the CPU') ? [name] : [])),
);
const task = digitsNetwork();
const model = task.build();
const [x, y] = [task.x(), task.y()];
const losses: number[] = [];
const buffers: number[] = [];
for (let step = 0; step < STEPS; step++) {
  losses.push(((await model.trainOnBatch(x, y)) as number[])[0]!);
  buffers.push(backend.counters.deviceBuffers);
}
// Dense weights, which lie on the device: read twice.
const kernel = model.getWeights()[4]!;
const [first, second] = [kernel.dataSync(), kernel.dataSync()];
const readsAlike = first.every((value, i) => Number.isFinite(value) && value === second[i]);
const { compilations, fallbacks } = backend.counters;
tf.removeBackend('onnxruntime');
const left = backend.counters.deviceBuffers;
const report = {
  kernels,
  onTheCpu,
  losses,
  buffers,
  readsAlike,
  compilations,
  fallbacks: [...fallbacks.keys()],
  left,
};
writeSync(1, `${JSON.stringify(report)}\n`);
process.exit(0);
