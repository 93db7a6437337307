/**
 * The exact path's sampling: scipy.ndimage's affine_transform for orders 0 and 1 and its four fill modes. Coordinates
 * and weights are float64. A row's pixels that surely lie inside the source go through loops without any border test;
 * the rest, and all of order 0, through the careful path. Nothing is allocated for a pixel.
 */
import type { Affine } from './matrix.ts';
import type { Floats, Pixels, Size } from './pixels.ts';

export type FillMode = 'nearest' | 'constant' | 'reflect' | 'wrap';

export interface Sampling {
  fillMode: FillMode;
  /** The value outside the image for 'constant'. */
  cval: number;
  order: 0 | 1;
}

/** What happens to a value on its way out. */
export interface Finish {
  flipHorizontal: boolean;
  flipVertical: boolean;
  /** A factor, of the target's precision; 1 leaves values as they are. */
  scale: number;
}

export const PLAIN: Finish = { flipHorizontal: false, flipVertical: false, scale: 1 };

/**
 * Writes the resampled image to `target`, which must not overlap `source`. Both hold height × width × channels values
 * with the channels last; for channels_first call it once a plane with `channels: 1`.
 */
export function resample(
  source: Pixels,
  target: Floats,
  size: Size,
  affine: Affine,
  sampling: Sampling,
  finish: Finish = PLAIN,
): void {
  const { height, width, channels } = size;
  const { flipHorizontal, flipVertical } = finish;
  const scale = target instanceof Float32Array ? Math.fround(finish.scale) : finish.scale;
  const step = flipHorizontal ? -channels : channels;
  const [m00, m01, m10, m11, o0, o1] = affine;
  const linear = sampling.order === 1;
  const interior = { from: 0, to: 0 };
  for (let r = 0; r < height; r++) {
    // SciPy's order of summation: offset + row part, then + column part.
    const y = o0 + r * m00;
    const x = o1 + r * m10;
    interior.from = 0;
    interior.to = linear && height > 1 && width > 1 ? width : 0;
    narrow(interior, y, m01, height - 1);
    narrow(interior, x, m11, width - 1);
    const from = Math.min(interior.from, width);
    const to = Math.max(interior.to, from);
    const row = (flipVertical ? height - 1 - r : r) * width;
    const start = (row + (flipHorizontal ? width - 1 : 0)) * channels;
    border(source, target, size, start, step, 0, from, y, m01, x, m11, sampling);
    const at = start + from * step;
    if (channels === 3) bilinear3(source, target, width, at, step, from, to, y, m01, x, m11);
    else if (channels === 1) bilinear1(source, target, width, at, step, from, to, y, m01, x, m11);
    else bilinear(source, target, width, channels, at, step, from, to, y, m01, x, m11);
    border(source, target, size, start, step, to, width, y, m01, x, m11, sampling);
    if (scale === 1) continue;
    const end = (row + width) * channels;
    for (let i = row * channels; i < end; i++) target[i] = target[i]! * scale;
  }
}

/** Returns where coordinate x of an axis of n pixels is sampled, or -2 when 'constant' fills it. */
export function mapCoordinate(x: number, n: number, mode: FillMode): number {
  if (x >= 0 && x <= n - 1) return x;
  if (mode === 'constant') return -2;
  if (mode === 'nearest') return x < 0 ? 0 : n - 1;
  if (n <= 1) return 0;
  if (mode === 'wrap') {
    // The period is n - 1: the last pixel and the first are one.
    const period = n - 1;
    return x < 0 ? x + period * (Math.trunc(-x / period) + 1) : x - period * Math.trunc(x / period);
  }
  const period = 2 * n;
  if (x < 0) {
    const y = x < -period ? period * Math.trunc(-x / period) + x : x;
    return y < -n ? y + period : -y - 1;
  }
  const y = x - period * Math.trunc(x / period);
  return y >= n ? period - y - 1 : y;
}

/** Keeps of `range` only columns whose coordinate start + column·step is surely in [0, last), one spare each side. */
function narrow(range: { from: number; to: number }, start: number, step: number, last: number): void {
  if (range.to <= range.from) return;
  if (Math.abs(step) < 1e-12) {
    if (!(start > 1e-6 && start < last - 1e-6)) range.to = range.from;
    return;
  }
  const a = -start / step;
  const b = (last - start) / step;
  range.from = Math.max(range.from, Math.ceil(Math.min(a, b)) + 1);
  range.to = Math.min(range.to, Math.floor(Math.max(a, b)) - 1);
}

