/**
 * The one inner loop under all supplied kernels: C[m, n] (+)= sum over k of A[rowOf(m) + columnOf(k)] * B[k, n].
 * A is read through two tables of byte offsets, so a transposed matrix, the patches of a padded image and the taps of
 * a strided gradient are all "matrices" without being copied (the indirect convolution of Dukhan 2019, generalised).
 * A tile of 4 x 8 results stays in eight SIMD registers; sums run over k in order, so the same input gives the same bytes.
 */
import {
  add,
  addF32,
  addVector,
  advance,
  assembleModule,
  type Code,
  countDown,
  get,
  i32,
  isZero,
  lessThan,
  loadF32,
  loadI32,
  loadSplat,
  loadVector,
  mulVector,
  or,
  orZeroF32,
  select,
  set,
  shiftRight,
  storeF32,
  storeVector,
  when,
  zeroVector,
} from './assembler.ts';
import { type WasmMemory, type WasmModule, webAssembly } from './web-assembly.ts';

export const TILE_ROWS = 4;
export const TILE_COLUMNS = 8;
/** Bytes that `scratch` must point at: one tile. */
export const TILE_BYTES = TILE_ROWS * TILE_COLUMNS * 4;

export interface GemmExports {
  /**
   * All pointers are byte addresses in the imported memory, all counts at least 1.
   *
   * - `aRows`: m addresses (padded to a multiple of 4 by repeating the last); `aColumns`: k byte offsets added to them.
   * - `b`: row k of panel p starts at b + p * bPanelBytes + k * bRowBytes, and holds 8 columns.
   * - `cRows`: m addresses (padded likewise) of the rows of C.
   * - `accumulate`: 1 adds to C, 0 overwrites it.
   */
  gemm(
    m: number,
    n: number,
    k: number,
    aRows: number,
    aColumns: number,
    b: number,
    bRowBytes: number,
    bPanelBytes: number,
    cRows: number,
    accumulate: number,
    scratch: number,
  ): void;
}

// Locals by number, as the binary format asks: parameters, then i32, then vectors.
const [M, N, K, A_ROWS, A_COLUMNS, B, B_ROW_BYTES, B_PANEL_BYTES, C_ROWS, ACCUMULATE, SCRATCH] =
  numbersFrom(0);
const [ROWS_LEFT, COLUMNS_LEFT, PANEL, A_COLUMN, B_ROW, K_LEFT, C_BYTES, OFFSET, COLUMNS, COLUMN, TO] =
  numbersFrom(11);
const [FROM, TILE_COUNTER, PANEL_COUNTER, A_ROW_0, C_ROW_0] = [22, 23, 24, 25, 25 + TILE_ROWS];
const FIRST_VECTOR = C_ROW_0 + TILE_ROWS;
const [LEFT, RIGHT, SPLAT, ACC_0] = numbersFrom(FIRST_VECTOR);
const VECTORS = 3 + 2 * TILE_ROWS;

const ROWS = [0, 1, 2, 3];
const HALVES = [0, 1];
const aRow = (row: number): number => A_ROW_0 + row;
const cRow = (row: number): number => C_ROW_0 + row;
const acc = (row: number, half: number): number => ACC_0 + 2 * row + half;

/** Returns the gemm function over `memory`: compiled once a process, instantiated once a memory. */
export function instantiateGemm(memory: WasmMemory): GemmExports['gemm'] {
  compiled ??= new webAssembly.Module(
    assembleModule({
      exportName: 'gemm',
      parameters: ROWS_LEFT,
      i32Locals: FIRST_VECTOR - ROWS_LEFT,
      vectorLocals: VECTORS,
      body: gemmBody(),
    }),
  );
  const instance = new webAssembly.Instance(compiled, { env: { memory } });
  return (instance.exports as unknown as GemmExports).gemm;
}
let compiled: WasmModule | undefined;

