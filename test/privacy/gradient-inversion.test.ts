/**
 * Gradient inversion against one site's update of one round: it works on a plain upload, so that the attacks are known to
 * be able, and fails on what the coordinator sees under secure aggregation and on what differential privacy releases.
 */
import { loadEngine, tf } from '@tributary/engine';
import { imageError, leakedInput, leakedLabels } from '@tributary/privacy';
import { gaussians, seededWords } from '@tributary/testkit';
import { beforeAll, describe, expect, test } from 'vitest';
import { type DenseParameters, matchGradient } from './attacks/gradient-matching.ts';
import { asNumbers, maskedView, plainView } from './coordinator-view.ts';
import { CLASSES, type Digit, PIXELS, readDigits, SIDE } from './digits.ts';

const HIDDEN = 64;
const LEARNING_RATE = 0.1;
const SIZES = [PIXELS * HIDDEN, HIDDEN, HIDDEN * CLASSES, CLASSES];
let digits: readonly Digit[];
let model: tf.LayersModel;

beforeAll(async () => {
  await loadEngine({ prefer: 'cpu' });
  digits = await readDigits(CLASSES, 5);
  const dense = (units: number, activation: 'sigmoid' | 'softmax', seed: number) => ({
    units,
    activation,
    kernelInitializer: tf.initializers.glorotUniform({ seed }),
  });
  model = tf.sequential({
    layers: [
      tf.layers.dense({ ...dense(HIDDEN, 'sigmoid', 1), inputShape: [PIXELS] }),
      tf.layers.dense(dense(CLASSES, 'softmax', 2)),
    ],
  });
  model.compile({ optimizer: tf.train.sgd(LEARNING_RATE), loss: 'categoricalCrossentropy' });
});

/** local - global after one step of SGD on `batch`, as a site would send it: kernel, bias, kernel, bias in one. */
async function updateOf(batch: readonly Digit[]): Promise<Float32Array> {
  const before = model.getWeights().map((weight) => weight.clone());
  const images = tf.tensor2d(batch.map(({ pixels }) => Array.from(pixels)));
  const targets = tf.oneHot(
    batch.map(({ label }) => label),
    CLASSES,
  );
  await model.trainOnBatch(images, targets);
  const update = tf.tidy(() =>
    tf.concat1d(
      model.getWeights().map((weight, i) => tf.reshape(tf.sub(weight, before[i]!), [-1]) as tf.Tensor1D),
    ),
  );
  model.setWeights(before);
  const values = (await update.data()) as Float32Array;
  tf.dispose([...before, images, targets, update]);
  return values;
}

function split(update: ArrayLike<number>): Float32Array[] {
  let at = 0;
  const values = Float32Array.from(update);
  return SIZES.map((size) => {
    at += size;
    return values.subarray(at - size, at);
  });
}

/** The image that the analytic attack reads from an update, black where it has nothing. */
function analyticAttack(update: ArrayLike<number>): Float64Array {
  const [kernel, bias] = split(update);
  return leakedInput({ kernel: kernel!, bias: bias! }) ?? new Float64Array(PIXELS);
}

/** An update is the gradient, turned about. */
function labelAttack(update: ArrayLike<number>): number[] {
  return leakedLabels(split(update)[3]!.map((value) => -value));
}

async function iterativeAttack(
  update: ArrayLike<number>,
  labels: readonly number[],
): Promise<Float32Array[]> {
  const words = seededWords(11);
  const start = Float32Array.from({ length: labels.length * PIXELS }, () => words() / 2 ** 32);
  const parameters = dense(model.getWeights());
  const shapes = model.getWeights().map(({ shape }) => shape);
  const seen = dense(
    split(update).map((values, i) =>
      tf.tensor(
        values.map((value) => -value),
        shapes[i]!,
      ),
    ),
  );
  try {
    const search = { side: SIDE, start, iterations: 150, smoothness: 0.01 };
    return await matchGradient({ parameters, seen, labels, ...search });
  } finally {
    tf.dispose([...seen.kernels, ...seen.biases]);
  }
}

function dense([kernel1, bias1, kernel2, bias2]: readonly tf.Tensor[]): DenseParameters {
  return {
    kernels: [kernel1 as tf.Tensor2D, kernel2 as tf.Tensor2D],
    biases: [bias1 as tf.Tensor1D, bias2 as tf.Tensor1D],
  };
}

/** What is released of one record's gradient: clipped to C = 1, with noise z C on each number. */
function releaseOf(update: Float32Array, noiseMultiplier: number, seed: number): Float32Array {
  const gaussian = gaussians(seededWords(seed));
  const gradient = update.map((value) => value / LEARNING_RATE);
  const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0));
  return gradient.map((value) => value / Math.max(1, norm) + noiseMultiplier * gaussian());
}

function sumOf(updates: readonly Float32Array[]): Float32Array {
  return updates[0]!.map((_, i) => updates.reduce((sum, update) => sum + update[i]!, 0));
}