function bilinear3(
  source: Pixels,
  target: Floats,
  width: number,
  start: number,
  step: number,
  from: number,
  to: number,
  y0: number,
  dy: number,
  x0: number,
  dx: number,
): void {
  const row = width * 3;
  let at = start;
  for (let c = from; c < to; c++) {
    const y = y0 + c * dy;
    const x = x0 + c * dx;
    const iy = y | 0;
    const ix = x | 0;
    const ty = y - iy;
    const tx = x - ix;
    const w00 = (1 - ty) * (1 - tx);
    const w01 = (1 - ty) * tx;
    const w10 = ty * (1 - tx);
    const w11 = ty * tx;
    const p = iy * row + ix * 3;
    const q = p + row;
    target[at] = source[p]! * w00 + source[p + 3]! * w01 + source[q]! * w10 + source[q + 3]! * w11;
    target[at + 1] =
      source[p + 1]! * w00 + source[p + 4]! * w01 + source[q + 1]! * w10 + source[q + 4]! * w11;
    target[at + 2] =
      source[p + 2]! * w00 + source[p + 5]! * w01 + source[q + 2]! * w10 + source[q + 5]! * w11;
    at += step;
  }
}

function bilinear1(
  source: Pixels,
  target: Floats,
  width: number,
  start: number,
  step: number,
  from: number,
  to: number,
  y0: number,
  dy: number,
  x0: number,
  dx: number,
): void {
  let at = start;
  for (let c = from; c < to; c++) {
    const y = y0 + c * dy;
    const x = x0 + c * dx;
    const iy = y | 0;
    const ix = x | 0;
    const ty = y - iy;
    const tx = x - ix;
    const p = iy * width + ix;
    const q = p + width;
    target[at] =
      source[p]! * ((1 - ty) * (1 - tx)) +
      source[p + 1]! * ((1 - ty) * tx) +
      source[q]! * (ty * (1 - tx)) +
      source[q + 1]! * (ty * tx);
    at += step;
  }
}

function bilinear(
  source: Pixels,
  target: Floats,
  width: number,
  channels: number,
  start: number,
  step: number,
  from: number,
  to: number,
  y0: number,
  dy: number,
  x0: number,
  dx: number,
): void {
  let at = start;
  for (let c = from; c < to; c++) {
    const y = y0 + c * dy;
    const x = x0 + c * dx;
    const iy = y | 0;
    const ix = x | 0;
    const ty = y - iy;
    const tx = x - ix;
    const p = (iy * width + ix) * channels;
    const q = p + width * channels;
    for (let k = 0; k < channels; k++) {
      target[at + k] =
        source[p + k]! * ((1 - ty) * (1 - tx)) +
        source[p + channels + k]! * ((1 - ty) * tx) +
        source[q + k]! * (ty * (1 - tx)) +
        source[q + channels + k]! * (ty * tx);
    }
    at += step;
  }
}

/** Columns [from, to) of a row that begins at `start`, with the fill mode's rules. */
function border(
  source: Pixels,
  target: Floats,
  size: Size,
  start: number,
  step: number,
  from: number,
  to: number,
  y0: number,
  dy: number,
  x0: number,
  dx: number,
  sampling: Sampling,
): void {
  const { height, width, channels } = size;
  const { fillMode, cval, order } = sampling;
  let at = start + from * step;
  for (let c = from; c < to; c++) {
    const y = mapCoordinate(y0 + c * dy, height, fillMode);
    const x = mapCoordinate(x0 + c * dx, width, fillMode);
    if (y === -2 || x === -2) {
      for (let k = 0; k < channels; k++) target[at + k] = cval;
    } else if (order === 0) {
      const p = (inside(Math.floor(y + 0.5), height) * width + inside(Math.floor(x + 0.5), width)) * channels;
      for (let k = 0; k < channels; k++) target[at + k] = source[p + k]!;
    } else {
      const iy = Math.floor(y);
      const ix = Math.floor(x);
      const ty = y - iy;
      const tx = x - ix;
      const top = inside(iy, height) * width;
      const bottom = inside(iy + 1, height) * width;
      const left = inside(ix, width);
      const right = inside(ix + 1, width);
      const w00 = (1 - ty) * (1 - tx);
      const w01 = (1 - ty) * tx;
      const w10 = ty * (1 - tx);
      const w11 = ty * tx;
      const p00 = (top + left) * channels;
      const p01 = (top + right) * channels;
      const p10 = (bottom + left) * channels;
      const p11 = (bottom + right) * channels;
      for (let k = 0; k < channels; k++) {
        target[at + k] =
          source[p00 + k]! * w00 + source[p01 + k]! * w01 + source[p10 + k]! * w10 + source[p11 + k]! * w11;
      }
    }
    at += step;
  }
}

/** A neighbour one past an end is the end pixel itself: reflect asks for that, and elsewhere its weight is 0. */
function inside(index: number, n: number): number {
  return index < 0 ? 0 : index >= n ? n - 1 : index;
}
