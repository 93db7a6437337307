/** The discrete Fourier transform of a power of two of complex numbers (Cooley and Tukey 1965), in place. */

export interface Complex {
  readonly re: Float64Array;
  readonly im: Float64Array;
}

/** A transform for vectors of `size`, a power of two. `inverse` undoes `forward`, its division by the size included. */
export interface Fft {
  forward(vector: Complex): void;
  inverse(vector: Complex): void;
}

export function createFft(size: number): Fft {
  if (!Number.isInteger(Math.log2(size)))
    throw new RangeError(`createFft: size ${size} is not a power of two`);
  const half = size / 2;
  const cosines = new Float64Array(half);
  const sines = new Float64Array(half);
  for (let i = 0; i < half; i++) {
    cosines[i] = Math.cos((2 * Math.PI * i) / size);
    sines[i] = -Math.sin((2 * Math.PI * i) / size);
  }

  function transform(re: Float64Array, im: Float64Array): void {
    if (re.length !== size || im.length !== size)
      throw new RangeError(`a vector of [${re.length}, ${im.length}] in a transform of ${size}`);
    for (let i = 1, j = 0; i < size; i++) {
      let bit = half;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        swap(re, i, j);
        swap(im, i, j);
      }
    }
    for (let span = 1; span < size; span *= 2) {
      const stride = half / span;
      for (let from = 0; from < size; from += 2 * span) {
        for (let i = from, k = 0; i < from + span; i++, k += stride) {
          const [a, b] = [re[i + span]!, im[i + span]!];
          const [cosine, sine] = [cosines[k]!, sines[k]!];
          const x = a * cosine - b * sine;
          const y = a * sine + b * cosine;
          re[i + span] = re[i]! - x;
          im[i + span] = im[i]! - y;
          re[i] = re[i]! + x;
          im[i] = im[i]! + y;
        }
      }
    }
  }

  return {
    forward: ({ re, im }) => transform(re, im),
    inverse({ re, im }) {
      // With real and imaginary parts swapped, forward is backward.
      transform(im, re);
      for (let i = 0; i < size; i++) {
        re[i] = re[i]! / size;
        im[i] = im[i]! / size;
      }
    },
  };
}

/** Raises each number to a whole `exponent` of 1 or more and multiplies it into `product`. `base` is used up. */
export function multiplyPower(product: Complex, base: Complex, exponent: number): void {
  const { re, im } = base;
  for (let i = 0; i < re.length; i++) {
    let [x, y] = [re[i]!, im[i]!];
    let [px, py] = [product.re[i]!, product.im[i]!];
    for (let rest = exponent; ; ) {
      if (rest % 2 === 1) [px, py] = [px * x - py * y, px * y + py * x];
      rest = Math.floor(rest / 2);
      if (rest === 0) break;
      [x, y] = [x * x - y * y, 2 * x * y];
    }
    product.re[i] = px;
    product.im[i] = py;
  }
}

function swap(array: Float64Array, i: number, j: number): void {
  const kept = array[i]!;
  array[i] = array[j]!;
  array[j] = kept;
}
