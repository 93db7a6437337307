/** Channel shift, brightness and flips, in place, with the roundings of the float32 and uint8 steps that Keras takes. */
import type { Variant } from './matrix.ts';
import type { DataFormat, Floats, Size } from './pixels.ts';

/** Adds `intensity` to every value and clips to the image's own [min, max]. In place. */
export function shiftChannels(data: Floats, intensity: number): void {
  const { min, max } = extent(data);
  const wide = data instanceof Float64Array;
  const k = wide ? intensity : Math.fround(intensity);
  for (let i = 0; i < data.length; i++) {
    const value = wide ? data[i]! + k : Math.fround(data[i]! + k);
    data[i] = Math.min(Math.max(value, min), max);
  }
}

/**
 * Multiplies the brightness by `factor` (>= 0; 1 changes only what rounding does) as Pillow's enhancer does: values
 * are truncated to whole numbers in [0, 255]. In place. `keras3` first stretches values outside [0, 255] into that
 * range and undoes it at the end, so an image in [0, 1] turns almost black; `classic` always stretches and never
 * undoes. The fourth channel of four is alpha and is kept.
 * @throws RangeError unless the image has 1, 3 or 4 channels
 */
export function scaleBrightness(
  data: Floats,
  factor: number,
  size: Size,
  format: DataFormat,
  variant: Variant,
): void {
  const { channels } = size;
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    throw new RangeError(`brightness needs 1, 3 or 4 channels; the image has ${channels}`);
  }
  const f32 = Math.fround;
  const { min, max } = extent(data);
  const stretch = variant === 'classic' || min < 0 || max > 255;
  const span = f32(max - min);
  const factor32 = f32(factor);
  const plane = size.height * size.width;
  for (let i = 0; i < data.length; i++) {
    let value = data[i]!;
    if (stretch) {
      value = f32(value - min);
      if (span !== 0) value = f32(value / span);
      value = f32(value * 255);
    }
    value = Math.trunc(value);
    const alpha = channels === 4 && (format === 'channels_last' ? i % 4 === 3 : i >= 3 * plane);
    if (!alpha) {
      const scaled = f32(factor32 * value);
      value = scaled <= 0 ? 0 : scaled >= 255 ? 255 : Math.trunc(scaled);
    }
    data[i] = stretch && variant === 'keras3' ? f32(f32(f32(value / 255) * span) + min) : value;
  }
}

/** Mirrors left and right, in place. */
export function flipHorizontal(data: Floats, size: Size, format: DataFormat): void {
  const { height, width } = size;
  const step = format === 'channels_last' ? size.channels : 1;
  const rows = format === 'channels_last' ? height : height * size.channels;
  for (let r = 0; r < rows; r++) {
    let left = r * width * step;
    let right = left + (width - 1) * step;
    for (; left < right; left += step, right -= step) {
      for (let k = 0; k < step; k++) swap(data, left + k, right + k);
    }
  }
}

/** Mirrors top and bottom, in place. */
export function flipVertical(data: Floats, size: Size, format: DataFormat): void {
  const { height } = size;
  const planes = format === 'channels_last' ? 1 : size.channels;
  const row = format === 'channels_last' ? size.width * size.channels : size.width;
  const spare = data.slice(0, row);
  for (let p = 0; p < planes; p++) {
    const start = p * height * row;
    for (let top = 0, bottom = height - 1; top < bottom; top++, bottom--) {
      spare.set(data.subarray(start + top * row, start + (top + 1) * row));
      data.copyWithin(start + top * row, start + bottom * row, start + (bottom + 1) * row);
      data.set(spare, start + bottom * row);
    }
  }
}

function extent(data: ArrayLike<number>): { min: number; max: number } {
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < data.length; i++) {
    const value = data[i]!;
    if (value < min) min = value;
    if (value > max) max = value;
  }
  return { min, max };
}

function swap(data: Floats, i: number, j: number): void {
  const kept = data[i]!;
  data[i] = data[j]!;
  data[j] = kept;
}
