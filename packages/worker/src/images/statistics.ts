/**
 * Featurewise statistics: the mean and standard deviation (population, ddof 0) of each channel over a data set, and
 * the ZCA whitening matrix (Krizhevsky 2009). Sums are float64 whatever the pixels are.
 */
import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import { WorkerError } from '../errors.ts';

/** ZCA's matrix is features x features; above this many it would take minutes and gigabytes. */
const MAX_ZCA_FEATURES = 4096;

/** Per channel, in the units of the (rescaled) pixels; the matrix is row-major features x features. */
export interface Statistics {
  mean?: Float64Array;
  std?: Float64Array;
  zcaMatrix?: Float64Array;
}

/** Value i of an image belongs to channel floor(i / stride) mod channels. */
export interface ChannelLayout {
  channels: number;
  stride: number;
}

/** Gathers sums of the values and their squares, channel by channel, around a first guess of the mean. */
export class ChannelMoments {
  readonly #layout: ChannelLayout;
  readonly #origin: Float64Array;
  readonly #sum: Float64Array;
  readonly #squares: Float64Array;
  #count = 0;

  constructor(layout: ChannelLayout) {
    this.#layout = layout;
    this.#origin = new Float64Array(layout.channels);
    this.#sum = new Float64Array(layout.channels);
    this.#squares = new Float64Array(layout.channels);
  }

  add(image: ArrayLike<number>): void {
    const { channels, stride } = this.#layout;
    const perImage = image.length / channels;
    // Sums of squares lose digits when the mean is far from 0: gather them around the first image's first pixel.
    if (this.#count === 0) for (let c = 0; c < channels; c++) this.#origin[c] = image[c * stride]!;
    for (let i = 0; i < image.length; i++) {
      const c = stride === 1 ? i % channels : Math.floor(i / stride) % channels;
      const value = image[i]! - this.#origin[c]!;
      this.#sum[c]! += value;
      this.#squares[c]! += value * value;
    }
    this.#count += perImage;
  }

  /**
   * Returns a channel's mean, rounded to the dtype: ZCA magnifies a difference in the seventh digit a thousandfold in
   * directions with next to no variance, so the centring has to round where Keras's does.
   */
  mean(dtype: 'float32' | 'float64'): Float64Array {
    const round = dtype === 'float32' ? Math.fround : Number;
    return this.#sum.map((sum, c) => round(this.#origin[c]! + sum / this.#count));
  }

  std(): Float64Array {
    return this.#sum.map((sum, c) => {
      const mean = sum / this.#count;
      return Math.sqrt(Math.max(0, this.#squares[c]! / this.#count - mean * mean));
    });
  }
}

/**
 * Returns U·diag(√n / (s + epsilon))·Uᵀ, where U and s are the left singular vectors and values of the centred images
 * as columns. With fewer images than features only the images' own span is whitened, as in Keras; directions in it
 * whose singular value is no more than rounding are left out, where Keras multiplies noise by √n / epsilon.
 * @param images n centred images of `features` values each, one after another
 */
export function zcaMatrix(images: ArrayLike<number>, features: number, epsilon: number): Float64Array {
  checkZcaFeatures(features);
  const n = images.length / features;
  const few = n < features;
  const size = few ? n : features;
  const gram = Matrix.zeros(size, size);
  if (few) {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = 0;
        for (let k = 0; k < features; k++) sum += images[i * features + k]! * images[j * features + k]!;
        gram.set(i, j, sum);
        gram.set(j, i, sum);
      }
    }
  } else {
    const sums = new Float64Array(features * features);
    for (let m = 0; m < n; m++) {
      for (let i = 0; i < features; i++) {
        const value = images[m * features + i]!;
        if (value === 0) continue;
        for (let j = 0; j <= i; j++) sums[i * features + j]! += value * images[m * features + j]!;
      }
    }
    for (let i = 0; i < features; i++) {
      for (let j = 0; j <= i; j++) {
        gram.set(i, j, sums[i * features + j]!);
        gram.set(j, i, sums[i * features + j]!);
      }
    }
  }
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(gram, { assumeSymmetric: true });
  const largest = Math.max(0, ...realEigenvalues);
  const result = new Float64Array(features * features);
  const direction = new Float64Array(features);
  for (let e = 0; e < size; e++) {
    let singular = Math.sqrt(Math.max(0, realEigenvalues[e]!));
    if (few) {
      if (realEigenvalues[e]! <= largest * 1e-13) continue;
      direction.fill(0);
      for (let m = 0; m < n; m++) {
        const weight = eigenvectorMatrix.get(m, e);
        for (let k = 0; k < features; k++) direction[k]! += weight * images[m * features + k]!;
      }
      // The length itself: a small eigenvalue has lost half of its digits.
      singular = Math.hypot(...direction);
      for (let k = 0; k < features; k++) direction[k]! /= singular;
    } else {
      for (let k = 0; k < features; k++) direction[k] = eigenvectorMatrix.get(k, e);
    }
    const gain = Math.sqrt(n) / (singular + epsilon);
    for (let i = 0; i < features; i++) {
      const scaled = gain * direction[i]!;
      for (let j = 0; j < features; j++) result[i * features + j]! += scaled * direction[j]!;
    }
  }
  return result;
}

/** @throws WorkerError FED_DATA_ZCA_TOO_LARGE above MAX_ZCA_FEATURES values an image */
export function checkZcaFeatures(features: number): void {
  if (features <= MAX_ZCA_FEATURES) return;
  throw new WorkerError(
    'FED_DATA_ZCA_TOO_LARGE',
    `ZCA whitening of images with ${features} values needs a ${features} x ${features} matrix; at most ` +
      `${MAX_ZCA_FEATURES} values (36x36 in colour, 64x64 in grey) are supported. Use smaller images or leave zcaWhitening off.`,
  );
}

/** Returns row · matrix, the whitened image. */
export function whiten(row: ArrayLike<number>, matrix: Float64Array): Float64Array {
  const n = row.length;
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const value = row[i]!;
    if (value === 0) continue;
    const start = i * n;
    for (let j = 0; j < n; j++) out[j]! += value * matrix[start + j]!;
  }
  return out;
}
