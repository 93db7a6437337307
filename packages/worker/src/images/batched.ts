/**
 * A whole batch augmented on the engine: one projective transform, then colour and standardisation. It agrees with the
 * exact path within 1e-3 of the value range (engines compute coordinates in float32), and where float32 could tip a
 * decision, that decision is taken here in float64:
 *  - flips are folded into the transform; for 'constant' each row's inside is sent along as a pair of columns;
 *  - 'wrap' jumps at the border and order 0 jumps between pixels: their source positions are computed here, and the
 *    engine gathers (so does an engine whose transform kernel is absent or wrong: tfjs's `cpu` leaves all but a batch's
 *    first image empty, and its `wasm` mirrors wrongly beyond the first pixel);
 *  - brightness truncates to whole numbers, where an error of 1e-5 may become a step of 1: its images are transformed
 *    on the exact path, and only standardised on the engine. A preprocessing function, being code, does the same.
 */
import type * as tfjs from '@tensorflow/tfjs-core';
import { type FillMode, mapCoordinate } from './affine.ts';
import { ImageDataGenerator } from './image-data-generator.ts';
import { type Affine, affineMatrix } from './matrix.ts';
import type { Floats, Pixels } from './pixels.ts';
import { IDENTITY, type RandomTransform } from './random-transform.ts';
import { missingStatistics, STD_EPSILON } from './standardize.ts';

/** The tfjs-core namespace, with a backend set. */
export type BatchedTf = Omit<typeof tfjs, 'default'>;

/** [height, width, channels] */
type Shape = readonly [number, number, number];

/**
 * Returns the transformed, standardised images as an [n, height, width, channels] float32 tensor, which is the
 * caller's to dispose. Takes `transforms.length` images of `shape` with channels last; values as decoded.
 * @param projective whether the engine's transform kernel may be used: what `hasProjectiveTransform` says of it
 * @throws RangeError when the generator is channels_first, or has statistics left to fit
 */
export function augmentBatch(
  tf: BatchedTf,
  generator: ImageDataGenerator,
  images: readonly Pixels[],
  shape: Shape,
  transforms: readonly RandomTransform[],
  projective = false,
): tfjs.Tensor4D {
  const { options, statistics } = generator;
  if (options.dataFormat !== 'channels_last') throw new RangeError('the batched path needs channels_last');
  const missing = missingStatistics(options, statistics);
  if (missing.length > 0) throw new RangeError(`augmentBatch: ${missing.join(' and ')} must be fitted first`);

  return tf.tidy(() => {
    if (options.preprocessingFunction) return exactly(tf, generator, images, shape, transforms, true);
    const exact = transforms.some(({ brightness }) => brightness !== null);
    let x = exact
      ? exactly(tf, generator, images, shape, transforms, false)
      : transform(tf, generator, upload(tf, images, shape), shape, transforms, projective);
    if (!exact && transforms.some(({ channelShiftIntensity }) => channelShiftIntensity !== null)) {
      const shifts = transforms.map(({ channelShiftIntensity }) => channelShiftIntensity ?? 0);
      const k = tf.tensor(shifts, [shifts.length, 1, 1, 1], 'float32');
      const low = tf.min(x, [1, 2, 3], true);
      const high = tf.max(x, [1, 2, 3], true);
      x = tf.minimum(tf.maximum(tf.add(x, k), low), high);
    }
    return standardize(tf, generator, x, shape);
  });
}

/** Returns `augmentBatch` with its result read back, for a consumer that wants plain arrays. */
export function createBatchedPath(
  tf: BatchedTf,
  generator: ImageDataGenerator,
): (
  images: readonly Pixels[],
  shape: Shape,
  transforms: readonly RandomTransform[],
) => Promise<Float32Array<ArrayBuffer>> {
  return async (images, shape, transforms) => {
    const projective = await hasProjectiveTransform(tf, generator.options.fillMode);
    const batch = augmentBatch(tf, generator, images, shape, transforms, projective);
    try {
      return Float32Array.from(await batch.data<'float32'>());
    } finally {
      batch.dispose();
    }
  };
}

const checked = new Map<string, Promise<boolean>>();

/**
 * Returns whether the current backend's projective transform is there and right for what `fillMode` asks of it, by
 * trying two small images once a backend and process. 'wrap' never is: engines repeat after n pixels, Keras after n - 1.
 */
export async function hasProjectiveTransform(tf: BatchedTf, fillMode: FillMode): Promise<boolean> {
  if (fillMode === 'wrap') return false;
  const mode = fillMode === 'constant' ? 'nearest' : fillMode;
  const key = `${tf.getBackend()} ${mode}`;
  let known = checked.get(key);
  if (!known) {
    known = tryTransform(tf, mode);
    checked.set(key, known);
  }
  return known;
}

