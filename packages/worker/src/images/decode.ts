/**
 * Files to uint8 pixels, as Pillow's open and convert give them: embedded colour profiles and EXIF orientation are not
 * applied, palettes are expanded, alpha is dropped (not blended), and 16 bits keep their high byte. PNG, JPEG, WebP,
 * TIFF and AVIF go through sharp on its own threads; BMP and PPM, which it can't read, and small PNG files, for which it
 * is slow, are decoded here. The number of pixels is checked in the header, before anything is decoded.
 */
import { readFile } from 'node:fs/promises';
import { decode as decodeBmp } from 'bmp-ts';
import type { default as Sharp } from 'sharp';
import { WorkerError } from '../errors.ts';
import { decodeBaselineJpeg } from './baseline-jpeg.ts';
import { decodePlainJpeg, plainJpegSize } from './jpeg.ts';
import { decodeNetpbm, isNetpbm, netpbmSize } from './netpbm.ts';
import { decodePlainPng } from './png.ts';
import { centreBox, type Interpolation, nearestSources, type Raster, resize } from './resize.ts';

/** Pillow's own limit against decompression bombs: two times 2^30 / 3 / 4 pixels. */
export const MAX_PIXELS = 178_956_970;

export type ColorMode = 'grayscale' | 'rgb' | 'rgba';

export interface LoadOptions {
  /** @default 'rgb' */
  colorMode?: ColorMode;
  /** [height, width] in pixels; null keeps the file's. @default null */
  targetSize?: readonly [number, number] | null;
  /** @default 'nearest' */
  interpolation?: Interpolation;
  /** Crop to the target's aspect ratio, around the centre, before resizing. @default false */
  keepAspectRatio?: boolean;
  /** Width times height above which a file is refused undecoded. @default MAX_PIXELS */
  maxPixels?: number;
}

const CHANNELS = { grayscale: 1, rgb: 3, rgba: 4 } as const;

const RASTER_FORMATS: readonly string[] = ['png', 'jpeg', 'webp', 'tiff', 'gif', 'heif'];

let library: Promise<typeof Sharp> | undefined;

/** The image library, loaded with the first image that needs it: a tenth of a second that most processes never spend. */
function openLibrary(): Promise<typeof Sharp> {
  library ??= import('sharp').then(({ default: sharp }) => {
    // Its cache goes by file and buffer identity, holds memory, and would answer for a file that has changed.
    sharp.cache(false);
    return sharp;
  });
  return library;
}

/**
 * Returns the image of a file in the colour mode and size asked for, channels last.
 * @throws WorkerError FED_IMAGE_UNREADABLE or FED_IMAGE_TOO_LARGE, with the file and the reason in the message
 */
export async function loadImage(file: string, options: LoadOptions = {}): Promise<Raster> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    throw unopenable(file, cause);
  }
  return fitImage(await decodeImage(bytes, file, options.maxPixels), options);
}

/**
 * Returns a decoded image in the colour mode and size asked for; the same object when nothing changes. With `scratch`,
 * of the result's length, the result may lie there.
 */
export function fitImage(decoded: Raster, options: LoadOptions, scratch?: Uint8Array): Raster {
  const { colorMode = 'rgb', targetSize, interpolation = 'nearest', keepAspectRatio = false } = options;
  const converted = convertColour(decoded, colorMode);
  if (!targetSize) return converted;
  const [height, width] = targetSize;
  const box = keepAspectRatio ? centreBox(converted, height, width) : undefined;
  return resize(converted, height, width, interpolation, box, scratch);
}

/**
 * Decodes an ordinary JPEG file on the spot, and of the pixels only those that `fitImage` would keep, where that is a
 * choice among them. Returns undefined for all other files. The pixels are valid until the next call.
 */
export function decodeOrdinaryJpeg(bytes: Uint8Array, options: LoadOptions): Raster | undefined {
  const { targetSize, interpolation = 'nearest', keepAspectRatio = false } = options;
  const pick =
    targetSize && interpolation === 'nearest'
      ? (fileHeight: number, fileWidth: number) => {
          const [height, width] = targetSize;
          const image = { height: fileHeight, width: fileWidth };
          const whole = { left: 0, top: 0, right: fileWidth, bottom: fileHeight };
          return nearestSources(height, width, keepAspectRatio ? centreBox(image, height, width) : whole);
        }
      : undefined;
  return decodeBaselineJpeg(bytes, pick) ?? decodePlainJpeg(bytes);
}

/** Returns the error of a file that can't be read. */
export function unopenable(file: string, cause: unknown): WorkerError {
  return unreadable(
    file,
    `it can't be opened (${(cause as NodeJS.ErrnoException).code ?? 'unknown'})`,
    cause,
  );
}

/**
 * Returns a file's first image with 1 (grey), 3 (RGB) or 4 (RGBA) channels.
 * @param name what error messages call it
 * @throws WorkerError FED_IMAGE_UNREADABLE or FED_IMAGE_TOO_LARGE
 */
