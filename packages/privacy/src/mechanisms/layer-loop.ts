/**
 * The inner loop of the Gaussian sampler in WebAssembly: half the time of the same loop in JavaScript,
 * which checks every index and cannot keep whole numbers and doubles apart. It turns random words into steps by a table,
 * rounds values to the grid, and adds them; what the table leaves to others it lists. See gaussian.ts.
 */

import {
  type Code,
  createMemory,
  type FunctionSource,
  f32,
  f64,
  get,
  i32,
  instantiate,
  repeat,
  select,
  set,
  tee,
} from '../assembler.ts';

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
  const layout = { blockBits, tableAt, valuesAt, leftAt };
  const memory = createMemory(leftAt + 4 * LOOP_NUMBERS);
  const loops = instantiate([loopSource('addFloats', layout), loopSource('addDoubles', layout)], memory);
  const { buffer } = memory;
  return {
    words: new Int32Array(buffer, 0, LOOP_NUMBERS),
    table: new Int16Array(buffer, tableAt, entries),
    floats: new Float32Array(buffer, valuesAt, LOOP_NUMBERS),
    doubles: new Float64Array(buffer, valuesAt, LOOP_NUMBERS),
    left: new Int32Array(buffer, leftAt, LOOP_NUMBERS),
    ...(loops as Pick<LayerLoop, 'addFloats' | 'addDoubles'>),
  };
}

/** Locals: the four parameters, four i32, and the value. */
const [BYTES, STEPS, GRID, FACTOR, AT, LEFT, WORD, BLOCK, VALUE] = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const;

function loopSource(
  name: 'addFloats' | 'addDoubles',
  layout: {
    readonly blockBits: number;
    readonly tableAt: number;
    readonly valuesAt: number;
    readonly leftAt: number;
  },
): FunctionSource {
  const { blockBits, tableAt, valuesAt, leftAt } = layout;
  const single = name === 'addFloats';
  const address: Code = single ? get(AT) : [get(AT), i32.const(1), i32.shl];
  const load = (single ? f32 : f64).load(valuesAt);
  const store = (single ? f32 : f64).store(valuesAt);
  const place: Code = [
    [get(BLOCK), i32.const(blockBits), i32.shl],
    [get(WORD), i32.const(2 ** blockBits - 1), i32.and, i32.or],
  ];
  const sign: Code = [get(WORD), i32.const(31 - blockBits), i32.shl, i32.const(31), i32.shiftRightSigned];
  const rounded: Code = [
    [get(VALUE), single ? f64.fromF32 : []],
    [get(STEPS), f64.mul, f64.const(0.5), f64.add, f64.floor],
  ];
  return {
    name,
    parameters: ['i32', 'f64', 'f64', 'f64'],
    result: 'i32',
    locals: ['i32', 'i32', 'i32', 'i32', single ? 'f32' : 'f64'],
    body: [
      repeat([
        [get(AT), i32.load(0), tee(WORD)],
        [i32.const(blockBits + 1), i32.shiftRight, i32.const(1), i32.shl],
        [i32.load16(tableAt), set(BLOCK)],
        // The list grows by one where the block is negative: no branch, as no processor would foresee it.
        [get(LEFT), get(AT), i32.store(leftAt)],
        [get(LEFT), get(BLOCK), i32.const(31), i32.shiftRight, i32.const(2), i32.shl, i32.add, set(LEFT)],
        [address, address, load, tee(VALUE)],
        [rounded, get(GRID), f64.mul, place, sign, i32.xor, f64.fromI32, get(GRID), f64.mul, f64.add],
        [get(FACTOR), f64.mul, single ? f32.fromF64 : []],
        [get(BLOCK), i32.const(0), i32.lessThanSigned, select, store],
        [get(AT), i32.const(4), i32.add, tee(AT), get(BYTES), i32.lessThan],
      ]),
      [get(LEFT), i32.const(2), i32.shiftRight],
    ],
  };
}
