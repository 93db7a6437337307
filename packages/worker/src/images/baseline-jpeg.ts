/**
 * The most common JPEG files decoded in WebAssembly of our own, three times as fast as the general decoder and with the
 * same pixels: baseline, YCbCr in one scan, of the usual samplings. Where only some rows and columns are wanted, as by
 * 'nearest' resizing, only those are converted. Headers are read here, the rest is kernels/jpeg.ts. At anything unusual
 * or damaged it gives up, and leaves the file to decoders that know what to say about it.
 */
import { kernel, type Memory, reserve } from '../kernels/instantiate.ts';
import { JPEG_WASM } from '../kernels/jpeg.ts';
import type { Raster } from './resize.ts';

/** Source rows and columns, in the order in which they are wanted. */
export interface Picked {
  readonly rows: Int32Array;
  readonly columns: Int32Array;
}

interface Kernel {
  readonly memory: Memory;
  buildTable(segment: number, table: number, isDc: boolean): number;
  unstuff(source: number, length: number, target: number): number;
  decodeSegment(
    components: number,
    count: number,
    from: number,
    to: number,
    perRow: number,
    block: number,
  ): number;
  convert(
    components: number,
    width: number,
    colourWidth: number,
    colourHeight: number,
    rows: number,
    rowCount: number,
    columns: number,
    columnCount: number,
    room: number,
    target: number,
  ): void;
}

interface Header {
  readonly width: number;
  readonly height: number;
  /** Luma samples for one colour sample. */
  readonly across: 1 | 2;
  readonly down: 1 | 2;
  readonly components: readonly { quantisers: number; dc: number; ac: number }[];
  /** By their numbers: offsets in the file of 64 bytes, and of 16 counts and the symbols. */
  readonly quantisers: ReadonlyMap<number, number>;
  readonly dc: ReadonlyMap<number, number>;
  readonly ac: ReadonlyMap<number, number>;
  /** MCUs between restart markers; 0: there are none. */
  readonly restart: number;
  /** Where the coded bytes begin. */
  readonly scan: number;
}

/** Memory of an instance grows with the largest image that it saw, and never shrinks. */
const MAX_PIXELS_HERE = 2 ** 22;
/** In bytes, of kernels/jpeg.ts. */
const TABLE_BYTES = 4608;
const COMPONENT_WORDS = 8;
/** A damaged MCU may be read so far behind the coded bytes before that is noticed. */
const OVERRUN = 4096;
/** Upsampling smoothly takes more than two colour samples; the general decoder knows what to do with fewer. */
const LEAST_COLOUR_WIDTH = 3;

// biome-ignore format: by diagonals
const ZIGZAG = [
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55,
  62, 63,
];

const load = kernel<Kernel>(JPEG_WASM);

/**
 * Returns the image, or what `pick` wants of it, in three channels; undefined when it is not for this decoder. The
 * pixels lie in the decoder's own memory and are valid until the next call.
 */
export function decodeBaselineJpeg(
  bytes: Uint8Array,
  pick: (height: number, width: number) => Picked = everything,
): Raster | undefined {
  const header = readHeader(bytes);
  if (header === undefined) return undefined;
  const exports = load();
  if (exports === undefined) return undefined;
  const { width, height, across, down, restart } = header;
  const { rows, columns } = pick(height, width);
  const perRow = Math.ceil(width / (8 * across));
  const mcus = perRow * Math.ceil(height / (8 * down));
  const colourStride = perRow * 8;
  const stride = colourStride * across;
  const colourBytes = mcus * 64;
  const coded = bytes.length - header.scan;
  const length = rows.length * columns.length * 3;

  let end = 0;
  const take = (size: number) => {
    const at = end;
    end += Math.ceil((size + 16) / 16) * 16;
    return at;
  };
  const components = take(3 * COMPONENT_WORDS * 4);
  const block = take(256);
  const quantisers = take(3 * 256);
  const segment = take(16 + 256);
  const tables = take(6 * TABLE_BYTES);
  const wanted = take((rows.length + columns.length) * 4);
  const room = take(8 * (stride + 64));
  const planes = take(colourBytes * (across * down + 2));
  const source = take(coded);
  const target = take(length);
  const unstuffed = take(coded + OVERRUN);
  reserve(exports.memory, end);

  const memory = new Uint8Array(exports.memory.buffer);
  const words = new Int32Array(exports.memory.buffer);
  for (const [c, component] of header.components.entries()) {
    const quantiser = header.quantisers.get(component.quantisers);
    const dc = header.dc.get(component.dc);
    const ac = header.ac.get(component.ac);
    if (quantiser === undefined || dc === undefined || ac === undefined) return undefined;
    for (let k = 0; k < 64; k++) {
      words[(quantisers >> 2) + 64 * c + k] = (ZIGZAG[k]! << 17) | bytes[quantiser + k]!;
    }
    const [dcTable, acTable] = [tables + 2 * c * TABLE_BYTES, tables + (2 * c + 1) * TABLE_BYTES];
    for (const [at, table, isDc] of [
      [dc, dcTable, true],
      [ac, acTable, false],
    ] as const) {
      memory.set(bytes.subarray(at, at + 16 + 256), segment);
      if (!exports.buildTable(segment, table, isDc)) return undefined;
    }
    const luma = c === 0;
    const plane = planes + (luma ? 0 : colourBytes * (across * down + c - 1));
    words.set(
      [
        plane,
        luma ? stride : colourStride,
        quantisers + 256 * c,
        dcTable,
        acTable,
        luma ? across : 1,
        luma ? down : 1,
        0,
      ],
      (components >> 2) + COMPONENT_WORDS * c,
    );
  }

  memory.set(bytes.subarray(header.scan), source);
  let at = 0;
  for (let from = 0, segments = 0; from < mcus; segments++) {
    const to = restart === 0 ? mcus : Math.min(mcus, from + restart);
    const read = exports.unstuff(source + at, coded - at, unstuffed);
    if (read < 0 || !exports.decodeSegment(components, 3, from, to, perRow, block)) return undefined;
    at += read + 2;
    const marker = memory[source + at - 1]!;
    if (marker !== (to === mcus ? 0xd9 : 0xd0 + (segments % 8))) return undefined;
    from = to;
  }

  words.set(rows, wanted >> 2);
  words.set(columns, (wanted >> 2) + rows.length);
  exports.convert(
    components,
    width,
    Math.ceil(width / across),
    Math.ceil(height / down),
    wanted,
    rows.length,
    wanted + rows.length * 4,
    columns.length,
    room,
    target,
  );
  const data = memory.subarray(target, target + length);
  return { data, height: rows.length, width: columns.length, channels: 3 };
}

