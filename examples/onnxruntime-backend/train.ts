/**
 * Learns to tell which quarter of a noisy image is bright. The model is ordinary TensorFlow.js; only the import of the
 * backend and its name are not. Run it with `npm start`.
 */
import * as tf from '@tensorflow/tfjs-core';
import { layers, sequential } from '@tensorflow/tfjs-layers';
import { type OnnxRuntimeBackend, registerOnnxRuntime } from '@tributary/backend-onnxruntime';

const COUNT = 512;
const SIDE = 16;

registerOnnxRuntime({ threads: 2 });
await tf.setBackend('onnxruntime');

const quarters = Array.from({ length: COUNT }, (_, i) => i % 4);
const ys = tf.oneHot(tf.tensor1d(quarters, 'int32'), 4);
const xs = tf.tidy(() => {
  const noise = tf.randomUniform([COUNT, 2, 2, SIDE / 2, SIDE / 2], 0, 1, 'float32', 1);
  const light = tf.reshape(tf.mul(ys, 0.3), [COUNT, 2, 2, 1, 1]);
  const tiles = tf.transpose(tf.add(noise, light), [0, 1, 3, 2, 4]);
  return tf.reshape(tiles, [COUNT, SIDE, SIDE, 1]);
});

const model = sequential({
  layers: [
    layers.conv2d({
      filters: 16,
      kernelSize: 3,
      padding: 'same',
      activation: 'relu',
      inputShape: [SIDE, SIDE, 1],
    }),
    layers.maxPooling2d({ poolSize: 2 }),
    layers.conv2d({ filters: 32, kernelSize: 3, padding: 'same', activation: 'relu' }),
    layers.maxPooling2d({ poolSize: 2 }),
    layers.flatten(),
    layers.dense({ units: 4, activation: 'softmax' }),
  ],
});
model.compile({ optimizer: tf.train.adam(2e-3), loss: 'categoricalCrossentropy', metrics: ['accuracy'] });

const start = performance.now();
await model.fit(xs, ys, {
  epochs: 6,
  batchSize: 32,
  verbose: 0,
  callbacks: {
    onEpochEnd: async (epoch, logs) => {
      console.log(
        `epoch ${epoch + 1}  loss ${logs!['loss']!.toFixed(3)}  accuracy ${logs!['acc']!.toFixed(3)}`,
      );
    },
  },
});
console.log(`${((performance.now() - start) / 1000).toFixed(1)} s\n`);

const backend = tf.backend() as OnnxRuntimeBackend;
const [x, y] = [tf.slice(xs, 0, 32), tf.slice(ys, 0, 32)];
console.log(String(await backend.explain(() => model.trainOnBatch(x, y))));
