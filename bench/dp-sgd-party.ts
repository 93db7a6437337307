/** The process of the bench `dp-sgd`: measures and prints. */
import { parseArgs } from 'node:util';
import { loadEngine, tf } from '@tributary/engine';
import { buildModel } from '@tributary/models';
import { cryptoWords } from '@tributary/privacy';
import { samplePoisson } from '../packages/worker/src/data/poisson-sampling.ts';
import { createObjective } from '../packages/worker/src/trainer/objectives.ts';
import { createPrivateGradients, type Records } from '../packages/worker/src/trainer/private-gradients.ts';
import { median } from './median.ts';

const PIXELS = 28 * 28;
/** Records to choose batches from, in expected batches. */
const POOL = 20;
/** About how long one turn of plain SGD or of DP-SGD lasts: some garbage is collected in each, and some turns are quiet. */
const TURN_MS = 150;

const NETWORKS: Readonly<Record<string, () => tf.LayersModel>> = {
  'image-cnn-small': () =>
    buildModel('image-cnn-small', {
      input: { height: 28, width: 28, channels: 1 },
      numClasses: 10,
      seed: 1,
    }),
  'mlp 784-512-512-10': () =>
    tf.sequential({
      layers: [
        tf.layers.flatten({ inputShape: [28, 28, 1] }),
        tf.layers.dense({ units: 512, activation: 'relu' }),
        tf.layers.dense({ units: 512, activation: 'relu' }),
        tf.layers.dense({ units: 10, activation: 'softmax' }),
      ],
    }),
};

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'onnxruntime' },
    batches: { type: 'string', default: '256,32' },
    pairs: { type: 'string', default: '32' },
  },
});
const engine = await loadEngine({ prefer: values.engine as 'onnxruntime' });
const pairs = Number(values.pairs);
console.log(
  `A training step with SGD on ${engine.name} (${engine.description}), 28x28x1; medians over ${pairs} turns,\n` +
    'and the fastest turn of each kind, where a busy machine counts least. DP-SGD draws its batch, clips each record and\n' +
    'adds noise; "one by one" has a backward pass a record, measured once.\n',
);
console.log(
  'network              batch   plain ms   DP-SGD ms   ratio   fastest ms      ratio   one by one ms   ratio',
);
for (const [name, build] of Object.entries(NETWORKS)) {
  for (const batch of values.batches.split(',').map(Number)) {
    const steps = createSteps(build(), batch);
    const [plain, ghost, single] = [[] as number[], [] as number[], [] as number[]];
    const plainCount = await warmUp(steps.plain);
    const ghostCount = await warmUp(steps.ghost);
    for (let pair = 0; pair < pairs; pair++) {
      plain.push(await time(steps.plain, plainCount));
      ghost.push(await time(steps.ghost, ghostCount));
      // Slow enough that compiling once makes no difference.
      if (pair === pairs >> 1) single.push(await time(steps.oneByOne, 1));
    }
    const ratio = median(ghost.map((ms, i) => ms / plain[i]!));
    const [fastestPlain, fastestGhost] = [Math.min(...plain), Math.min(...ghost)];
    const fastest = `${fastestPlain.toFixed(1)}, ${fastestGhost.toFixed(1)}`;
    console.log(
      `${name.padEnd(20)} ${String(batch).padStart(5)} ${median(plain).toFixed(1).padStart(10)} ` +
        `${median(ghost).toFixed(1).padStart(11)} ${ratio.toFixed(2).padStart(7)}   ${fastest.padEnd(12)} ` +
        `${(fastestGhost / fastestPlain).toFixed(2).padStart(8)} ${median(single).toFixed(0).padStart(15)} ` +
        `${(median(single) / median(plain)).toFixed(1).padStart(7)}`,
    );
    steps.dispose();
  }
}

/** One step each way, of one model; they go on from each other's weights, which costs and gains nothing. */
function createSteps(model: tf.LayersModel, batch: number) {
  const trainable = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const objective = createObjective({
    loss: 'categoricalCrossentropy',
    metrics: [],
    units: 10,
    numClasses: 10,
  });
  const optimizer = tf.train.sgd(0.01);
  const random = cryptoWords();
  const pool = Float32Array.from({ length: batch * POOL * PIXELS }, () => (random() >>> 0) / 2 ** 32);
  const pick = (indices: readonly number[]): Records => {
    const images = new Float32Array(indices.length * PIXELS);
    for (const [i, index] of indices.entries()) {
      images.set(pool.subarray(index * PIXELS, (index + 1) * PIXELS), i * PIXELS);
    }
    return {
      images,
      shape: [indices.length, 28, 28, 1],
      labels: Int32Array.from(indices, (index) => index % 10),
    };
  };
  const settings = { clippingNorm: 1, noiseMultiplier: 1, expectedBatchSize: batch };
  const target = { model, trainable, objective };
  const privately = (method?: 'microbatches') => {
    const gradients = createPrivateGradients(target, settings, method === undefined ? {} : { method });
    return async () => {
      await gradients.add(pick(samplePoisson(batch * POOL, 1 / POOL, random)));
      const { gradients: noised } = gradients.finish();
      optimizer.applyGradients(noised);
      tf.dispose(noised);
    };
  };
  return {
    async plain() {
      const first = (random() >>> 0) % (batch * (POOL - 1));
      const records = pick(Array.from({ length: batch }, (_, i) => first + i));
      const loss = tf.tidy(() => {
        const { value, grads } = tf.variableGrads(() => {
          const inputs = tf.tensor(records.images, [...records.shape]);
          const outputs = model.apply(inputs, { training: true }) as tf.Tensor2D;
          return tf.mean(objective.loss(objective.encode(records.labels), outputs));
        }, trainable);
        optimizer.applyGradients(grads);
        return value;
      });
      await loss.data();
      loss.dispose();
    },
    ghost: privately(),
    oneByOne: privately('microbatches'),
    dispose() {
      optimizer.dispose();
      model.dispose();
    },
  };
}

/** Compiles for all sizes that batches have; returns how many steps a turn has. */
async function warmUp(step: () => Promise<void>): Promise<number> {
  for (let i = 0; i < 15; i++) await step();
  return Math.max(2, Math.round(TURN_MS / (await time(step, 5))));
}

/** Milliseconds a step. */
async function time(step: () => Promise<void>, count: number): Promise<number> {
  const startedAt = performance.now();
  for (let i = 0; i < count; i++) await step();
  return (performance.now() - startedAt) / count;
}
