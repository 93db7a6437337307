import { describe, expect, test } from 'vitest';
import { imageError, leakedInput, leakedLabels } from '../../src/index.ts';

describe('leakedInput', () => {
  test('the kernel’s movement over the bias’s is the input, whatever the step', () => {
    // Input [2, -1, 0.5], errors of the two units [0.25, -4], learning rate 0.1: kernel moves by -0.1 x_i e_j.
    const kernel = [-0.05, 0.8, 0.025, -0.4, -0.0125, 0.2];
    const input = leakedInput({ kernel, bias: [-0.025, 0.4] })!;
    expect(Array.from(input, (value) => Number(value.toFixed(12)))).toEqual([2, -1, 0.5]);
  });

  test('units that were all off give nothing', () => {
    expect(leakedInput({ kernel: [0, 0, 0, 0], bias: [0, 0] })).toBeUndefined();
  });

  test('a kernel that does not fit the bias is refused', () => {
    expect(() => leakedInput({ kernel: [1, 2, 3], bias: [1, 2] })).toThrow('kernel of 3 numbers');
  });
});

describe('leakedLabels', () => {
  test('negative entries are the classes: softmax minus one-hot', () => {
    expect(leakedLabels([0.2, -0.7, 0.5])).toEqual([1]);
    // The mean of two examples, classes 0 and 2.
    expect(leakedLabels([-0.3, 0.4, -0.1])).toEqual([0, 2]);
  });

  test('a single sigmoid output: negative for the second class', () => {
    expect(leakedLabels([-0.4])).toEqual([1]);
    expect(leakedLabels([0.6])).toEqual([0]);
  });
});

describe('imageError', () => {
  test('mse and psnr, of a guess clipped to the range of pixels', () => {
    // 3 is clipped to 1 and -2 to 0; one pixel of four is off by 0.1: mse 0.01 / 4.
    expect(imageError([1, 0.5, 0, 0], [3, 0.6, -2, 0]).mse).toBeCloseTo(0.0025, 12);
    // 10 log10(1 / 0.0025) = 26.02.
    expect(imageError([1, 0.5, 0, 0], [3, 0.6, -2, 0]).psnr).toBeCloseTo(26.0206, 4);
    // In 0 to 255: an error of 255 everywhere is 0 dB.
    expect(imageError([0, 255], [255, 0], [0, 255]).psnr).toBeCloseTo(0, 12);
    // In -1 to 1: the range is 2, so an error of 2 is 0 dB; -5 is clipped.
    expect(imageError([1], [-5], [-1, 1])).toEqual({ mse: 4, psnr: 0 });
    expect(imageError([0.5], [0.5])).toEqual({ mse: 0, psnr: Infinity });
    expect(() => imageError([1], [1, 2])).toThrow('1 and 2');
  });
});
