/** Trains one of the benchmark's networks with a TensorFlow.js backend, as many steps as each line on stdin says. */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { registerOnnxRuntime } from '@tributary/backend-onnxruntime';
import { loadEngine, tf } from '@tributary/engine';

const [backend, name, pixelsText, threadsText] = process.argv.slice(2);
const pixels = Number(pixelsText);
const BATCH = 32;

if (backend === 'wasm') await loadEngine({ prefer: 'wasm' });
else {
  registerOnnxRuntime({ threads: Number(threadsText) });
  await tf.setBackend(backend!);
}

const { conv2d, dense, flatten, lstm, maxPooling2d } = tf.layers;
const convolution = (filters: number, kernelSize: number, strides: number) =>
  ({ filters, kernelSize, strides, padding: 'same', activation: 'relu' }) as const;
type Layers = Parameters<typeof tf.sequential>[0];

const NETWORKS: Record<
  string,
  { layers: NonNullable<Layers>['layers']; inputShape: number[]; outputs: number }
> = {
  seed: {
    inputShape: [pixels, pixels, 3],
    outputs: 1,
    layers: [
      conv2d({ ...convolution(64, 3, 1), inputShape: [pixels, pixels, 3] }),
      conv2d(convolution(64, 3, 2)),
      maxPooling2d({ poolSize: 2 }),
      conv2d(convolution(128, 3, 1)),
      conv2d(convolution(128, 3, 2)),
      maxPooling2d({ poolSize: 2 }),
      flatten(),
      dense({ units: 256, activation: 'relu' }),
      dense({ units: 1, activation: 'sigmoid' }),
    ],
  },
  digits: {
    inputShape: [28, 28, 1],
    outputs: 10,
    layers: [
      conv2d({ ...convolution(16, 5, 2), inputShape: [28, 28, 1] }),
      conv2d(convolution(32, 3, 2)),
      flatten(),
      dense({ units: 64, activation: 'relu' }),
      dense({ units: 10, activation: 'softmax' }),
    ],
  },
  mlp: {
    inputShape: [784],
    outputs: 10,
    layers: [
      dense({ units: 512, activation: 'relu', inputShape: [784] }),
      dense({ units: 512, activation: 'relu' }),
      dense({ units: 10, activation: 'softmax' }),
    ],
  },
  lstm: {
    inputShape: [32, 32],
    outputs: 10,
    layers: [
      lstm({ units: 128, recurrentInitializer: 'glorotUniform', inputShape: [32, 32] }),
      dense({ units: 10, activation: 'softmax' }),
    ],
  },
};

const { layers, inputShape, outputs } = NETWORKS[name!]!;
const model = tf.sequential({ layers: layers! });
model.compile({
  optimizer: tf.train.adam(1e-4),
  loss: outputs === 1 ? 'binaryCrossentropy' : 'categoricalCrossentropy',
});
const x = tf.randomUniform([BATCH, ...inputShape]);
const y = tf.tensor2d(
  Array.from({ length: BATCH }, (_, i) =>
    outputs === 1 ? [i % 2] : Array.from({ length: outputs }, (_, c) => Number(i % outputs === c)),
  ),
);

for await (const line of createInterface({ input: process.stdin })) {
  const times: number[] = [];
  for (let i = 0; i < Number(line); i++) {
    const start = performance.now();
    await model.trainOnBatch(x, y);
    times.push(performance.now() - start);
  }
  process.stdout.write(`${JSON.stringify({ times, peakMiB: peakMiB() })}\n`);
}

function peakMiB(): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024;
}