async function tryTransform(tf: BatchedTf, fillMode: FillMode): Promise<boolean> {
  if (!tf.getKernel('Transform', tf.getBackend())) return false;
  const shape: Shape = [4, 5, 2];
  const images = [3, 7].map((step) => Uint8Array.from({ length: 40 }, (_, i) => (i * step * 11) % 256));
  const transforms = [
    { ...IDENTITY, theta: 35, tx: 2.3 },
    { ...IDENTITY, zx: 1.7, zy: 2.5, ty: -3.6, flipHorizontal: true },
  ];
  const generator = new ImageDataGenerator({ fillMode });
  const moved = augmentBatch(tf, generator, images, shape, transforms, true);
  const values = await moved.data();
  moved.dispose();
  return images.every((data, i) => {
    const exact = generator.applyTransform({ data, shape }, transforms[i]!).data;
    return exact.every((value, k) => Math.abs(value - values[i * exact.length + k]!) < 0.02);
  });
}

/** The affine part and the flips. */
function transform(
  tf: BatchedTf,
  generator: ImageDataGenerator,
  x: tfjs.Tensor4D,
  shape: Shape,
  transforms: readonly RandomTransform[],
  projective: boolean,
): tfjs.Tensor4D {
  const { variant, fillMode, cval, interpolationOrder } = generator.options;
  const [height, width] = shape;
  const affines = transforms.map((params) => affineMatrix(params, height, width, variant));
  const still = transforms.every((t, i) => !affines[i] && !t.flipHorizontal && !t.flipVertical);
  if (still) return x;
  if (!projective || fillMode === 'wrap' || interpolationOrder === 0) {
    return gather(tf, generator, x, shape, transforms, affines);
  }
  const rows = transforms.map((params, i) => toProjective(affines[i] ?? UNCHANGED, params, height, width));
  const matrix = tf.tensor2d(rows.flat(), [rows.length, 8], 'float32');
  // Outside means cval by the mask below, so the kernel's own constant mode, which blends at the edges, stays out of it.
  const mode = fillMode === 'reflect' ? 'reflect' : 'nearest';
  const moved = tf.image.transform(x, matrix, 'bilinear', mode, 0, [height, width]);
  if (fillMode !== 'constant') return moved;
  const mask = insideMask(tf, transforms, affines, height, width);
  const inside = tf.broadcastTo(mask, moved.shape);
  return tf.where(inside, moved, tf.fill(moved.shape, cval));
}

const UNCHANGED: Affine = [1, 0, 0, 1, 0, 0];

/** The kernel's eight numbers, in (column, row) order, with the flips folded in. */
function toProjective(affine: Affine, params: RandomTransform, height: number, width: number): number[] {
  let [m00, m01, m10, m11, o0, o1] = affine;
  if (params.flipHorizontal) {
    o0 += m01 * (width - 1);
    o1 += m11 * (width - 1);
    [m01, m11] = [-m01, -m11];
  }
  if (params.flipVertical) {
    o0 += m00 * (height - 1);
    o1 += m10 * (height - 1);
    [m00, m10] = [-m00, -m10];
  }
  return [m11, m10, o1, m01, m00, o0, 0, 0];
}

/** [n, height, width, 1]: whether the source position is inside, decided in float64; inside is one run a row. */
function insideMask(
  tf: BatchedTf,
  transforms: readonly RandomTransform[],
  affines: readonly (Affine | undefined)[],
  height: number,
  width: number,
): tfjs.Tensor4D {
  const n = transforms.length;
  const from = new Int32Array(n * height);
  const to = new Int32Array(n * height);
  transforms.forEach((params, i) => {
    const [m00, m01, m10, m11, o0, o1] = affines[i] ?? UNCHANGED;
    for (let r = 0; r < height; r++) {
      const y = o0 + r * m00;
      const x = o1 + r * m10;
      const isIn = (c: number) => {
        const row = y + c * m01;
        const col = x + c * m11;
        return row >= 0 && row <= height - 1 && col >= 0 && col <= width - 1;
      };
      let first = 0;
      while (first < width && !isIn(first)) first++;
      let end = width;
      while (end > first && !isIn(end - 1)) end--;
      const at = i * height + (params.flipVertical ? height - 1 - r : r);
      from[at] = params.flipHorizontal ? width - end : first;
      to[at] = params.flipHorizontal ? width - first : end;
    }
  });
  const column = tf.reshape(tf.range(0, width, 1, 'int32'), [1, 1, width, 1]);
  const start = tf.tensor(from, [n, height, 1, 1], 'int32');
  const stop = tf.tensor(to, [n, height, 1, 1], 'int32');
  return tf.logicalAnd(tf.greaterEqual(column, start), tf.less(column, stop)) as tfjs.Tensor4D;
}

