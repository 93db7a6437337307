/** Our side of `bench -- local-training`: one network on one engine, trained as the trainer does; a line in, a JSON line out. */
import { createInterface } from 'node:readline';
import { registerOnnxRuntime } from '@tributary/backend-onnxruntime';
import { type EngineName, loadEngine, repeatable, tf } from '@tributary/engine';
import { buildModel } from '@tributary/models';
import { expectLargeBuffers } from '@tributary/shared-protocol';
import { createObjective } from '../packages/worker/src/trainer/objectives.ts';

const BATCH = 32;
const { network, engine, threads, learningRate } = JSON.parse(process.argv[2] ?? '{}') as {
  network: string;
  engine: EngineName | 'onnxruntime-webgpu';
  threads: number;
  learningRate: number;
};

expectLargeBuffers();
const description = await load();
const { model, inputShape, numClasses } = build(network);
const objective = createObjective({
  loss: numClasses === 2 ? 'binaryCrossentropy' : 'categoricalCrossentropy',
  metrics: [],
  units: numClasses === 2 ? 1 : numClasses,
  numClasses,
});
const optimizer = tf.train.adam(learningRate);
const weights = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
const step = repeatable((images: tf.Tensor, targets: tf.Tensor2D) =>
  tf.tidy(() => {
    const outputs = () => model.apply(images, { training: true }) as tf.Tensor2D;
    const loss = () => tf.mean(objective.loss(targets, outputs())) as tf.Scalar;
    return { loss: optimizer.minimize(loss, true, weights)! };
  }),
);
const x = tf.randomUniform([BATCH, ...inputShape], 0, 1, 'float32', 7);
const y = objective.encode(Int32Array.from({ length: BATCH }, (_, i) => i % numClasses));
say({ description });

for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'peak') {
    say({ mib: process.resourceUsage().maxRSS / 1024 });
    continue;
  }
  const steps = Number(line.split(' ')[1]);
  const startedAt = performance.now();
  for (let i = 0; i < steps; i++) {
    const { loss } = step.run(x, y);
    await loss.data();
    loss.dispose();
  }
  say({ ms: (performance.now() - startedAt) / steps });
}

/** Makes the engine current and says what it is. */
async function load(): Promise<string> {
  if (engine !== 'onnxruntime-webgpu') return (await loadEngine({ prefer: engine, threads })).description;
  registerOnnxRuntime({ device: 'webgpu', threads, warn: (message) => process.stderr.write(`${message}\n`) });
  await tf.setBackend('onnxruntime');
  return 'ONNX Runtime through its WebGPU provider';
}

function build(name: string): { model: tf.LayersModel; inputShape: number[]; numClasses: number } {
  const [kind, side] = name.split('-');
  const seed = 1;
  if (kind === 'seed' || kind === 'digits') {
    const pixels = Number(side);
    const channels = kind === 'seed' ? 3 : 1;
    const numClasses = kind === 'seed' ? 2 : 10;
    const input = { height: pixels, width: pixels, channels };
    const architecture = kind === 'seed' ? 'image-cnn' : 'image-cnn-small';
    return {
      model: buildModel(architecture, { input, numClasses, seed }),
      inputShape: [pixels, pixels, channels],
      numClasses,
    };
  }
  if (kind === 'mlp') {
    const layers = [512, 512].map((units, i) =>
      tf.layers.dense({ units, activation: 'relu', ...(i === 0 ? { inputShape: [784] } : {}) }),
    );
    const output = tf.layers.dense({ units: 10, activation: 'softmax' });
    return { model: tf.sequential({ layers: [...layers, output] }), inputShape: [784], numClasses: 10 };
  }
  if (kind === 'lstm') {
    const layers = [
      tf.layers.lstm({ units: 128, inputShape: [32, 32] }),
      tf.layers.dense({ units: 10, activation: 'softmax' }),
    ];
    return { model: tf.sequential({ layers }), inputShape: [32, 32], numClasses: 10 };
  }
  throw new Error(`there is no network "${name}"`);
}

function say(answer: unknown): void {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
