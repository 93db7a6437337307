/**
 * What is done to every value of an update, in WebAssembly: encoding, adding masks, packing and unpacking. In JavaScript,
 * adding a mask takes as long as making it, and encoding and packing as long as ten masks. All of it works on one piece of up to 16,384 words,
 * in place, in memory that is there once for the process: no function waits, and what is to last longer is copied out.
 */
import {
  type Code,
  createMemory,
  type FunctionSource,
  f32x4,
  f64x2,
  get,
  i32,
  i32x4,
  i64,
  i64x2,
  instantiate,
  repeat,
  select,
  set,
  tee,
  v128,
} from '../assembler.ts';

export const PIECE_WORDS = 16_384;
/** Pieces of masks that are added together: the vector is then read and written once for all of them. */
export const MASKS_AT_ONCE = 4;

const PIECE_BYTES = PIECE_WORDS * 4;
/** The bits of a float32. */
const INFINITY_BITS = 0x7f80_0000;
/** Random bytes, or packed bytes, with eight more that a load may touch. */
const INPUT = PIECE_BYTES;
const MASKS = 2 * PIECE_BYTES + 64;
/** As many values as have whole words of 64 bits, whatever their bits. */
const GROUP = 64;
/** Not a power of two, so that the same places of all pieces are not at the same place of a cache. */
const MASK_STRIDE = PIECE_BYTES + 64;

const memory = createMemory(MASKS + MASKS_AT_ONCE * MASK_STRIDE);

/** The piece: its words, or as values before they are encoded, or as bytes after they are packed. */
export const pieceWords: Uint32Array = new Uint32Array(memory.buffer, 0, PIECE_WORDS);
export const pieceValues: Float32Array = new Float32Array(memory.buffer, 0, PIECE_WORDS);
const pieceBytes = new Uint8Array(memory.buffer, 0, PIECE_BYTES);
/** Uniform bytes for `encodeWords`, two a value. */
export const pieceRandom: Uint8Array = new Uint8Array(memory.buffer, INPUT, 2 * PIECE_WORDS);
/** Packed bytes for `addPackedPiece`. */
export const piecePacked: Uint8Array = new Uint8Array(memory.buffer, INPUT, PIECE_BYTES);
/** Pieces of masks for `addMasks`. */
export const pieceMasks: readonly Uint8Array[] = Array.from(
  { length: MASKS_AT_ONCE },
  (_, i) => new Uint8Array(memory.buffer, MASKS + i * MASK_STRIDE, PIECE_BYTES),
);

const kernel = instantiate(
  [encodeSource(), ...pieceMasks.flatMap((_, i) => [addSource('add', i + 1), addSource('subtract', i + 1)])],
  memory,
) as {
  encode(words: number, range: number, scale: number, offset: number, weight: number): number;
} & Record<string, (words: number) => void>;

/**
 * Writes weight · level in place of each of the piece's first `count` values, and returns how many of them were beyond
 * ± `range`; −1 when one is not finite.
 *
 * With x = value · scale + middle rounded to 2^-16, and u the value's 16 random bits over 2^16, the level is ⌊x + u⌋. A
 * double holds x + 2^36 in steps of 2^-16, so what is in its bits is x · 2^16, and the rest is whole numbers.
 *
 * @param range at most the largest float32
 * @param scale levels for 1 of value
 * @param middle the level of 0, below 2^30
 */
export function encodeWords(
  count: number,
  range: number,
  scale: number,
  middle: number,
  weight: number,
): number {
  const words = roundUp(count, 4);
  pieceValues.fill(0, count, words);
  return kernel.encode(words, range, scale, 2 ** 36 + middle, weight);
}

