import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadEngine, tf } from '../src/index.ts';

/** Runs `compute` on the reference engine and on wasm, and returns both results. */
async function onBoth(compute: () => tf.Tensor): Promise<{ wasm: tf.Tensor; cpu: tf.Tensor }> {
  await tf.setBackend('cpu');
  const cpu = tf.tidy(compute);
  const cpuCopy = tf.tensor(cpu.dataSync(), cpu.shape, cpu.dtype as 'float32');
  await tf.setBackend('wasm');
  const wasm = tf.tidy(compute);
  return { wasm, cpu: cpuCopy };
}

/** The largest difference, relative to the largest value of the reference (or to 1, if that is larger). */
function worstError({ wasm, cpu }: { wasm: tf.Tensor; cpu: tf.Tensor }): number {
  expect(wasm.shape).toEqual(cpu.shape);
  const [actual, expected] = [wasm.dataSync(), cpu.dataSync()];
  let [scale, worst] = [1, 0];
  for (let i = 0; i < expected.length; i++) {
    scale = Math.max(scale, Math.abs(expected[i]!));
    worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!));
  }
  return worst / scale;
}

const random = (shape: number[], seed: number): tf.Tensor => tf.randomUniform(shape, -1, 1, 'float32', seed);

beforeAll(async () => {
  await loadEngine({ prefer: 'cpu' });
  await loadEngine({ prefer: 'wasm' });
});
afterAll(() => tf.disposeVariables());

const CONVOLUTIONS = [
  { name: '3x3 same, stride 1', x: [2, 7, 9, 3], filter: [3, 3, 3, 8], stride: 1, pad: 'same' },
  { name: '3x3 same, stride 2, odd size', x: [3, 9, 7, 4], filter: [3, 3, 4, 16], stride: 2, pad: 'same' },
  {
    name: '5x3 valid, stride 2, odd channels',
    x: [2, 11, 8, 5],
    filter: [5, 3, 5, 7],
    stride: 2,
    pad: 'valid',
  },
  {
    name: '1x1, stride 2: pixels that no tap touches',
    x: [2, 6, 6, 3],
    filter: [1, 1, 3, 5],
    stride: 2,
    pad: 'same',
  },
  { name: '2x2 same, stride 3', x: [1, 10, 10, 1], filter: [2, 2, 1, 9], stride: 3, pad: 'same' },
  { name: 'one channel in, one out', x: [4, 5, 5, 1], filter: [3, 3, 1, 1], stride: 1, pad: 'same' },
  { name: 'several groups of images', x: [3, 300, 300, 8], filter: [3, 3, 8, 4], stride: 2, pad: 'same' },
] as const;

describe('convolution gradients', () => {
  for (const { name, x, filter, stride, pad } of CONVOLUTIONS) {
    it(`wasm: the filter's gradient equals the cpu's (${name})`, async () => {
      const results = await onBoth(() => {
        const image = random([...x], 1) as tf.Tensor4D;
        const grad = tf.grad((f) => tf.conv2d(image, f as tf.Tensor4D, stride, pad));
        return grad(random([...filter], 2), dyFor(x, filter, stride, pad));
      });
      expect(worstError(results)).toBeLessThan(1e-5);
    });
    it(`wasm: the input's gradient equals the cpu's (${name})`, async () => {
      const results = await onBoth(() => {
        const kernel = random([...filter], 2) as tf.Tensor4D;
        const grad = tf.grad((image) => tf.conv2d(image as tf.Tensor4D, kernel, stride, pad));
        return grad(random([...x], 1), dyFor(x, filter, stride, pad));
      });
      expect(worstError(results)).toBeLessThan(1e-5);
    });
  }

  it("wasm: depthwise gradients equal the cpu's, with a channel multiplier and a stride", async () => {
    for (const stride of [1, 2]) {
      for (const which of [0, 1]) {
        const results = await onBoth(() => {
          const grads = tf.grads((x, f) =>
            tf.square(tf.depthwiseConv2d(x as tf.Tensor4D, f as tf.Tensor4D, stride, 'same')),
          );
          return grads([random([2, 7, 6, 3], 1), random([3, 3, 3, 2], 2)])[which]!;
        });
        expect(worstError(results)).toBeLessThan(1e-5);
      }
    }
  });
});