function gemmBody(): Code {
  return [
    [get(M), set(ROWS_LEFT), get(M), i32(TILE_ROWS - 1), add, i32(2), shiftRight, set(TILE_COUNTER)],
    countDown(TILE_COUNTER, [
      ROWS.map((r) => [
        [get(A_ROWS), loadI32(r * 4), set(aRow(r))],
        [get(C_ROWS), loadI32(r * 4), set(cRow(r))],
      ]),
      [get(N), set(COLUMNS_LEFT), get(B), set(PANEL), i32(0), set(C_BYTES)],
      [get(N), i32(TILE_COLUMNS - 1), add, i32(3), shiftRight, set(PANEL_COUNTER)],
      countDown(PANEL_COUNTER, [
        multiplyTile(),
        // A whole tile is stored at once; one at an edge goes by way of the scratch tile.
        [
          get(ROWS_LEFT),
          i32(TILE_ROWS),
          lessThan,
          get(COLUMNS_LEFT),
          i32(TILE_COLUMNS),
          lessThan,
          or,
          isZero,
        ],
        when(storeWholeTile(), storeEdgeTile()),
        advance(PANEL, get(B_PANEL_BYTES)),
        advance(C_BYTES, i32(TILE_COLUMNS * 4)),
        advance(COLUMNS_LEFT, i32(-TILE_COLUMNS)),
      ]),
      advance(A_ROWS, i32(TILE_ROWS * 4)),
      advance(C_ROWS, i32(TILE_ROWS * 4)),
      advance(ROWS_LEFT, i32(-TILE_ROWS)),
    ]),
  ];
}

function multiplyTile(): Code {
  const accumulate = (r: number, half: number, columns: number): Code => [
    [get(acc(r, half)), get(SPLAT), get(columns), mulVector, addVector, set(acc(r, half))],
  ];
  return [
    ROWS.map((r) => HALVES.map((half) => [zeroVector, set(acc(r, half))])),
    [get(A_COLUMNS), set(A_COLUMN), get(PANEL), set(B_ROW), get(K), set(K_LEFT)],
    countDown(K_LEFT, [
      [get(B_ROW), loadVector(0), set(LEFT), get(B_ROW), loadVector(16), set(RIGHT)],
      [get(A_COLUMN), loadI32(), set(OFFSET)],
      ROWS.map((r) => [
        [get(aRow(r)), get(OFFSET), add, loadSplat(), set(SPLAT)],
        accumulate(r, 0, LEFT),
        accumulate(r, 1, RIGHT),
      ]),
      advance(A_COLUMN, i32(4)),
      advance(B_ROW, get(B_ROW_BYTES)),
    ]),
  ];
}

function storeWholeTile(): Code {
  const row = (r: number, value: (half: number) => Code): Code => [
    [get(cRow(r)), get(C_BYTES), add, set(TO)],
    [get(TO), value(0), storeVector(0), get(TO), value(1), storeVector(16)],
  ];
  const sum = (r: number, half: number): Code => [
    get(acc(r, half)),
    get(TO),
    loadVector(16 * half),
    addVector,
  ];
  return [
    get(ACCUMULATE),
    when(
      ROWS.map((r) => row(r, (half) => sum(r, half))),
      ROWS.map((r) => row(r, (half) => get(acc(r, half)))),
    ),
  ];
}

function storeEdgeTile(): Code {
  const bytes = TILE_COLUMNS * 4;
  const element: Code = [
    [get(TO), get(FROM), loadF32(), get(ACCUMULATE), orZeroF32([get(TO), loadF32()]), addF32, storeF32()],
    [advance(TO, i32(4)), advance(FROM, i32(4))],
  ];
  return [
    ROWS.map((r) =>
      HALVES.map((half) => [get(SCRATCH), get(acc(r, half)), storeVector(r * bytes + half * 16)]),
    ),
    // min(columns left, 8)
    [
      get(COLUMNS_LEFT),
      i32(TILE_COLUMNS),
      get(COLUMNS_LEFT),
      i32(TILE_COLUMNS),
      lessThan,
      select,
      set(COLUMNS),
    ],
    ROWS.map((r) => [
      [i32(r), get(ROWS_LEFT), lessThan],
      when(
        [
          [get(cRow(r)), get(C_BYTES), add, set(TO), get(SCRATCH), i32(r * bytes), add, set(FROM)],
          [get(COLUMNS), set(COLUMN), countDown(COLUMN, element)],
        ],
        [],
      ),
    ]),
  ];
}

type Eleven = [number, number, number, number, number, number, number, number, number, number, number];
function numbersFrom(first: number): Eleven {
  return Array.from({ length: 11 }, (_, i) => first + i) as Eleven;
}
