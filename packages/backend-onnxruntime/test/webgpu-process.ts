/**
 * Trains the digits network on WebGPU in a process of its own, which a driver may end, and prints what a test wants to
 * know as one line of JSON.
 */
import { writeSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import { type OnnxRuntimeBackend, registerOnnxRuntime } from '../src/index.ts';
import { digitsNetwork } from './nets.ts';

const STEPS = 20;

registerOnnxRuntime({ device: 'webgpu', threads: 1, warn: false });
await tf.setBackend('onnxruntime');
const backend = tf.backend() as OnnxRuntimeBackend;
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
const report = { losses, buffers, readsAlike, compilations, fallbacks: [...fallbacks.keys()], left };
writeSync(1, `${JSON.stringify(report)}\n`);
process.exit(0);