describe('gradients that the backend has, but wrong', () => {
  it.each([
    [2, 2, 'valid'],
    [2, 2, 'same'],
    [3, 2, 'same'],
    [3, 1, 'valid'],
  ] as const)('wasm: max-pooling %i stride %i %s, negative numbers too', async (size, stride, pad) => {
    const results = await onBoth(() => {
      const grad = tf.grad((x) => tf.square(tf.maxPool(x as tf.Tensor4D, size, stride, pad)));
      return grad(tf.sub(random([2, 7, 8, 5], 1), 0.5));
    });
    expect(worstError(results)).toBeLessThan(1e-6);
  });

  it.each([
    [16, 16, false],
    [5, 13, false],
    [16, 15, true],
  ] as const)('wasm: nearest-neighbour resizing to %ix%i is right as it is', async (height, width, align) => {
    // The cpu backend's gradient is the wrong one here. Resizing is linear, so <resize(x), dy> = <x, gradient(dy)>.
    await tf.setBackend('wasm');
    const dot = (a: tf.Tensor, b: tf.Tensor): number => tf.tidy(() => tf.sum(tf.mul(a, b)).dataSync()[0]!);
    const resize = (x: tf.Tensor): tf.Tensor =>
      tf.image.resizeNearestNeighbor(x as tf.Tensor4D, [height, width], align);
    const x = random([2, 8, 8, 3], 1);
    const dy = random([2, height, width, 3], 2);
    expect(dot(tf.grad(resize)(x, dy), x)).toBeCloseTo(dot(resize(x), dy), 4);
  });

  it.each([1, 2])('wasm: volume convolutions with stride %i', async (stride) => {
    for (const which of [0, 1]) {
      const results = await onBoth(() => {
        const grads = tf.grads((x, f) =>
          tf.square(tf.conv3d(x as tf.Tensor5D, f as tf.Tensor5D, stride, 'same')),
        );
        return grads([random([2, 5, 4, 3, 3], 1), random([2, 3, 2, 3, 4], 2)])[which]!;
      });
      expect(worstError(results)).toBeLessThan(1e-5);
    }
  });
});

describe('matrix products', () => {
  const SIZES = [
    [1, 1, 1],
    [5, 7, 9],
    [32, 64, 16],
    [4, 300, 8],
  ] as const;
  for (const [transposeA, transposeB] of [
    [true, false],
    [false, true],
    [true, true],
  ] as const) {
    it(`wasm: matMul(transposeA ${transposeA}, transposeB ${transposeB}) equals the cpu's`, async () => {
      for (const [m, k, n] of SIZES) {
        for (const batch of [[], [3]]) {
          const results = await onBoth(() => {
            const a = random([...batch, ...(transposeA ? [k, m] : [m, k])], 1);
            const b = random([...batch, ...(transposeB ? [n, k] : [k, n])], 2);
            return tf.matMul(a, b, transposeA, transposeB);
          });
          expect(worstError(results)).toBeLessThan(1e-5);
        }
      }
    });
  }

  it('wasm: matMul broadcasts a batch of one, as before', async () => {
    const results = await onBoth(() => tf.matMul(random([4, 3, 5], 1), random([1, 6, 5], 2), false, true));
    expect(worstError(results)).toBeLessThan(1e-5);
  });
});

describe('segment sums', () => {
  it('wasm: the gradient of gather adds up repeated rows', async () => {
    await tf.setBackend('wasm');
    const grad = tf.grad((table) => tf.gather(table, tf.tensor1d([2, 0, 2], 'int32')));
    const table = tf.zeros([3, 2]);
    // Row 2 is read by the first and the third, row 1 by none.
    const dy = tf.tensor2d([
      [1, 2],
      [3, 4],
      [10, 20],
    ]);
    expect(Array.from(grad(table, dy).dataSync())).toEqual([3, 4, 0, 0, 11, 22]);
  });

  it('wasm: integers are summed as integers, and ids out of range are left out', async () => {
    await tf.setBackend('wasm');
    const sum = tf.unsortedSegmentSum(
      tf.tensor1d([1, 2, 4, 8], 'int32'),
      tf.tensor1d([0, -1, 0, 1], 'int32'),
      2,
    );
    expect(sum.dtype).toBe('int32');
    expect(Array.from(sum.dataSync())).toEqual([5, 8]);
  });
});

describe('determinism', () => {
  it.each(['wasm', 'cpu'])('%s: the same gradients, byte for byte, on every repeat', async (backend) => {
    await tf.setBackend(backend);
    const once = (): Uint8Array =>
      tf.tidy(() => {
        const image = random([4, 12, 12, 3], 1) as tf.Tensor4D;
        const grad = tf.grad((f) => tf.relu(tf.conv2d(image, f as tf.Tensor4D, 2, 'same')));
        const data = grad(random([3, 3, 3, 12], 2)).dataSync();
        return new Uint8Array(data.slice().buffer);
      });
    const first = once();
    for (let i = 0; i < 5; i++) expect(once()).toEqual(first);
  });
});

function dyFor(
  x: readonly [number, number, number, number],
  filter: readonly [number, number, number, number],
  stride: number,
  pad: 'same' | 'valid',
): tf.Tensor {
  const length = (size: number, taps: number): number =>
    pad === 'same' ? Math.ceil(size / stride) : Math.ceil((size - taps + 1) / stride);
  return random([x[0], length(x[1], filter[0]), length(x[2], filter[1]), filter[3]], 3);
}
