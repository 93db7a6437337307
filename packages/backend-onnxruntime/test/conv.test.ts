/** Convolutions of any geometry, forwards and backwards, beside TensorFlow.js's own on the CPU. */
import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import * as tf from '@tensorflow/tfjs-core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { registerOnnxRuntime } from '../src/index.ts';

interface Case {
  readonly input: [number, number, number, number];
  readonly filter: [number, number, number, number];
  readonly strides: [number, number];
  readonly pad: 'same' | 'valid';
  readonly bias: boolean;
}

const side = fc.integer({ min: 1, max: 9 });
const cases: fc.Arbitrary<Case> = fc
  .record({
    batch: fc.integer({ min: 1, max: 5 }),
    height: side,
    width: side,
    channels: fc.integer({ min: 1, max: 6 }),
    kernel: fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })),
    filters: fc.integer({ min: 1, max: 3 }),
    strides: fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
    pad: fc.constantFrom('same' as const, 'valid' as const),
    bias: fc.boolean(),
  })
  .filter(({ height, width, kernel, pad }) => pad === 'same' || (height >= kernel[0] && width >= kernel[1]))
  .map(({ batch, height, width, channels, kernel, filters, strides, pad, bias }) => ({
    input: [batch, height, width, channels],
    filter: [...kernel, channels, filters],
    strides,
    pad,
    bias,
  }));

/** The convolution (with a bias and Relu), its sum's gradients for the image, the filter and the bias. */
async function results(
  backend: string,
  { input, filter, strides, pad, bias }: Case,
): Promise<Float32Array[]> {
  await tf.setBackend(backend);
  const tensors = tf.tidy(() => {
    const x = tf.randomUniform<tf.Rank.R4>(input, -1, 1, 'float32', 1);
    const w = tf.randomUniform<tf.Rank.R4>(filter, -1, 1, 'float32', 2);
    const b = tf.randomUniform([filter[3]], -1, 1, 'float32', 3);
    const convolve = (x: tf.Tensor4D, w: tf.Tensor4D, b: tf.Tensor) => {
      const y = tf.conv2d(x, w, strides, pad);
      return bias ? tf.relu(tf.add(y, b)) : y;
    };
    const gradients = tf.grads((x, w, b) => {
      const y = convolve(x as tf.Tensor4D, w as tf.Tensor4D, b!);
      return tf.sum(tf.add(tf.mul(y, y), tf.mul(tf.sum(b!), 0)));
    });
    return [convolve(x, w, b), ...gradients([x, w, b])];
  });
  return tensors.map((tensor) => Float32Array.from(tensor.dataSync()));
}

/** Each number within `tolerance` of theirs, as a share of their tensor's largest, or of 1. */
function expectClose(
  ours: readonly Float32Array[],
  theirs: readonly Float32Array[],
  tolerance: number,
): void {
  ours.forEach((values, i) => {
    const scale = Math.max(1, ...theirs[i]!.map(Math.abs));
    values.forEach((value, j) => {
      expect(Math.abs(value - theirs[i]![j]!) / scale).toBeLessThan(tolerance);
    });
  });
}

describe('convolution', () => {
  it.each([
    ['patches at once', {}],
    ['patches in pieces of some rows', { pieceBytes: 64 }],
    ['patches in pieces of some images', { pieceBytes: 1024 }],
  ])('agrees with cpu for every geometry, forwards and backwards: %s', async (_, options) => {
    registerOnnxRuntime({ threads: 1, ...options });
    await fc.assert(
      fc.asyncProperty(cases, async (geometry) => {
        const ours = await results('onnxruntime', geometry);
        const theirs = await results('cpu', geometry);
        expectClose(ours, theirs, 2e-6);
      }),
      { numRuns: 150, seed: 11 },
    );
  });
});

interface Layers {
  readonly image: [number, number, number, number];
  readonly kernels: readonly [[number, number], [number, number]];
  readonly filters: readonly [number, number];
  readonly strides: readonly [number, [number, number]];
  /** How the second convolution sees what the first has made. */
  readonly view: 'as it is' | 'images on end' | 'rows as columns';
  readonly between: 'relu' | 'relu and pooling' | 'relu, a sum and pooling' | 'nothing';
}

