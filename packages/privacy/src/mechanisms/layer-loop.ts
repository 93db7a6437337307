/**
 * The inner loop of the Gaussian sampler in WebAssembly, assembled here: half the time of the same loop in JavaScript,
 * which checks every index and cannot keep whole numbers and doubles apart. It turns random words into steps by a table,
 * rounds values to the grid, and adds them; what the table leaves to others it lists. See gaussian.ts.
 */

/** Numbers that one call can do. */
export const LOOP_NUMBERS = 8192;

export interface LayerLoop {
  /** The words to use, LOOP_NUMBERS of them. */
  readonly words: Int32Array<ArrayBuffer>;
  /** By the upper bits of a word: its block, or a negative number. */
  readonly table: Int16Array<ArrayBuffer>;
  /** Where the values are, for `addFloats` and for `addDoubles`. They share the memory. */
  readonly floats: Float32Array<ArrayBuffer>;
  readonly doubles: Float64Array<ArrayBuffer>;
  /** The byte offsets among `words` of what was left as it was, after a call. */
  readonly left: Int32Array<ArrayBuffer>;
  /**
   * Makes each of the first values (floor(value * steps + 0.5) + step) * grid * factor, of as many as `bytes` of words,
   * a multiple of 4 above 0. Returns how many were left, as their words have no block.
   */
  readonly addFloats: AddWords;
  readonly addDoubles: AddWords;
}

type AddWords = (bytes: number, steps: number, grid: number, factor: number) => number;

/**
 * Returns a loop with a memory of its own. A word has a block's place in its lower `blockBits`, then a sign; a step is
 * block * 2^blockBits + place, or with the sign set -1 less that.
 */
export function createLayerLoop(blockBits: number): LayerLoop {
  const entries = 2 ** (31 - blockBits);
  const tableAt = 4 * LOOP_NUMBERS;
  const valuesAt = tableAt + 2 * entries;
  const leftAt = valuesAt + 8 * LOOP_NUMBERS;
  const pages = Math.ceil((leftAt + 4 * LOOP_NUMBERS) / 2 ** 16);
  const bodies = [4, 8].map((width) => loopBody({ blockBits, tableAt, valuesAt, leftAt, width }));
  const { exports } = new webAssembly.Instance(new webAssembly.Module(assemble(pages, bodies)), {});
  const { buffer } = exports.memory;
  return {
    words: new Int32Array(buffer, 0, LOOP_NUMBERS),
    table: new Int16Array(buffer, tableAt, entries),
    floats: new Float32Array(buffer, valuesAt, LOOP_NUMBERS),
    doubles: new Float64Array(buffer, valuesAt, LOOP_NUMBERS),
    left: new Int32Array(buffer, leftAt, LOOP_NUMBERS),
    addFloats: exports.f0,
    addDoubles: exports.f1,
  };
}

type Code = readonly (number | Code)[];

const [I32, F32, F64] = [0x7f, 0x7d, 0x7c] as const;
/** Locals: the four parameters, four i32, and the value. */
const [BYTES, STEPS, GRID, FACTOR, AT, LEFT, WORD, BLOCK, VALUE] = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const;

/** The instructions in use, by their number in the binary format (WebAssembly Core Specification 2.0, section 5.4). */
const get = (local: number): Code => [0x20, local];
const set = (local: number): Code => [0x21, local];
const tee = (local: number): Code => [0x22, local];
const i32 = (value: number): Code => [0x41, signed(value)];
const HALF: Code = [0x44, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f];
const [LESS_SIGNED, LESS_UNSIGNED, ADD, AND, OR, XOR] = [0x48, 0x49, 0x6a, 0x71, 0x72, 0x73] as const;
const [SHIFT_LEFT, SHIFT_SIGNED, SHIFT_RIGHT] = [0x74, 0x75, 0x76] as const;
const [FLOOR_F64, ADD_F64, MUL_F64] = [0x9c, 0xa0, 0xa2] as const;
const [F32_FROM_F64, F64_FROM_I32, F64_FROM_F32] = [0xb6, 0xb7, 0xbb] as const;
const [LOOP, BRANCH_IF, SELECT, END, VOID] = [0x03, 0x0d, 0x1b, 0x0b, 0x40] as const;
const loadI32 = (offset: number): Code => [0x28, 2, unsigned(offset)];
const loadI16 = (offset: number): Code => [0x2e, 1, unsigned(offset)];
const storeI32 = (offset: number): Code => [0x36, 2, unsigned(offset)];

