/** Portable bitmap, greymap and pixmap files (P1 to P6), which the image library can't read. */
import type { Raster } from './resize.ts';

/** Height, width, channels and where the samples start; `maxval` is 1 for bitmaps. */
interface Header {
  kind: number;
  width: number;
  height: number;
  maxval: number;
  start: number;
}

/** Returns whether the bytes begin as a P1 … P6 file. */
export function isNetpbm(bytes: Uint8Array): boolean {
  const kind = bytes[1]! - 0x30;
  return bytes[0] === 0x50 && kind >= 1 && kind <= 6 && isSpace(bytes[2] ?? 0);
}

/** Returns [width, height] in pixels. @throws Error saying what is wrong with the header */
export function netpbmSize(bytes: Uint8Array): [number, number] {
  const { width, height } = readHeader(bytes);
  return [width, height];
}

/** Returns the first image of the file: 1 channel for P1, P2, P4, P5 and 3 for P3, P6; samples scaled to 0 … 255. */
export function decodeNetpbm(bytes: Uint8Array): Raster {
  const { kind, width, height, maxval, start } = readHeader(bytes);
  const channels = kind === 3 || kind === 6 ? 3 : 1;
  const count = width * height * channels;
  const data = new Uint8Array(count);
  if (kind === 4) {
    const stride = Math.ceil(width / 8);
    need(bytes, start, stride * height);
    for (let i = 0; i < count; i++) {
      const column = i % width;
      const byte = bytes[start + Math.floor(i / width) * stride + (column >> 3)]!;
      data[i] = (byte >> (7 - (column & 7))) & 1 ? 0 : 255;
    }
  } else if (kind >= 5) {
    const wide = maxval > 255;
    need(bytes, start, wide ? count * 2 : count);
    for (let i = 0; i < count; i++) {
      const value = wide ? bytes[start + 2 * i]! * 256 + bytes[start + 2 * i + 1]! : bytes[start + i]!;
      data[i] = scale(value, maxval);
    }
  } else {
    // A bitmap's digits may stand without space between them.
    const next = reader(bytes, start, kind === 1 ? 1 : Number.POSITIVE_INFINITY);
    for (let i = 0; i < count; i++) data[i] = kind === 1 ? 255 - 255 * next() : scale(next(), maxval);
  }
  return { data, height, width, channels };
}

function readHeader(bytes: Uint8Array): Header {
  const kind = bytes[1]! - 0x30;
  const next = reader(bytes, 2, Number.POSITIVE_INFINITY);
  const width = next();
  const height = next();
  const maxval = kind === 1 || kind === 4 ? 1 : next();
  if (width < 1 || height < 1) throw new Error(`its header says ${width} x ${height} pixels`);
  if (maxval < 1 || maxval > 65535) throw new Error(`its header says a largest value of ${maxval}`);
  return { kind, width, height, maxval, start: next.position() + 1 };
}

/** Reads numbers of at most `digits` digits, passing over space and comments. */
function reader(bytes: Uint8Array, start: number, digits: number): { (): number; position(): number } {
  let at = start;
  const next = () => {
    while (at < bytes.length && (isSpace(bytes[at]!) || bytes[at] === 0x23)) {
      if (bytes[at++] !== 0x23) continue;
      while (at < bytes.length && bytes[at] !== 0x0a && bytes[at] !== 0x0d) at++;
    }
    const from = at;
    let value = 0;
    while (at < bytes.length && at - from < digits && bytes[at]! >= 0x30 && bytes[at]! <= 0x39) {
      value = value * 10 + bytes[at++]! - 0x30;
    }
    if (at === from)
      throw new Error(at >= bytes.length ? 'it ends too early' : `a number was expected at byte ${at}`);
    return value;
  };
  return Object.assign(next, { position: () => at });
}

function need(bytes: Uint8Array, start: number, length: number): void {
  if (bytes.length < start + length) {
    throw new Error(`it ends too early: ${bytes.length - start} bytes of pixels where ${length} are needed`);
  }
}

function scale(value: number, maxval: number): number {
  return maxval === 255 ? value : Math.min(255, Math.round((value / maxval) * 255));
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}
