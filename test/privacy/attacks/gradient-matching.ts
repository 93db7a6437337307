/**
 * Gradient inversion by search: images are moved until the gradient that they would give points where the one that was
 * seen points (Zhu, Liu and Han 2019), by cosine distance and total variation with the signs of Adam's steps (Geiping et
 * al. 2020). The network is two dense layers with a sigmoid between them, whose gradient is written out as a formula, so
 * that TensorFlow.js can differentiate it again.
 */
import { tf } from '@tributary/engine';

/** Kernels [inputs, units] and biases [units], or how they moved, first layer first. */
export interface DenseParameters {
  readonly kernels: readonly [tf.Tensor2D, tf.Tensor2D];
  readonly biases: readonly [tf.Tensor1D, tf.Tensor1D];
}

export interface GradientMatchingOptions {
  readonly parameters: DenseParameters;
  /** What was seen: the gradient, up to a positive factor. */
  readonly seen: DenseParameters;
  /** Of the images, one each; the label leak gives them. */
  readonly labels: readonly number[];
  /** Of one image, square. */
  readonly side: number;
  /** Where the search starts, [labels.length * side * side], in [0, 1]. */
  readonly start: Float32Array;
  readonly iterations: number;
  /** Of the total variation against the cosine distance. */
  readonly smoothness: number;
}

const STEP = 0.05;
/** The step shrinks tenfold at these shares of the iterations. */
const SHRINK_AT = [3 / 8, 5 / 8, 7 / 8];
const [BETA1, BETA2, FUZZ] = [0.9, 0.999, 1e-8];

/** Returns the images found, one Float32Array of side * side pixels in [0, 1] for each label. */
export async function matchGradient(options: GradientMatchingOptions): Promise<Float32Array[]> {
  const { parameters, seen, labels, side, iterations, smoothness } = options;
  const pixels = side * side;
  const count = labels.length;
  const targets = tf.tidy(() => tf.oneHot(tf.tensor1d([...labels], 'int32'), seen.biases[1].shape[0]));
  const flatSeen = tf.tidy(() => flatten(seen));
  const cost = tf.grad((images) => {
    const gradient = flatten(gradientOf(images as tf.Tensor2D, targets as tf.Tensor2D, parameters));
    const cosine = tf.div(tf.sum(tf.mul(gradient, flatSeen)), tf.mul(tf.norm(gradient), tf.norm(flatSeen)));
    return tf.sub(tf.mul(smoothness, totalVariation(images, count, side)), cosine);
  });

  const images = Float32Array.from(options.start);
  const first = new Float64Array(images.length);
  const second = new Float64Array(images.length);
  for (let iteration = 1; iteration <= iterations; iteration++) {
    const slope = tf.tidy(() => cost(tf.tensor2d(images, [count, pixels])));
    const direction = await slope.data();
    slope.dispose();
    const step =
      STEP * SHRINK_AT.reduce((factor, at) => (iteration > at * iterations ? factor / 10 : factor), 1);
    for (let i = 0; i < images.length; i++) {
      const sign = Math.sign(direction[i]!);
      first[i] = BETA1 * first[i]! + (1 - BETA1) * sign;
      second[i] = BETA2 * second[i]! + (1 - BETA2) * sign * sign;
      const mean = first[i]! / (1 - BETA1 ** iteration);
      const spread = Math.sqrt(second[i]! / (1 - BETA2 ** iteration));
      images[i] = Math.min(1, Math.max(0, images[i]! - (step * mean) / (spread + FUZZ)));
    }
  }
  tf.dispose([targets, flatSeen]);
  return labels.map((_, i) => images.slice(i * pixels, (i + 1) * pixels));
}

/** The gradient of the mean cross-entropy: [n, inputs] images with one-hot [n, classes] targets. */
function gradientOf(
  images: tf.Tensor2D,
  targets: tf.Tensor2D,
  { kernels, biases }: DenseParameters,
): DenseParameters {
  const hidden = tf.sigmoid(tf.add(tf.matMul(images, kernels[0]), biases[0])) as tf.Tensor2D;
  const outputs = tf.softmax(tf.add(tf.matMul(hidden, kernels[1]), biases[1]) as tf.Tensor2D);
  const lastError = tf.div(tf.sub(outputs, targets), images.shape[0]) as tf.Tensor2D;
  const firstError = tf.mul(
    tf.matMul(lastError, kernels[1], false, true),
    tf.mul(hidden, tf.sub(1, hidden)),
  ) as tf.Tensor2D;
  return {
    kernels: [tf.matMul(images, firstError, true), tf.matMul(hidden, lastError, true)],
    biases: [tf.sum(firstError, 0), tf.sum(lastError, 0)],
  };
}

function flatten({ kernels, biases }: DenseParameters): tf.Tensor1D {
  return tf.concat1d([...kernels, ...biases].map((tensor) => tf.reshape(tensor, [-1]) as tf.Tensor1D));
}

/** The mean absolute difference of neighbouring pixels. */
function totalVariation(images: tf.Tensor, count: number, side: number): tf.Scalar {
  const grid = tf.reshape(images, [count, side, side]) as tf.Tensor3D;
  const down = tf.sub(
    tf.slice3d(grid, [0, 1, 0], [count, side - 1, side]),
    tf.slice3d(grid, [0, 0, 0], [count, side - 1, side]),
  );
  const across = tf.sub(
    tf.slice3d(grid, [0, 0, 1], [count, side, side - 1]),
    tf.slice3d(grid, [0, 0, 0], [count, side, side - 1]),
  );
  return tf.add(tf.mean(tf.abs(down)), tf.mean(tf.abs(across)));
}