function psnrs(batch: readonly Digit[], images: readonly Float32Array[]): number[] {
  return batch.map(({ pixels }, i) => imageError(pixels, images[i]!).psnr);
}

/** Pearson's r. */
function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const centred = (values: ArrayLike<number>) => {
    const mean = Array.from(values).reduce((sum, value) => sum + value, 0) / values.length;
    return Float64Array.from(values, (value) => value - mean);
  };
  const dot = (x: Float64Array, y: Float64Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  const [x, y] = [centred(a), centred(b)];
  return dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y));
}

/** How unevenly the 256 values of a byte come: chi-square, 255 degrees of freedom if they are uniform. */
function chiSquare(words: Uint32Array): number {
  const counts = new Float64Array(256);
  const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
  for (const byte of bytes) counts[byte]! += 1;
  const expected = bytes.length / 256;
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
}

/** The second largest of three. */
function middle(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[1]!;
}

describe('a plain update of one example', () => {
  test('the analytic attack reads the training image to an MSE below 1e-6, and its label', async () => {
    for (const digit of digits) {
      const update = await updateOf([digit]);
      expect(imageError(digit.pixels, analyticAttack(update)).mse).toBeLessThan(1e-6);
      expect(labelAttack(update)).toEqual([digit.label]);
    }
  });

  test('the search finds both images in the sum of two sites: a sum of few hides nothing by itself', async () => {
    const pair = [digits[3]!, digits[8]!];
    const sum = sumOf([await updateOf([pair[0]!]), await updateOf([pair[1]!])]);
    expect(labelAttack(sum)).toEqual([3, 8]);
    for (const psnr of psnrs(pair, await iterativeAttack(sum, [3, 8]))) expect(psnr).toBeGreaterThan(30);
    // The analytic attack sees one through the other.
    for (const { pixels } of pair) expect(imageError(pixels, analyticAttack(sum)).mse).toBeGreaterThan(1e-3);
  });
});

describe('what a coordinator sees of an update under secure aggregation', () => {
  test('it is the mask that hides: the same words without it give the image', async () => {
    const update = await updateOf([digits[0]!]);
    const words = asNumbers(plainView(update));
    expect(imageError(digits[0]!.pixels, analyticAttack(words)).mse).toBeLessThan(1e-6);
  });

  test('its bytes are uniform and it is not correlated with the update; without a mask both show', async () => {
    const update = await updateOf([digits[0]!]);
    const limit = 4 / Math.sqrt(update.length);
    const views = [maskedView(update), maskedView(update), maskedView(update)];
    // 255 degrees of freedom: mean 255, standard deviation 22.6; six of them above.
    for (const view of views) expect(chiSquare(view)).toBeLessThan(391);
    expect(chiSquare(plainView(update))).toBeGreaterThan(391);
    // One view in 16,000 is beyond 4 standard deviations by chance; two of three are so once in 10^8.
    const correlations = views.map((view) => Math.abs(correlation(asNumbers(view), update)));
    expect(middle(correlations)).toBeLessThan(limit);
    expect(correlation(asNumbers(plainView(update)), update)).toBeGreaterThan(0.999);
  });

  test('the analytic attacks read noise', async () => {
    let mse = 0;
    let labelsRight = 0;
    for (const { pixels, label } of digits) {
      const words = asNumbers(maskedView(await updateOf([{ pixels, label }])));
      mse += imageError(pixels, analyticAttack(words)).mse / digits.length;
      if (labelAttack(words).join() === String(label)) labelsRight++;
    }
    // A PSNR below 10 dB is an MSE above 0.1. Pixels come out half 0, half uniform: 0.2, give or take 0.01.
    expect(mse).toBeGreaterThan(0.1);
    // Ten coins show one certain pattern once in 1024 times.
    expect(labelsRight).toBeLessThan(4);
  });

  test('the search finds nothing', async () => {
    const words = asNumbers(maskedView(await updateOf([digits[3]!])));
    expect(psnrs([digits[3]!], await iterativeAttack(words, [3]))[0]).toBeLessThan(10);
  });
});

describe('what differential privacy releases of a record, with noise multiplier 1', () => {
  test('the analytic attack stays under 10 dB over ten digits; without the noise it reads each', async () => {
    let mse = 0;
    for (const [i, digit] of digits.entries()) {
      const update = await updateOf([digit]);
      expect(imageError(digit.pixels, analyticAttack(releaseOf(update, 0, i))).mse).toBeLessThan(1e-6);
      mse += imageError(digit.pixels, analyticAttack(releaseOf(update, 1, i))).mse / digits.length;
    }
    // 0.14, or 8.7 dB; to guess black everywhere would be 0.10.
    expect(10 * Math.log10(1 / mse)).toBeLessThan(10);
  });

  test('the search stays under 10 dB', async () => {
    const update = await updateOf([digits[3]!]);
    const found = await iterativeAttack(releaseOf(update, 1, 1), [3]);
    expect(psnrs([digits[3]!], found)[0]).toBeLessThan(10);
  });
});
