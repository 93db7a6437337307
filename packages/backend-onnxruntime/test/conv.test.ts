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

type Shape4 = [number, number, number, number];

const kernel = fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 4 }));
const images: fc.Arbitrary<Shape4> = fc.tuple(
  fc.integer({ min: 1, max: 3 }),
  fc.constantFrom(4, 6, 8, 9),
  fc.constantFrom(4, 6, 8, 9, 16),
  fc.integer({ min: 1, max: 6 }),
);
/** How what comes after a layer sees what that has made. */
type View = 'as it is' | 'images on end' | 'rows as columns';
const views = fc.constantFrom<View>('as it is', 'images on end', 'rows as columns');

function seenAs(y: tf.Tensor4D, view: View): tf.Tensor4D {
  const [batch, height, width, channels] = y.shape;
  if (view === 'images on end') return tf.reshape(y, [1, batch * height, width, channels]);
  return view === 'rows as columns' ? tf.reshape(y, [batch, width, height, channels]) : y;
}

const random = (shape: number[], seed: number): tf.Tensor => tf.randomUniform(shape, -1, 1, 'float32', seed);

/** Gradients of `loss`, a function of tensors that it is called with, for each of these. */
async function gradientsOf(
  backend: string,
  make: () => tf.Tensor[],
  loss: (...inputs: tf.Tensor4D[]) => tf.Tensor,
): Promise<Float32Array[]> {
  await tf.setBackend(backend);
  const tensors = tf.tidy(() => tf.grads((...inputs) => loss(...(inputs as tf.Tensor4D[])))(make()));
  return tensors.map((tensor) => Float32Array.from(tensor.dataSync()));
}

interface TwoConvolutions {
  readonly image: Shape4;
  readonly kernels: readonly [[number, number], [number, number]];
  readonly filters: readonly [number, number];
  readonly strides: readonly [number, [number, number]];
  readonly view: View;
  readonly between: 'relu' | 'relu and pooling' | 'relu, a sum and pooling' | 'nothing';
}

const twoConvolutions: fc.Arbitrary<TwoConvolutions> = fc.record({
  image: images,
  kernels: fc.tuple(kernel, kernel),
  filters: fc.tuple(fc.integer({ min: 3, max: 8 }), fc.integer({ min: 1, max: 3 })),
  strides: fc.tuple(
    fc.integer({ min: 1, max: 2 }),
    fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 })),
  ),
  view: views,
  between: fc.constantFrom('relu', 'relu and pooling', 'relu, a sum and pooling', 'nothing'),
});

