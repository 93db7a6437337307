/**
 * Featurewise statistics: the mean and standard deviation (population, ddof 0) of each channel over a data set. Sums
 * are float64 whatever the pixels are. The ZCA matrix is fitted in zca.ts and applied here.
 */

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
