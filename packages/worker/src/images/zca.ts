/** The ZCA whitening matrix (Krizhevsky 2009) of a data set. Apart from statistics.ts for the sake of what it imports. */
import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import { WorkerError } from '../errors.ts';

/** ZCA's matrix is features x features; above this many it would take minutes and gigabytes. */
const MAX_ZCA_FEATURES = 4096;

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