function everything(height: number, width: number): Picked {
  return {
    rows: Int32Array.from({ length: height }, (_, i) => i),
    columns: Int32Array.from({ length: width }, (_, i) => i),
  };
}

/** Returns what the header says, or undefined when the file is not of the kind that is decoded here. */
function readHeader(bytes: Uint8Array): Header | undefined {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return undefined;
  const word = (at: number) => bytes[at]! * 256 + bytes[at + 1]!;
  const quantisers = new Map<number, number>();
  const dc = new Map<number, number>();
  const ac = new Map<number, number>();
  let restart = 0;
  let frame: Pick<Header, 'width' | 'height' | 'across' | 'down'> | undefined;
  let quantisersOf: number[] = [];
  for (let at = 2; at + 4 <= bytes.length; ) {
    if (bytes[at] !== 0xff) return undefined;
    const marker = bytes[at + 1]!;
    const start = at + 4;
    const end = at + 2 + word(at + 2);
    if (end > bytes.length || end < start) return undefined;
    if (marker === 0xdb) {
      for (let p = start; p < end; p += 65) {
        // Quantisers of 16 bits are not for baseline files.
        if (bytes[p]! > 3 || p + 65 > end) return undefined;
        quantisers.set(bytes[p]!, p + 1);
      }
    } else if (marker === 0xc4) {
      for (let p = start; p < end; ) {
        const id = bytes[p]!;
        if ((id & 0xee) !== 0 || p + 17 > end) return undefined;
        (id < 16 ? dc : ac).set(id & 1, p + 1);
        p += 17;
        for (let k = 0, counts = p - 16; k < 16; k++) p += bytes[counts + k]!;
        if (p > end) return undefined;
      }
    } else if (marker === 0xdd) {
      restart = word(start);
    } else if (marker === 0xc0) {
      frame = readFrame(bytes.subarray(start, end));
      if (frame === undefined) return undefined;
      quantisersOf = [2, 5, 8].map((offset) => bytes[start + 6 + offset]!);
    } else if (marker === 0xda) {
      const said = bytes.subarray(start, end);
      // Three components in the order of the frame, and all of the spectrum.
      if (frame === undefined || said.length !== 10 || said[0] !== 3) return undefined;
      if (said[1] !== 1 || said[3] !== 2 || said[5] !== 3) return undefined;
      if (said[7] !== 0 || said[8] !== 63 || said[9] !== 0) return undefined;
      const components = quantisersOf.map((table, c) => {
        const tables = said[2 + 2 * c]!;
        return { quantisers: table, dc: tables >> 4, ac: tables & 15 };
      });
      return { ...frame, components, quantisers, dc, ac, restart, scan: end };
    } else if (!(marker === 0xfe || (marker >= 0xe0 && marker <= 0xef)) || marker === 0xee) {
      // Neither a comment nor an application's; Adobe's says that colours are not what they seem.
      return undefined;
    }
    at = end;
  }
  return undefined;
}

function readFrame(said: Uint8Array): Pick<Header, 'width' | 'height' | 'across' | 'down'> | undefined {
  if (said.length !== 15 || said[0] !== 8 || said[5] !== 3) return undefined;
  if (said[6] !== 1 || said[9] !== 2 || said[12] !== 3 || said[10] !== 0x11 || said[13] !== 0x11)
    return undefined;
  const height = said[1]! * 256 + said[2]!;
  const width = said[3]! * 256 + said[4]!;
  if (width < 1 || height < 1 || width * height > MAX_PIXELS_HERE) return undefined;
  const [across, down] = said[7] === 0x22 ? [2, 2] : said[7] === 0x21 ? [2, 1] : [1, 1];
  if (said[7] !== across * 16 + down) return undefined;
  if (across === 2 && Math.ceil(width / 2) < LEAST_COLOUR_WIDTH) return undefined;
  return { width, height, across: across as 1 | 2, down: down as 1 | 2 };
}