function loopBody(layout: {
  readonly blockBits: number;
  readonly tableAt: number;
  readonly valuesAt: number;
  readonly leftAt: number;
  /** Bytes of a value: a float or a double. */
  readonly width: number;
}): Code {
  const { blockBits, tableAt, valuesAt, leftAt, width } = layout;
  const single = width === 4;
  const address = single ? get(AT) : [get(AT), i32(1), SHIFT_LEFT];
  const load = [single ? [0x2a, 2] : [0x2b, 3], unsigned(valuesAt)];
  const store = [single ? [0x38, 2] : [0x39, 3], unsigned(valuesAt)];
  const place = [get(BLOCK), i32(blockBits), SHIFT_LEFT, get(WORD), i32(2 ** blockBits - 1), AND, OR];
  const sign = [get(WORD), i32(31 - blockBits), SHIFT_LEFT, i32(31), SHIFT_SIGNED];
  const rounded = [get(VALUE), single ? F64_FROM_F32 : [], get(STEPS), MUL_F64, HALF, ADD_F64, FLOOR_F64];
  const body: Code = [
    [LOOP, VOID],
    [get(AT), loadI32(0), tee(WORD)],
    [i32(blockBits + 1), SHIFT_RIGHT, i32(1), SHIFT_LEFT, loadI16(tableAt), set(BLOCK)],
    // The list grows by one where the block is negative: no branch, as no processor would foresee it.
    [get(LEFT), get(AT), storeI32(leftAt)],
    [get(LEFT), get(BLOCK), i32(31), SHIFT_RIGHT, i32(2), SHIFT_LEFT, ADD, set(LEFT)],
    [address, address, load, tee(VALUE)],
    [rounded, get(GRID), MUL_F64, place, sign, XOR, F64_FROM_I32, get(GRID), MUL_F64, ADD_F64],
    [get(FACTOR), MUL_F64, single ? F32_FROM_F64 : []],
    [get(BLOCK), i32(0), LESS_SIGNED, SELECT, store],
    [get(AT), i32(4), ADD, tee(AT), get(BYTES), LESS_UNSIGNED, BRANCH_IF, 0],
    [END],
    [get(LEFT), i32(2), SHIFT_RIGHT],
  ];
  return [2, 4, I32, 1, single ? F32 : F64, body, END];
}

/** Returns the binary of a module with a memory of its own, and with the functions f0, f1 … */
function assemble(pages: number, bodies: readonly Code[]): Uint8Array<ArrayBuffer> {
  const name = (text: string): Code => [text.length, [...Buffer.from(text)]];
  return Uint8Array.from(
    flatten([
      [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, [[0x60, [4, I32, F64, F64, F64], [1, I32]]]),
      section(
        3,
        bodies.map(() => [0]),
      ),
      section(5, [[0, unsigned(pages)]]),
      section(7, [[name('memory'), 2, 0], ...bodies.map((_, i) => [name(`f${i}`), 0, i])]),
      section(
        10,
        bodies.map((body) => sized(body)),
      ),
    ]),
  );
}

function section(id: number, items: readonly Code[]): Code {
  return [id, sized([unsigned(items.length), items])];
}

function sized(code: Code): Code {
  const bytes = flatten(code);
  return [unsigned(bytes.length), bytes];
}

function flatten(code: Code): number[] {
  return code.flatMap((part) => (typeof part === 'number' ? part : flatten(part)));
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

/** LEB128 of a number from 0 on: the sign is the second bit of the last byte. */
function signed(value: number): number[] {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >>> 7)];
}

/** Node's WebAssembly, typed as far as it is used here: its full types come only with a browser's. */
interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => object;
  readonly Instance: new (
    module: object,
    imports: object,
  ) => {
    readonly exports: {
      readonly memory: { readonly buffer: ArrayBuffer };
      readonly f0: AddWords;
      readonly f1: AddWords;
    };
  };
}
const webAssembly = (globalThis as unknown as { readonly WebAssembly: WebAssemblyApi }).WebAssembly;
