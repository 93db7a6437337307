/**
 * The usual case of affine.ts in WebAssembly, with the same results to the bit: RGB bytes, bilinear, borders clamped,
 * to float32. The image is copied in, and comes out a band of rows at a time, while it is still in the processor's cache.
 */
import { AFFINE_WASM } from '../kernels/affine.ts';
import { kernel, type Memory, reserve } from '../kernels/instantiate.ts';
import type { Finish, Sampling } from './affine.ts';
import type { Affine } from './matrix.ts';
import type { Floats, Pixels, Size } from './pixels.ts';

interface Kernel {
  readonly memory: Memory;
  resample(
    source: number,
    target: number,
    height: number,
    width: number,
    from: number,
    to: number,
    ...rest: [...Affine, flipHorizontal: boolean, flipVertical: boolean, scale: number]
  ): void;
}

const BAND_ROWS = 16;
/** What the kernel may read behind the source, and write behind a band. */
const SLACK = 32;
/** The memory of an instance never shrinks. */
const MAX_VALUES = 2 ** 24;

const load = kernel<Kernel>(AFFINE_WASM);

/** Does what `resample` does and returns true, or returns false when this is not the usual case. */
export function resampleFast(
  source: Pixels,
  target: Floats,
  size: Size,
  affine: Affine,
  { fillMode, order }: Sampling,
  { flipHorizontal, flipVertical, scale }: Finish,
): boolean {
  const { height, width, channels } = size;
  if (channels !== 3 || order !== 1 || fillMode !== 'nearest') return false;
  if (!(source instanceof Uint8Array && target instanceof Float32Array)) return false;
  if (source.length > MAX_VALUES || !affine.every(Number.isFinite)) return false;
  const exports = load();
  if (exports === undefined) return false;
  const row = width * 3;
  const at = align(source.length + row + SLACK);
  reserve(exports.memory, at + BAND_ROWS * row * Float32Array.BYTES_PER_ELEMENT + SLACK);
  new Uint8Array(exports.memory.buffer, 0, source.length).set(source);
  const band = new Float32Array(exports.memory.buffer, at, BAND_ROWS * row);
  for (let from = 0; from < height; from += BAND_ROWS) {
    const to = Math.min(height, from + BAND_ROWS);
    exports.resample(0, at, height, width, from, to, ...affine, flipHorizontal, flipVertical, scale);
    target.set(to - from === BAND_ROWS ? band : band.subarray(0, (to - from) * row), from * row);
  }
  return true;
}

function align(bytes: number): number {
  return Math.ceil(bytes / 16) * 16;
}
