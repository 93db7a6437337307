/**
 * Pillow's resizing of uint8 images, value for value: nearest by tabulated positions; bilinear and bicubic (Keys 1981,
 * a = -0.5) with a support that widens when shrinking, weights in 22-bit fixed point, a horizontal pass and then a
 * vertical one, each rounded to uint8.
 */

export type Interpolation = 'nearest' | 'bilinear' | 'bicubic';

/** Decoded pixels, channels last. */
export interface Raster {
  data: Uint8Array;
  height: number;
  width: number;
  channels: number;
}

/** The part of an image that is resized, in whole pixels: columns [left, right), rows [top, bottom). */
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

interface Taps {
  /** First source index of each output. */
  first: Int32Array;
  /** Number of taps of each output. */
  count: Int32Array;
  /** `stride` weights an output, times 2^22. */
  weights: Int32Array;
  stride: number;
}

const PRECISION_BITS = 22;

/**
 * Returns the image (or its `box`) at height × width; the same object when nothing changes. Four channels are RGBA:
 * bilinear and bicubic weigh colours by alpha. Taps near a box's edge reach past it into the image, as Pillow's do.
 * @param scratch memory of the result's length that the result may lie in; only 'nearest' makes use of it
 */
export function resize(
  image: Raster,
  height: number,
  width: number,
  interpolation: Interpolation,
  box: Box = { left: 0, top: 0, right: image.width, bottom: image.height },
  scratch?: Uint8Array,
): Raster {
  const whole = box.left === 0 && box.top === 0 && box.right === image.width && box.bottom === image.height;
  if (whole && height === image.height && width === image.width) return image;
  if (interpolation === 'nearest') return nearest(image, height, width, box, scratch);
  const alpha = image.channels === 4;
  let current = alpha ? premultiply(image) : image;
  const columns = tabulate(image.width, box.left, box.right, width, interpolation);
  const rows = tabulate(image.height, box.top, box.bottom, height, interpolation);
  if (width !== image.width || box.left !== 0 || box.right !== image.width)
    current = resizeRows(current, width, columns, rows);
  if (height !== image.height || box.top !== 0 || box.bottom !== image.height)
    current = resizeColumns(current, height, rows);
  return alpha ? unpremultiply(current) : current;
}

/** Returns the centre box with the aspect ratio of the target, as Keras's keep_aspect_ratio crops. */
export function centreBox(image: Pick<Raster, 'height' | 'width'>, height: number, width: number): Box {
  const cropHeight = Math.min(image.height, Math.floor((image.width * height) / width));
  const cropWidth = Math.min(image.width, Math.floor((image.height * width) / height));
  const top = Math.floor((image.height - cropHeight) / 2);
  const left = Math.floor((image.width - cropWidth) / 2);
  return { left, top, right: left + cropWidth, bottom: top + cropHeight };
}

function nearest(image: Raster, height: number, width: number, box: Box, scratch?: Uint8Array): Raster {
  const { channels } = image;
  const { rows, columns } = nearestSources(height, width, box);
  const source = image.data;
  const length = height * width * channels;
  const data = scratch?.length === length ? scratch : new Uint8Array(length);
  for (let c = 0; c < width; c++) columns[c]! *= channels;
  let at = 0;
  for (let r = 0; r < height; r++) {
    const row = rows[r]! * image.width * channels;
    if (channels === 3) {
      for (let c = 0; c < width; c++, at += 3) {
        const from = row + columns[c]!;
        data[at] = source[from]!;
        data[at + 1] = source[from + 1]!;
        data[at + 2] = source[from + 2]!;
      }
    } else {
      for (let c = 0; c < width; c++) {
        const from = row + columns[c]!;
        for (let k = 0; k < channels; k++) data[at++] = source[from + k]!;
      }
    }
  }
  return { data, height, width, channels };
}

/** Returns the source rows and columns of 'nearest'. */
export function nearestSources(
  height: number,
  width: number,
  box: Box,
): { rows: Int32Array; columns: Int32Array } {
  return { rows: positions(box.top, box.bottom, height), columns: positions(box.left, box.right, width) };
}

/** Source index of each output: the step is added up, rounding and all, because Pillow does so. */
function positions(from: number, to: number, count: number): Int32Array {
  const step = (to - from) / count;
  let position = from + step * 0.5;
  const indices = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    indices[i] = Math.min(Math.floor(position), to - 1);
    position += step;
  }
  return indices;
}

