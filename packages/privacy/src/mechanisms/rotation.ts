/**
 * Spreads a vector evenly over its coordinates before it is rounded: random signs, then a Walsh-Hadamard transform.
 * Afterwards no coordinate is large, so fewer bits hold them all (Suresh, Yu, Kumar, McMahan 2017, arXiv 1611.00429).
 * All clients of a round use one public seed, so that their sums can be turned back.
 */
import { createCipheriv } from 'node:crypto';

export const ROTATION_SEED_BYTES = 32;

/** Returns the length of a rotated vector of `dimension` numbers: the next power of two. */
export function rotatedLength(dimension: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1, dimension)));
}

/** Returns `values` rotated, a copy with zeros up to rotatedLength. Its L2 norm is the same. `seed`: 32 bytes, public. */
export function rotate(values: Float64Array, seed: Uint8Array): Float64Array {
  const rotated = new Float64Array(rotatedLength(values.length));
  rotated.set(values);
  flipSigns(rotated, seed);
  transform(rotated);
  return rotated;
}

/** Returns the `dimension` numbers that `rotate` made `rotated` of, or the sum of them if that is a sum. */
export function rotateBack(rotated: Float64Array, seed: Uint8Array, dimension: number): Float64Array {
  if (rotated.length !== rotatedLength(dimension)) {
    throw new RangeError(`${dimension} numbers rotate to ${rotatedLength(dimension)}; got ${rotated.length}`);
  }
  const values = rotated.slice();
  transform(values);
  flipSigns(values, seed);
  return values.slice(0, dimension);
}

/** Turns the sign of about half the values: those whose bit of an AES-256-CTR keystream under `seed` is set. */
function flipSigns(values: Float64Array, seed: Uint8Array): void {
  if (seed.length !== ROTATION_SEED_BYTES) {
    throw new RangeError(`a rotation's seed has ${ROTATION_SEED_BYTES} bytes; got ${seed.length}`);
  }
  const cipher = createCipheriv('aes-256-ctr', seed, new Uint8Array(16));
  const bits = cipher.update(new Uint8Array(Math.ceil(values.length / 8)));
  for (let i = 0; i < values.length; i++) {
    if ((bits[i >> 3]! >> (i & 7)) & 1) values[i] = -(values[i] as number);
  }
}

/** The orthonormal Walsh-Hadamard transform, in place: its own inverse. */
function transform(values: Float64Array): void {
  const n = values.length;
  for (let half = 1; half < n; half *= 2) {
    for (let start = 0; start < n; start += 2 * half) {
      for (let i = start; i < start + half; i++) {
        const a = values[i] as number;
        const b = values[i + half] as number;
        values[i] = a + b;
        values[i + half] = a - b;
      }
    }
  }
  const norm = 1 / Math.sqrt(n);
  for (let i = 0; i < n; i++) values[i] = (values[i] as number) * norm;
}