describe('two convolutions', () => {
  it.each([64, 512, 2048])('agree with cpu in all gradients, in pieces of %i bytes', async (pieceBytes) => {
    registerOnnxRuntime({ threads: 1, pieceBytes });
    const gradients = (backend: string, task: TwoConvolutions) => {
      const { image, kernels, filters, strides, view, between } = task;
      const make = () => [
        random(image, 1),
        random([...kernels[0], image[3], filters[0]], 2),
        random([filters[0]], 3),
        random([...kernels[1], ...filters], 4),
      ];
      return gradientsOf(backend, make, (x, first, bias, second) => {
        let y = tf.add<tf.Tensor4D>(tf.conv2d(x!, first!, strides[0], 'same'), bias!);
        if (between !== 'nothing') y = tf.relu(y);
        if (between === 'relu, a sum and pooling') y = tf.add(y, tf.neg(bias!));
        if (between.endsWith('pooling')) y = tf.maxPool(y, 2, 2, 'same');
        const z = tf.conv2d(seenAs(y, view), second!, strides[1], 'same');
        return tf.sum(tf.mul(z, z));
      });
    };
    await fc.assert(
      fc.asyncProperty(twoConvolutions, async (task) => {
        expectClose(await gradients('onnxruntime', task), await gradients('cpu', task), 5e-6);
      }),
      {
        numRuns: 200,
        seed: 12,
        // A row of zeros below that is no whole number of the rows that are seen.
        examples: [
          [
            {
              image: [1, 9, 4, 1],
              kernels: [
                [1, 2],
                [1, 1],
              ],
              filters: [3, 1],
              strides: [1, [1, 1]],
              view: 'rows as columns',
              between: 'relu',
            },
          ],
        ],
      },
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

interface ConvolutionAndPooling {
  readonly image: Shape4;
  readonly kernel: [number, number];
  readonly filters: number;
  readonly convolution: 'conv2d' | 'conv2dTranspose';
  readonly biased: boolean;
  readonly relu: boolean;
  readonly view: View;
  readonly size: number;
  readonly stride: number;
  readonly pad: 'same' | 'valid' | number;
  /** One colour, and numbers whose sums are exact: windows in which several pixels are the largest. */
  readonly flat: boolean;
  /** Whether somebody else takes what is between. */
  readonly taken: boolean;
}

const convolutionAndPooling: fc.Arbitrary<ConvolutionAndPooling> = fc.record({
  image: images,
  kernel,
  filters: fc.integer({ min: 1, max: 8 }),
  convolution: fc.constantFrom('conv2d', 'conv2dTranspose'),
  biased: fc.boolean(),
  relu: fc.boolean(),
  view: views,
  size: fc.integer({ min: 2, max: 3 }),
  stride: fc.integer({ min: 1, max: 3 }),
  pad: fc.constantFrom<'same' | 'valid' | number>('same', 'valid', 1),
  flat: fc.boolean(),
  taken: fc.boolean(),
});

const plain = {
  kernel: [3, 3] as [number, number],
  filters: 4,
  convolution: 'conv2d',
  biased: true,
  relu: true,
  view: 'as it is',
  flat: false,
  taken: false,
} as const;

describe('a convolution and a pooling', () => {
  it.each([64, 512, 8192])('agree with cpu in all gradients, in pieces of %i bytes', async (pieceBytes) => {
    registerOnnxRuntime({ threads: 1, pieceBytes });
    const gradients = (backend: string, task: ConvolutionAndPooling) => {
      const { image, kernel, filters, convolution, biased, relu, view, size, stride, pad, flat, taken } =
        task;
      const [batch, height, width, channels] = image;
      const round = (x: tf.Tensor) => (flat ? tf.div(tf.round(tf.mul(x, 4)), 4) : x);
      const make = () => [
        flat ? tf.fill(image, 0.5) : random(image, 1),
        round(
          random([...kernel, ...(convolution === 'conv2d' ? [channels, filters] : [filters, channels])], 2),
        ),
        round(random([filters], 3)),
      ];
      return gradientsOf(backend, make, (x, filter, bias) => {
        const convolved =
          convolution === 'conv2d'
            ? tf.conv2d(x!, filter!, 1, 'same')
            : tf.conv2dTranspose(x!, filter!, [batch, 2 * height, 2 * width, filters], 2, 'same');
        let y: tf.Tensor4D = biased ? tf.add(convolved, bias!) : convolved;
        if (relu) y = tf.relu(y);
        const others = taken ? tf.sum(tf.mul(y, tf.sigmoid(y))) : 0;
        const z = tf.maxPool(
          seenAs(y, view),
          size,
          stride,
          pad,
          typeof pad === 'number' ? 'floor' : undefined,
        );
        return tf.add(tf.add(tf.sum(tf.mul(z, z)), tf.sum(bias!)), others);
      });
    };
    await fc.assert(
      fc.asyncProperty(convolutionAndPooling, async (task) => {
        expectClose(await gradients('onnxruntime', task), await gradients('cpu', task), 5e-6);
      }),
      {
        numRuns: 300,
        seed: 13,
        // As many windows as if they were side by side, but they overlap; and as if there were no padding, but there is.
        examples: [
          [{ ...plain, image: [16, 6, 6, 5], size: 3, stride: 2, pad: 'valid' }],
          [{ ...plain, image: [16, 6, 9, 5], size: 3, stride: 3, pad: 1 }],
        ],
      },
    );
  });

  it.each([64, 2 ** 20])(
    'find a NaN wherever in its window it is, in pieces of %i bytes',
    async (pieceBytes) => {
      registerOnnxRuntime({ threads: 1, pieceBytes });
      await tf.setBackend('onnxruntime');
      const filter = tf.fill<tf.Rank.R4>([1, 1, 5, 1], 0.2);
      for (const [row, column] of [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
      ] as const) {
        const image = tf.buffer([1, 8, 8, 5]);
        image.set(Number.NaN, 0, row, column, 0);
        const y = tf.conv2d(image.toTensor() as tf.Tensor4D, filter, 1, 'same');
        const [first, ...others] = tf.maxPool(y, 2, 2, 'valid').dataSync();
        expect(first).toBeNaN();
        expect(others.every((value) => value === 0)).toBe(true);
      }
    },
  );
});