function tabulate(size: number, from: number, to: number, count: number, interpolation: Interpolation): Taps {
  const [radius, weigh] = interpolation === 'bilinear' ? ([1, triangle] as const) : ([2, keys] as const);
  const scale = (to - from) / count;
  const widening = Math.max(scale, 1);
  const support = radius * widening;
  const stride = Math.ceil(support) * 2 + 1;
  const taps: Taps = {
    first: new Int32Array(count),
    count: new Int32Array(count),
    weights: new Int32Array(count * stride),
    stride,
  };
  const exact = new Float64Array(stride);
  for (let i = 0; i < count; i++) {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const n = Math.min(size, Math.trunc(centre + support + 0.5)) - first;
    let sum = 0;
    for (let k = 0; k < n; k++) {
      exact[k] = weigh((k + first - centre + 0.5) * (1 / widening));
      sum += exact[k]!;
    }
    taps.first[i] = first;
    taps.count[i] = n;
    for (let k = 0; k < n; k++) {
      const weight = (sum === 0 ? exact[k]! : exact[k]! / sum) * 2 ** PRECISION_BITS;
      taps.weights[i * stride + k] = Math.trunc(weight + (weight < 0 ? -0.5 : 0.5));
    }
  }
  return taps;
}

function triangle(x: number): number {
  const distance = Math.abs(x);
  return distance < 1 ? 1 - distance : 0;
}

function keys(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

/** The horizontal pass, over only those rows that the vertical one will read. */
function resizeRows(image: Raster, width: number, taps: Taps, rows: Taps): Raster {
  const { data: source, height, channels } = image;
  const data = new Uint8Array(height * width * channels);
  const last = rows.first.length - 1;
  const end = rows.first[last]! + rows.count[last]!;
  for (let r = rows.first[0]!; r < end; r++) {
    const row = r * image.width * channels;
    let at = r * width * channels;
    for (let c = 0; c < width; c++) {
      const n = taps.count[c]!;
      const w = c * taps.stride;
      const start = row + taps.first[c]! * channels;
      for (let k = 0; k < channels; k++) {
        let sum = 1 << (PRECISION_BITS - 1);
        for (let t = 0, from = start + k; t < n; t++, from += channels) {
          sum = (sum + Math.imul(source[from]!, taps.weights[w + t]!)) | 0;
        }
        data[at++] = clamp(sum >> PRECISION_BITS);
      }
    }
  }
  return { data, height, width, channels };
}

function resizeColumns(image: Raster, height: number, taps: Taps): Raster {
  const { data: source, width, channels } = image;
  const row = width * channels;
  const data = new Uint8Array(height * row);
  const sums = new Int32Array(row);
  for (let r = 0; r < height; r++) {
    sums.fill(1 << (PRECISION_BITS - 1));
    for (let t = 0; t < taps.count[r]!; t++) {
      const weight = taps.weights[r * taps.stride + t]!;
      const from = (taps.first[r]! + t) * row;
      for (let i = 0; i < row; i++) sums[i] = sums[i]! + Math.imul(source[from + i]!, weight);
    }
    for (let i = 0; i < row; i++) data[r * row + i] = clamp(sums[i]! >> PRECISION_BITS);
  }
  return { data, height, width, channels };
}

function clamp(value: number): number {
  return Math.max(0, Math.min(value, 255));
}

function premultiply(image: Raster): Raster {
  const data = image.data.slice();
  for (let i = 0; i < data.length; i += 4) {
    const alpha = data[i + 3]!;
    for (let k = 0; k < 3; k++) data[i + k] = timesOver255(data[i + k]!, alpha);
  }
  return { ...image, data };
}

function unpremultiply(image: Raster): Raster {
  const { data } = image;
  for (let i = 0; i < data.length; i += 4) {
    const alpha = data[i + 3]!;
    if (alpha === 0 || alpha === 255) continue;
    for (let k = 0; k < 3; k++) data[i + k] = clamp(Math.floor((255 * data[i + k]!) / alpha));
  }
  return image;
}

/** a·b/255, rounded. */
function timesOver255(a: number, b: number): number {
  const product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}
