/**
 * What one update gives away without any search. A dense layer with a bias gives its input: each row of its weights
 * moves by (what its bias moved by) times the input (Phong et al. 2018; Geiping et al. 2020). The last layer's bias
 * gives the labels: under a softmax or sigmoid with cross-entropy it moves up only for classes that were there (iDLG:
 * Zhao, Mopuri and Bilen 2020).
 */

export interface DenseUpdate {
  /** How the kernel moved, or its gradient: [inputs, units], row-major, as TensorFlow.js keeps a dense kernel. */
  readonly kernel: ArrayLike<number>;
  /** How the bias moved, or its gradient: [units]. */
  readonly bias: ArrayLike<number>;
}

/**
 * Returns the input of a dense layer, [inputs], from one step on one example: exact but for rounding, whatever the
 * learning rate. From more examples it is their mean, weighted by what they did to the unit. The unit whose bias moved
 * most is taken, having the least rounding error. Undefined when no bias moved, as behind units that were all off.
 *
 * Throws RangeError when the kernel is not a whole number of rows of `bias.length`.
 */
export function leakedInput({ kernel, bias }: DenseUpdate): Float64Array | undefined {
  const units = bias.length;
  if (units === 0 || kernel.length === 0 || kernel.length % units !== 0)
    throw new RangeError(`a kernel of ${kernel.length} numbers does not fit a bias of ${units}`);
  let unit = 0;
  for (let i = 1; i < units; i++) if (Math.abs(bias[i]!) > Math.abs(bias[unit]!)) unit = i;
  const moved = bias[unit]!;
  if (moved === 0) return undefined;
  return Float64Array.from(
    { length: kernel.length / units },
    (_, input) => kernel[input * units + unit]! / moved,
  );
}

/**
 * Returns the classes that the gradient of the last bias, [classes], says were among the examples, in ascending order:
 * those with a negative entry. For one example that is its class. Of several it may miss some and never names a wrong
 * one. A single output (a sigmoid for two classes) gives [1] or [0], for one example.
 */
export function leakedLabels(biasGradient: ArrayLike<number>): number[] {
  if (biasGradient.length === 1) return [biasGradient[0]! < 0 ? 1 : 0];
  return Array.from(biasGradient, (value, label) => ({ value, label }))
    .filter(({ value }) => value < 0)
    .map(({ label }) => label);
}

export interface ImageError {
  /** Mean squared error a number. */
  readonly mse: number;
  /** 10 log10(range^2 / mse), in dB; Infinity for equal images. About 30 and more looks right, below 10 nothing is seen. */
  readonly psnr: number;
}

/**
 * Returns how far `guess` is from `image`, both of the same length, with numbers in [low, high]; what the guess has
 * outside is clipped to that first. Throws RangeError for lengths that differ.
 */
export function imageError(
  image: ArrayLike<number>,
  guess: ArrayLike<number>,
  [low, high]: readonly [low: number, high: number] = [0, 1],
): ImageError {
  if (image.length !== guess.length || image.length === 0)
    throw new RangeError(`images of ${image.length} and ${guess.length} numbers can't be compared`);
  let squares = 0;
  for (let i = 0; i < image.length; i++)
    squares += (image[i]! - Math.min(high, Math.max(low, guess[i]!))) ** 2;
  const mse = squares / image.length;
  return { mse, psnr: 10 * Math.log10((high - low) ** 2 / mse) };
}