export async function decodeImage(bytes: Uint8Array, name: string, maxPixels = MAX_PIXELS): Promise<Raster> {
  if (bytes.length === 0) throw unreadable(name, 'the file is empty');
  const check = (width: number, height: number) => {
    if (width * height <= maxPixels) return;
    throw new WorkerError(
      'FED_IMAGE_TOO_LARGE',
      `${name}: ${width} x ${height} pixels are too many; at most ${maxPixels} are decoded. Scale the image down first.`,
    );
  };
  try {
    if (isNetpbm(bytes)) {
      check(...netpbmSize(bytes));
      return decodeNetpbm(bytes);
    }
    if (bytes[0] === 0x42 && bytes[1] === 0x4d) return bmp(bytes, check);
    return decodePlainPng(bytes, maxPixels) ?? (await viaSharp(bytes, check));
  } catch (error) {
    if (error instanceof WorkerError) throw error;
    throw unreadable(name, reasonOf(error), error);
  }
}

/** Returns the image in a colour mode, by Pillow's formulas: grey = (19595 R + 38470 G + 7471 B + 32768) >> 16. */
export function convertColour(image: Raster, mode: ColorMode): Raster {
  const { data: source, height, width, channels: from } = image;
  const to = CHANNELS[mode];
  if (from === to) return image;
  const data = new Uint8Array(height * width * to);
  for (let p = 0, at = 0; p < source.length; p += from, at += to) {
    const r = source[p]!;
    const g = from === 1 ? r : source[p + 1]!;
    const b = from === 1 ? r : source[p + 2]!;
    if (to === 1) data[at] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else {
      data[at] = r;
      data[at + 1] = g;
      data[at + 2] = b;
      if (to === 4) data[at + 3] = 255;
    }
  }
  return { data, height, width, channels: to };
}

async function viaSharp(bytes: Uint8Array, check: (width: number, height: number) => void): Promise<Raster> {
  const sharp = await openLibrary();
  const image = sharp(bytes, {
    limitInputPixels: false,
    ignoreIcc: true,
    failOn: 'error',
    sequentialRead: true,
  });
  // The library's own look at the header costs as much as a tenth of the decoding.
  const plain = plainJpegSize(bytes);
  const { width, height, space, format } =
    plain === undefined ? await image.metadata() : ({ ...plain, space: 'srgb', format: 'jpeg' } as const);
  // The library also draws vector files, which may refer to others; they are not data.
  if (!RASTER_FORMATS.includes(format))
    throw new Error(`it is a file of kind '${format}', which is not read`);
  check(width, height);
  const cmyk = space === 'cmyk';
  if (cmyk) image.pipelineColourspace('cmyk').toColourspace('cmyk');
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
  const raster = { data, height: info.height, width: info.width, channels: info.channels };
  return cmyk ? fromCmyk(raster) : raster;
}

/** Without a colour profile, as Pillow does: 255 - k, less its share of c, m and y. */
function fromCmyk(image: Raster): Raster {
  const { data: source, height, width, channels } = image;
  const data = new Uint8Array(height * width * 3);
  for (let p = 0, at = 0; p < source.length; p += channels, at += 3) {
    const light = 255 - source[p + 3]!;
    for (let k = 0; k < 3; k++) {
      const product = source[p + k]! * light + 128;
      data[at + k] = light - (((product >> 8) + product) >> 8);
    }
  }
  return { data, height, width, channels: 3 };
}

function bmp(bytes: Uint8Array, check: (width: number, height: number) => void): Raster {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 34) throw new Error('it ends within the header');
  const old = view.getUint32(14, true) === 12;
  const width = old ? view.getUint16(18, true) : view.getInt32(18, true);
  const height = Math.abs(old ? view.getInt16(20, true) : view.getInt32(22, true));
  if (old || width < 1 || height < 1) throw new Error('its BMP header is of a kind that is not supported');
  check(width, height);
  const bits = view.getUint16(28, true);
  const compressed = [1, 2].includes(view.getUint32(30, true));
  const needed = view.getUint32(10, true) + Math.ceil((width * bits) / 32) * 4 * height;
  if (!compressed && bytes.length < needed) {
    throw new Error(`it ends too early: ${bytes.length} bytes where ${needed} are needed`);
  }
  const { data: abgr } = decodeBmp(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  const data = new Uint8Array(width * height * 3);
  for (let p = 0, at = 0; at < data.length; p += 4, at += 3) {
    data[at] = abgr[p + 3]!;
    data[at + 1] = abgr[p + 2]!;
    data[at + 2] = abgr[p + 1]!;
  }
  return { data, height, width, channels: 3 };
}

/** The library's messages name its own insides; say what they mean for the file. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (/unsupported image format/i.test(text)) return 'it is not an image of a kind that can be read';
  if (/premature end|truncated|unexpected end|read error|out of order/i.test(text)) {
    return `it is cut short or damaged (${firstLine(text)})`;
  }
  return firstLine(text);
}

function firstLine(text: string): string {
  return (text.split('\n', 1)[0] ?? '').slice(0, 200);
}

function unreadable(name: string, reason: string, cause?: unknown): WorkerError {
  return new WorkerError('FED_IMAGE_UNREADABLE', `${name}: ${reason}`, { cause });
}
