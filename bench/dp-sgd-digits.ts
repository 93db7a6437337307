/**
 * What DP-SGD learns: the digits network on 8,000 real digits, tested on the other 2,000.
 * The settings are those of the README's figure; what they cost is (noise multiplier, sampling rate, steps), for an accountant.
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadEngine, tf } from '@tributary/engine';
import { buildModel } from '@tributary/models';
import { cryptoWords } from '@tributary/privacy';
import { openDigits } from '../packages/cli/src/demo/digits.ts';
import { samplePoisson } from '../packages/worker/src/data/poisson-sampling.ts';
import { createObjective } from '../packages/worker/src/trainer/objectives.ts';
import { createPrivateGradients, type Records } from '../packages/worker/src/trainer/private-gradients.ts';

const SIDE = 28;
const CLASSES = 10;
/** Every fifth sample of a digit is for the test. */
const TEST_EVERY = 5;

interface Digit {
  readonly label: number;
  readonly pixels: Uint8Array;
}

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      'learning-rate': { type: 'string', default: '2' },
      batch: { type: 'string', default: '512' },
      'noise-multiplier': { type: 'string', default: '1.2' },
      'clipping-norm': { type: 'string', default: '1' },
      steps: { type: 'string', default: '500' },
    },
  });
  const engine = await loadEngine();
  const digits = await openDigits([fileURLToPath(new URL('..', import.meta.url))]);
  const [train, test]: [Digit[], Digit[]] = [[], []];
  for (const [label, count] of digits.counts.entries()) {
    for (let sample = 0; sample < count; sample++) {
      (sample % TEST_EVERY === 0 ? test : train).push({ label, pixels: digits.pixels(label, sample) });
    }
  }
  const model = buildModel('image-cnn-small', {
    input: { height: SIDE, width: SIDE, channels: 1 },
    numClasses: CLASSES,
    seed: 1,
  });
  const objective = createObjective({
    loss: 'categoricalCrossentropy',
    metrics: [],
    units: CLASSES,
    numClasses: CLASSES,
  });
  const expectedBatchSize = Number(values.batch);
  const noiseMultiplier = Number(values['noise-multiplier']);
  const samplingRate = expectedBatchSize / train.length;
  const steps = Number(values.steps);
  const trainable = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  const gradients = createPrivateGradients(
    { model, trainable, objective },
    { clippingNorm: Number(values['clipping-norm']), noiseMultiplier, expectedBatchSize },
  );
  const optimizer = tf.train.sgd(Number(values['learning-rate']));
  const random = cryptoWords();
  console.log(
    `${engine.description}; ${train.length} digits, noise multiplier ${noiseMultiplier}, sampling rate ` +
      `${samplingRate.toFixed(5)}, clipping norm ${values['clipping-norm']}, learning rate ${values['learning-rate']}`,
  );
  const startedAt = performance.now();
  for (let step = 1; step <= steps; step++) {
    await gradients.add(
      recordsOf(samplePoisson(train.length, samplingRate, random).map((index) => train[index]!)),
    );
    const { gradients: noised, seen } = gradients.finish();
    optimizer.applyGradients(noised);
    tf.dispose(noised);
    if (step % Math.ceil(steps / 5) !== 0 && step !== steps) continue;
    const seconds = (performance.now() - startedAt) / 1000;
    console.log(
      `step ${step}: test accuracy ${accuracy(model, test).toFixed(4)}, clipped ${seen.clippedFraction.toFixed(2)}, ${seconds.toFixed(0)} s`,
    );
  }
  optimizer.dispose();
  model.dispose();
}

function recordsOf(digits: readonly Digit[]): Records {
  const images = new Float32Array(digits.length * SIDE * SIDE);
  for (const [i, { pixels }] of digits.entries()) images.set(pixels, i * SIDE * SIDE);
  return {
    images: images.map((value) => value / 255),
    shape: [digits.length, SIDE, SIDE, 1],
    labels: Int32Array.from(digits, ({ label }) => label),
  };
}

function accuracy(model: tf.LayersModel, digits: readonly Digit[]): number {
  const { images, shape, labels } = recordsOf(digits);
  const predicted = tf.tidy(() =>
    tf.argMax(model.predict(tf.tensor(images, [...shape])) as tf.Tensor, 1).dataSync(),
  );
  return labels.filter((label, i) => label === predicted[i]).length / labels.length;
}
