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

/** Numbers whose transform stays in the cache: 64 KiB of them and of factors each. */
const CACHED = 4096;

export function createFft(size: number): Fft {
  if (!Number.isInteger(Math.log2(size)))
    throw new RangeError(`createFft: size ${size} is not a power of two`);
  // The factors of each stage side by side: those for spans of `span` begin at `span`.
  const cosines = new Float64Array(size);
  const sines = new Float64Array(size);
  for (let span = 1; span < size; span *= 2) {
    for (let k = 0; k < span; k++) {
      cosines[span + k] = Math.cos((Math.PI * k) / span);
      sines[span + k] = -Math.sin((Math.PI * k) / span);
    }
  }

  function transform(re: Float64Array, im: Float64Array): void {
    if (re.length !== size || im.length !== size)
      throw new RangeError(`a vector of [${re.length}, ${im.length}] in a transform of ${size}`);
    for (let i = 1, j = 0; i < size; i++) {
      let bit = size / 2;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) {
        swap(re, i, j);
        swap(im, i, j);
      }
    }
    stages(re, im, 0, size);
  }

  /** All stages of the part of `length` at `from`: halves first, which then fit the processor's cache. */
  function stages(re: Float64Array, im: Float64Array, from: number, length: number): void {
    if (length > CACHED) {
      stages(re, im, from, length / 2);
      stages(re, im, from + length / 2, length / 2);
      butterflies(re, im, from, length / 2);
      return;
    }
    for (let span = 1; span < length; span *= 2) {
      for (let at = from; at < from + length; at += 2 * span) butterflies(re, im, at, span);
    }
  }

  function butterflies(re: Float64Array, im: Float64Array, from: number, span: number): void {
    for (let k = 0; k < span; k++) {
      const low = from + k;
      const high = low + span;
      const cosine = cosines[span + k]!;
      const sine = sines[span + k]!;
      const a = re[high]!;
      const b = im[high]!;
      const x = a * cosine - b * sine;
      const y = a * sine + b * cosine;
      re[high] = re[low]! - x;
      im[high] = im[low]! - y;
      re[low] = re[low]! + x;
      im[low] = im[low]! + y;
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
    let x = re[i]!;
    let y = im[i]!;
    let px = product.re[i]!;
    let py = product.im[i]!;
    for (let rest = exponent; ; ) {
      if (rest % 2 === 1) {
        const real = px * x - py * y;
        py = px * y + py * x;
        px = real;
      }
      rest = Math.floor(rest / 2);
      if (rest === 0) break;
      const real = x * x - y * y;
      y = 2 * x * y;
      x = real;
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
