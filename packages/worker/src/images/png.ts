/**
 * Ordinary PNG files decoded on the spot: the image library gives the same pixels, but hands each file to threads of its
 * own and looks at it twice, which for a small image is ten times the work. What is not ordinary, large, or damaged in
 * any way is left to that library, which also knows what to say about it.
 */
import { PNG } from 'pngjs';
import type { Raster } from './resize.ts';

/** Above, the library's own threads are worth their price. */
const MAX_PIXELS_HERE = 2 ** 18;

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const HEADER_BYTES = 33;
/** Channels by PNG's colour type; the palette's is left out. */
const CHANNELS: Readonly<Record<number, Raster['channels']>> = { 0: 1, 2: 3, 6: 4 };

/**
 * Returns the image in its own channels (grey, RGB or RGBA), or undefined when it is not for this decoder, or has more
 * than `maxPixels` pixels.
 */
export function decodePlainPng(bytes: Uint8Array, maxPixels: number = MAX_PIXELS_HERE): Raster | undefined {
  const header = plainHeader(bytes);
  if (header === undefined) return undefined;
  if (header.width * header.height > Math.min(maxPixels, MAX_PIXELS_HERE)) return undefined;
  const { channels } = header;
  let rgba: Uint8Array;
  try {
    rgba = PNG.sync.read(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)).data;
  } catch {
    return undefined;
  }
  if (channels === 4) return { ...header, data: rgba };
  const data = new Uint8Array(header.width * header.height * channels);
  for (let at = 0, from = 0; at < data.length; at += channels, from += 4) {
    data[at] = rgba[from]!;
    if (channels === 1) continue;
    data[at + 1] = rgba[from + 1]!;
    data[at + 2] = rgba[from + 2]!;
  }
  return { ...header, data };
}

/** Size and channels of a file of 8 bits without palette, transparent colour or interlacing. */
function plainHeader(bytes: Uint8Array): Omit<Raster, 'data'> | undefined {
  if (bytes.length < HEADER_BYTES || SIGNATURE.some((byte, i) => bytes[i] !== byte)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [depth, colour, interlace] = [bytes[24], bytes[25]!, bytes[28]];
  const channels = CHANNELS[colour];
  if (depth !== 8 || interlace !== 0 || channels === undefined || width === 0 || height === 0)
    return undefined;
  for (let at = HEADER_BYTES; at + 8 <= bytes.length; at += 12 + view.getUint32(at)) {
    const name = String.fromCharCode(bytes[at + 4]!, bytes[at + 5]!, bytes[at + 6]!, bytes[at + 7]!);
    if (name === 'IDAT') return { width, height, channels };
    if (name === 'tRNS') return undefined;
  }
  return undefined;
}
