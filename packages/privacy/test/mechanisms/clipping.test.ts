import { expect, test } from 'vitest';
import { clipToNorm } from '../../src/index.ts';

const close = (values: readonly number[]) => values.map((value) => expect.closeTo(value, 6));

test('the norm is taken over all tensors together (vector of Flower, norm 4, factor 1.5 / 4 = 0.375)', () => {
  const tensors = [
    Float32Array.of(1.5, -0.5, 2, -1),
    Float32Array.of(0.5, -0.5),
    Float32Array.of(-0.5, 1.5, -1, 2),
    Float32Array.of(-0.5, 0.5),
  ];
  // 2.25 + .25 + 4 + 1 + .25 + .25 + .25 + 2.25 + 1 + 4 + .25 + .25 = 16
  expect(clipToNorm(tensors, 1.5)).toEqual({ norm: 4, clipped: true });
  expect([...tensors[0]!]).toEqual(close([0.5625, -0.1875, 0.75, -0.375]));
});

test('(3, 4) becomes (1.8, 2.4) at 3, and with (1, 1), whose norm is below 3, sums to (2.8, 3.4) (vector of TFF)', () => {
  const [small, large] = [[Float32Array.of(1, 1)], [Float32Array.of(3), Float32Array.of(4)]];
  expect(clipToNorm(small, 3)).toEqual({ norm: Math.SQRT2, clipped: false });
  expect(clipToNorm(large, 3)).toEqual({ norm: 5, clipped: true });
  expect([small[0]![0]! + large[0]![0]!, small[0]![1]! + large[1]![0]!]).toEqual(close([2.8, 3.4]));
});

test('values 1, 3, 5 at 2 sum to 5, and two of them are clipped; at 1 and 3 they sum to 3 and 7 (vectors of TFF)', () => {
  const run = (clippingNorm: number) => {
    const updates = [1, 3, 5].map((value) => [Float32Array.of(value)]);
    const clipped = updates.filter((update) => clipToNorm(update, clippingNorm).clipped).length;
    return [updates.reduce((sum, update) => sum + update[0]![0]!, 0), clipped];
  };
  expect(run(2)).toEqual([expect.closeTo(5, 5), 2]);
  expect(run(1)[0]).toBeCloseTo(3, 5);
  expect(run(3)[0]).toBeCloseTo(7, 5);
});

test('an update of zeros stays zeros', () => {
  const zeros = [new Float32Array(3)];
  expect(clipToNorm(zeros, 0.1)).toEqual({ norm: 0, clipped: false });
  expect([...zeros[0]!]).toEqual([0, 0, 0]);
});

test('after clipping the norm is never above the clipping norm, whatever float32 rounds', () => {
  for (let seed = 1; seed <= 200; seed++) {
    const tensor = Float32Array.from(
      { length: 1000 },
      (_, i) => Math.sin(seed * 1000 + i) * 10 ** (seed % 7),
    );
    const clippingNorm = 0.1 + (seed % 13) / 17;
    clipToNorm([tensor], clippingNorm);
    const norm = Math.sqrt(tensor.reduce((sum, value) => sum + value * value, 0));
    expect(norm).toBeLessThanOrEqual(clippingNorm);
    expect(norm).toBeGreaterThan(clippingNorm * (1 - 1e-6));
  }
});

test('the largest numbers there are don’t overflow', () => {
  const tensor = Float32Array.of(3e38, 3e38);
  expect(clipToNorm([tensor], 1).clipped).toBe(true);
  expect([...tensor]).toEqual(close([Math.SQRT1_2, Math.SQRT1_2]));
});

test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
  'an update with %s is refused and left as it was',
  (value) => {
    const tensors = [Float32Array.of(5, 5), Float32Array.of(7, value)];
    expect(() => clipToNorm(tensors, 1)).toThrow(
      expect.objectContaining({
        code: 'FED_PRIVACY_UPDATE_NOT_FINITE',
        message: expect.stringContaining('tensor 1 has'),
      }),
    );
    expect([...tensors[0]!]).toEqual([5, 5]);
  },
);

test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])(
  'a clipping norm of %s is refused',
  (clippingNorm) => {
    expect(() => clipToNorm([Float32Array.of(1)], clippingNorm)).toThrow(RangeError);
  },
);
