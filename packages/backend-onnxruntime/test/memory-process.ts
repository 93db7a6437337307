/** Trains the seed network for two thousand steps with batches of varying size, and prints what it held on the way. */
import { writeSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs-core';
import { type OnnxRuntimeBackend, registerOnnxRuntime } from '../src/index.ts';
import { seedNetwork } from './nets.ts';

const STEPS = 2000;
const PIXELS = 32;
const SIZES = [4, 3, 2, 1];

registerOnnxRuntime({ threads: 2, warn: false });
await tf.setBackend('onnxruntime');
const backend = tf.backend() as OnnxRuntimeBackend;
const model = seedNetwork(SIZES[0], PIXELS).build();
const seen: { step: number; residentMiB: number; tensors: number; dataIds: number }[] = [];
for (let step = 1; step <= STEPS; step++) {
  const { x, y } = seedNetwork(SIZES[step % SIZES.length], PIXELS);
  const [xs, ys] = [x(), y()];
  await model.trainOnBatch(xs, ys);
  tf.dispose([xs, ys]);
  if (step % 100 === 0) {
    const { numTensors } = tf.memory();
    seen.push({
      step,
      residentMiB: process.memoryUsage.rss() / 2 ** 20,
      tensors: numTensors,
      dataIds: backend.numDataIds(),
    });
  }
}
writeSync(1, `${JSON.stringify(seen)}\n`);
process.exit(0);