function encodeSource(): FunctionSource {
  const [words, range, scale, offset, weight, at] = [0, 1, 2, 3, 4, 5];
  const [value, clipped, clips, largest, random, ranges, scales, offsets, weights] = [
    6, 7, 8, 9, 10, 11, 12, 13, 14,
  ];
  /** Two levels: those of the values in the low half of `values`, with two words of random bits as i64x2. */
  const levels = (values: Code, bits: Code): Code => [
    [values, f64x2.promoteLow, get(scales), f64x2.mul, get(offsets), f64x2.add],
    [bits, i64x2.add, i32.const(16), i64x2.shiftRight],
  ];
  const highHalf: Code = [
    get(clipped),
    get(clipped),
    v128.shuffle(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7),
  ];
  const allLanes = [0, 1, 2, 3].map((i): Code => [get(clips), i32x4.lane(i), ...(i > 0 ? [i32.add] : [])]);
  return {
    name: 'encode',
    parameters: ['i32', 'f32', 'f64', 'f64', 'i32'],
    result: 'i32',
    locals: ['i32', ...new Array<'v128'>(9).fill('v128')],
    body: [
      [get(range), f32x4.splat, set(ranges), get(scale), f64x2.splat, set(scales)],
      [get(offset), f64x2.splat, set(offsets), get(weight), i32x4.splat, set(weights)],
      [get(words), i32.const(2), i32.shl, set(at)],
      repeat([
        [get(at), i32.const(16), i32.sub, tee(at), v128.load(0), set(value)],
        // Without their sign, values that are not finite are the largest as integers.
        [get(value), i32.const(1), i32x4.shl, get(largest), i32x4.maxUnsigned, set(largest)],
        [get(value), get(ranges), f32x4.neg, f32x4.pmax, get(ranges), f32x4.pmin, set(clipped)],
        [get(clips), get(clipped), get(value), f32x4.notEqual, i32x4.sub, set(clips)],
        [get(at), i32.const(1), i32.shiftRight, v128.load16x4(INPUT), set(random)],
        get(at),
        levels(get(clipped), [get(random), i64x2.extendLow]),
        levels(highHalf, [get(random), i64x2.extendHigh]),
        v128.shuffle(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
        [get(weights), i32x4.mul, v128.store(0)],
        get(at),
      ]),
      [i32.const(-1), allLanes],
      [get(largest), i32.const(INFINITY_BITS << 1), i32x4.splat, i32x4.notLessUnsigned, v128.anyTrue, select],
    ],
  };
}

/** Adds the piece of a mask to the piece `vector`, or takes it off: so many at once. */
function addSource(operation: 'add' | 'subtract', masks: number): FunctionSource {
  const [words, at] = [0, 1];
  const apply = operation === 'add' ? i32x4.add : i32x4.sub;
  const four = (offset: number): Code => [
    [get(at), get(at), v128.load(offset)],
    Array.from(
      { length: masks },
      (_, i): Code => [get(at), v128.load(MASKS + i * MASK_STRIDE + offset), apply],
    ),
    v128.store(offset),
  ];
  return {
    name: `${operation}${masks}`,
    parameters: ['i32'],
    locals: ['i32'],
    body: [
      [get(words), i32.const(2), i32.shl, set(at)],
      repeat([get(at), i32.const(32), i32.sub, set(at), four(0), four(16), get(at)]),
    ],
  };
}

/** Adds the first `count` words of so many pieces of masks to those of the vector, modulo 2^32, or subtracts them. */
export function addMasks(count: number, masks: number, sign: 1 | -1): void {
  kernel[`${sign === 1 ? 'add' : 'subtract'}${masks}`]!(roundUp(count, 8));
}

/** Functions for one number of bits, whose shifts are constants of their code. */
interface PackingKernel {
  pack(words: number): void;
  addPacked(words: number): void;
}

const packingKernels = new Map<number, PackingKernel>();

function packingKernel(bits: number): PackingKernel {
  let made = packingKernels.get(bits);
  if (made === undefined) {
    made = instantiate([packSource(bits), addPackedSource(bits)], memory) as PackingKernel;
    packingKernels.set(bits, made);
  }
  return made;
}

/**
 * Packs the piece's first `count` words, of which the lowest `bits` (1 to 32) are kept, and returns a view of the packed
 * bytes, in place of the words. Bits that are left over are zero.
 */
export function packPiece(count: number, bits: number): Uint8Array {
  if (bits < 32) {
    const words = roundUp(count, GROUP);
    pieceWords.fill(0, count, words);
    packingKernel(bits).pack(words);
  }
  return pieceBytes.subarray(0, Math.ceil((count * bits) / 8));
}

/** Adds the `count` values of `bits` bits (1 to 32) that are in `piecePacked` to the piece's words, modulo 2^32. */
export function addPackedPiece(count: number, bits: number): void {
  packingKernel(bits).addPacked(roundUp(count, GROUP));
}

/** From the first word to the last: what is written never comes up to what is still to be read. */
function packSource(bits: number): FunctionSource {
  const [words, from, to, pair, gathered] = [0, 1, 2, 3, 4];
  const low = (1n << BigInt(bits)) - 1n;
  const steps: Code[] = [];
  for (let i = 0; i < GROUP; i += 2) {
    // Two words, moved together: 2 · bits of 64.
    steps.push(
      [get(from), i64.load(4 * i), tee(pair), i64.const(low), i64.and],
      [get(pair), i64.const(BigInt(32 - bits)), i64.shiftRight, i64.const(low << BigInt(bits)), i64.and],
      [i64.or, set(pair)],
    );
    const [word, shift] = [Math.floor((i * bits) / 64), (i * bits) % 64];
    if (shift === 0) steps.push([get(pair), set(gathered)]);
    else steps.push([get(gathered), get(pair), i64.const(BigInt(shift)), i64.shl, i64.or, set(gathered)]);
    if (shift + 2 * bits >= 64) {
      steps.push([get(to), get(gathered), i64.store(8 * word)]);
      if (shift + 2 * bits > 64)
        steps.push([get(pair), i64.const(BigInt(64 - shift)), i64.shiftRight, set(gathered)]);
    }
  }
  return {
    name: 'pack',
    parameters: ['i32'],
    locals: ['i32', 'i32', 'i64', 'i64'],
    body: repeat([
      steps,
      [get(to), i32.const(8 * bits), i32.add, set(to)],
      [get(from), i32.const(4 * GROUP), i32.add, tee(from)],
      [get(words), i32.const(2), i32.shl, i32.lessThan],
    ]),
  };
}

function addPackedSource(bits: number): FunctionSource {
  const [words, from, to] = [0, 1, 2];
  const low = (2 ** bits - 1) | 0;
  const steps = Array.from({ length: GROUP }, (_, i): Code => {
    const [byte, shift] = [Math.floor((i * bits) / 8), (i * bits) % 8];
    return [
      [get(to), get(to), i32.load(4 * i), get(from), i64.load(INPUT + byte)],
      [i64.const(BigInt(shift)), i64.shiftRight, i32.wrap, i32.const(low), i32.and],
      [i32.add, i32.store(4 * i)],
    ];
  });
  return {
    name: 'addPacked',
    parameters: ['i32'],
    locals: ['i32', 'i32'],
    body: repeat([
      steps,
      [get(from), i32.const(8 * bits), i32.add, set(from)],
      [get(to), i32.const(4 * GROUP), i32.add, tee(to)],
      [get(words), i32.const(2), i32.shl, i32.lessThan],
    ]),
  };
}

/** Overwrites the memory of all pieces: vector, random bits and masks. */
export function clearPieces(): void {
  new Uint8Array(memory.buffer).fill(0);
}

/** At least once `to`: a loop looks only behind itself whether to go on. */
function roundUp(count: number, to: number): number {
  return Math.max(1, Math.ceil(count / to)) * to;
}