const kernel = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 }));
const layers: fc.Arbitrary<Layers> = fc.record({
  image: fc.tuple(
    fc.integer({ min: 1, max: 3 }),
    fc.constantFrom(4, 6, 8, 9),
    fc.constantFrom(4, 8, 9, 16),
    fc.integer({ min: 1, max: 3 }),
  ),
  kernels: fc.tuple(kernel, kernel),
  filters: fc.tuple(fc.integer({ min: 3, max: 8 }), fc.integer({ min: 1, max: 3 })),
  strides: fc.tuple(
    fc.integer({ min: 1, max: 2 }),
    fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
  ),
  view: fc.constantFrom('as it is', 'images on end', 'rows as columns'),
  between: fc.constantFrom('relu', 'relu and pooling', 'relu, a sum and pooling', 'nothing'),
});

/** Gradients of two convolutions, one after the other, for the image, both filters and the bias between. */
async function gradientsOf(backend: string, task: Layers): Promise<Float32Array[]> {
  await tf.setBackend(backend);
  const { image, kernels, filters, strides, view, between } = task;
  const tensors = tf.tidy(() => {
    const x = tf.randomUniform<tf.Rank.R4>(image, -1, 1, 'float32', 1);
    const first = tf.randomUniform<tf.Rank.R4>([...kernels[0], image[3], filters[0]], -1, 1, 'float32', 2);
    const bias = tf.randomUniform([filters[0]], -1, 1, 'float32', 3);
    const second = tf.randomUniform<tf.Rank.R4>([...kernels[1], ...filters], -1, 1, 'float32', 4);
    const gradients = tf.grads((x, first, bias, second) => {
      let y: tf.Tensor = tf.add(tf.conv2d(x as tf.Tensor4D, first as tf.Tensor4D, strides[0], 'same'), bias!);
      if (between !== 'nothing') y = tf.relu(y);
      if (between === 'relu, a sum and pooling') y = tf.add(y, tf.neg(bias!));
      if (between.endsWith('pooling')) y = tf.maxPool(y as tf.Tensor4D, 2, 2, 'same');
      const [batch, height, width, channels] = y.shape as [number, number, number, number];
      if (view === 'images on end') y = tf.reshape(y, [1, batch * height, width, channels]);
      if (view === 'rows as columns') y = tf.reshape(y, [batch, width, height, channels]);
      const z = tf.conv2d(y as tf.Tensor4D, second as tf.Tensor4D, strides[1], 'same');
      return tf.sum(tf.mul(z, z));
    });
    return gradients([x, first, bias, second]);
  });
  return tensors.map((tensor) => Float32Array.from(tensor.dataSync()));
}

describe('two convolutions', () => {
  it.each([64, 512, 2048])('agree with cpu in all gradients, in pieces of %i bytes', async (pieceBytes) => {
    registerOnnxRuntime({ threads: 1, pieceBytes });
    await fc.assert(
      fc.asyncProperty(layers, async (task) => {
        const ours = await gradientsOf('onnxruntime', task);
        const theirs = await gradientsOf('cpu', task);
        expectClose(ours, theirs, 5e-6);
      }),
      { numRuns: 150, seed: 12 },
    );
  });

  it('of one image with few channels have each its own window', async () => {
    registerOnnxRuntime({ threads: 1 });
    const sums: number[] = [];
    for (const backend of ['onnxruntime', 'cpu']) {
      await tf.setBackend(backend);
      const x = tf.randomUniform<tf.Rank.R4>([2, 8, 8, 3], -1, 1, 'float32', 1);
      const results = [3, 4].map((height) => {
        const filter = tf.randomUniform<tf.Rank.R4>([height, 3, 3, 4], -1, 1, 'float32', height);
        return tf.conv2d(x, filter, 1, 'same');
      });
      sums.push(...results.map((y) => tf.sum(tf.mul(y, y)).dataSync()[0]!));
    }
    expect(sums[0]! / sums[2]!).toBeCloseTo(1, 5);
    expect(sums[1]! / sums[3]!).toBeCloseTo(1, 5);
  });
});