/** Source positions in float64 from here, pixels from the engine. */
function gather(
  tf: BatchedTf,
  generator: ImageDataGenerator,
  x: tfjs.Tensor4D,
  shape: Shape,
  transforms: readonly RandomTransform[],
  affines: readonly (Affine | undefined)[],
): tfjs.Tensor4D {
  const { fillMode, cval, interpolationOrder } = generator.options;
  const [height, width, channels] = shape;
  const plane = height * width;
  const n = transforms.length;
  const index = new Int32Array(n * plane);
  const down = new Float32Array(n * plane);
  const right = new Float32Array(n * plane);
  const inside = new Float32Array(n * plane).fill(1);
  transforms.forEach((params, i) => {
    const [m00, m01, m10, m11, o0, o1] = affines[i] ?? UNCHANGED;
    for (let r = 0; r < height; r++) {
      const row = (params.flipVertical ? height - 1 - r : r) * width;
      for (let c = 0; c < width; c++) {
        const at = i * plane + row + (params.flipHorizontal ? width - 1 - c : c);
        const sourceRow = mapCoordinate(o0 + r * m00 + c * m01, height, fillMode);
        const sourceCol = mapCoordinate(o1 + r * m10 + c * m11, width, fillMode);
        if (sourceRow === -2 || sourceCol === -2) {
          inside[at] = 0;
          continue;
        }
        if (interpolationOrder === 0) {
          const iy = clamp(Math.floor(sourceRow + 0.5), height - 1);
          index[at] = i * plane + iy * width + clamp(Math.floor(sourceCol + 0.5), width - 1);
          continue;
        }
        const iy = clamp(Math.floor(sourceRow), height - 2);
        const ix = clamp(Math.floor(sourceCol), width - 2);
        index[at] = i * plane + iy * width + ix;
        down[at] = Math.min(1, Math.max(0, sourceRow - iy));
        right[at] = Math.min(1, Math.max(0, sourceCol - ix));
      }
    }
  });
  const flat = tf.reshape(x, [n * plane, channels]);
  const at = tf.tensor1d(index, 'int32');
  const pick = (offset: number) =>
    tf.gather(flat, offset === 0 ? at : tf.add(at, tf.scalar(offset, 'int32')));
  let moved: tfjs.Tensor = pick(0);
  if (interpolationOrder === 1) {
    const tx = tf.tensor2d(right, [n * plane, 1]);
    const ty = tf.tensor2d(down, [n * plane, 1]);
    // An axis of one pixel has no neighbour; its weight is 0 then.
    const dx = width > 1 ? 1 : 0;
    const dy = height > 1 ? width : 0;
    const between = (a: tfjs.Tensor, b: tfjs.Tensor, t: tfjs.Tensor) => tf.add(a, tf.mul(tf.sub(b, a), t));
    const top = between(moved, pick(dx), tx);
    moved = between(top, between(pick(dy), pick(dx + dy), tx), ty);
  }
  if (fillMode === 'constant') {
    const keep = tf.tensor2d(inside, [n * plane, 1]);
    moved = tf.add(tf.mul(moved, keep), tf.mul(tf.sub(1, keep), cval));
  }
  return tf.reshape(moved, [n, height, width, channels]);
}

function clamp(index: number, last: number): number {
  return Math.max(0, Math.min(index, last));
}

function exactly(
  tf: BatchedTf,
  generator: ImageDataGenerator,
  images: readonly Pixels[],
  shape: Shape,
  transforms: readonly RandomTransform[],
  standardized: boolean,
): tfjs.Tensor4D {
  const length = shape[0] * shape[1] * shape[2];
  const data = new Float32Array(images.length * length);
  images.forEach((image, i) => {
    const target: Floats = data.subarray(i * length, (i + 1) * length);
    generator.applyTransformInto({ data: image, shape }, transforms[i]!, target);
    if (standardized) generator.standardize({ data: target, shape });
  });
  return tf.tensor4d(data, [images.length, ...shape], 'float32');
}

function upload(tf: BatchedTf, images: readonly Pixels[], shape: Shape): tfjs.Tensor4D {
  const length = shape[0] * shape[1] * shape[2];
  const data = new Float32Array(images.length * length);
  images.forEach((image, i) => {
    data.set(image, i * length);
  });
  return tf.tensor4d(data, [images.length, ...shape], 'float32');
}

function standardize(
  tf: BatchedTf,
  generator: ImageDataGenerator,
  batch: tfjs.Tensor4D,
  shape: Shape,
): tfjs.Tensor4D {
  const { options, statistics } = generator;
  let x: tfjs.Tensor = batch;
  if (options.rescale) x = tf.mul(x, options.rescale);
  if (options.samplewiseCenter) {
    x = tf.sub(x, tf.mean(x, [1, 2, 3], true));
    if (options.samplewiseStdNormalization) {
      const std = tf.sqrt(tf.mean(tf.square(x), [1, 2, 3], true));
      x = tf.div(x, tf.add(std, STD_EPSILON));
    }
  }
  if (options.featurewiseCenter && statistics.mean) {
    x = tf.sub(x, tf.tensor1d(Float32Array.from(statistics.mean)));
    if (options.featurewiseStdNormalization && statistics.std) {
      x = tf.div(x, tf.tensor1d(Float32Array.from(statistics.std, (std) => std + STD_EPSILON)));
    }
  }
  if (options.zcaWhitening && statistics.zcaMatrix) {
    const features = shape[0] * shape[1] * shape[2];
    const matrix = tf.tensor2d(Float32Array.from(statistics.zcaMatrix), [features, features]);
    x = tf.reshape(tf.matMul(tf.reshape(x, [-1, features]), matrix), batch.shape);
  }
  return x as tfjs.Tensor4D;
}
