/** Prepares what gemm reads: tables of offsets, and B in panels of eight columns (zeros where a panel overhangs). */

import { TILE_COLUMNS, TILE_ROWS } from './gemm-module.ts';
import type { Heap } from './heap.ts';

/** Writes `count` numbers start, start + step, … at `table`, the last one repeated up to a multiple of 4. */
export function fillOffsets(heap: Heap, table: number, count: number, start: number, step: number): void {
  const ints = heap.ints();
  const first = table >> 2;
  for (let i = 0; i < count; i++) ints[first + i] = start + i * step;
  repeatLast(ints, first, count);
}

/** Repeats the last of `count` numbers up to a multiple of 4: gemm reads whole tiles of rows. */
export function repeatLast(ints: Int32Array, first: number, count: number): void {
  const last = ints[first + count - 1]!;
  for (let i = count; i % TILE_ROWS !== 0; i++) ints[first + i] = last;
}

/** Packs a row-major [k, n] matrix. */
export function packRows(heap: Heap, source: number, n: number, k: number, packed: number): void {
  const floats = heap.floats();
  let to = packed >> 2;
  for (let column = 0; column < n; column += TILE_COLUMNS) {
    const used = Math.min(TILE_COLUMNS, n - column);
    let from = (source >> 2) + column;
    for (let row = 0; row < k; row++) {
      for (let i = 0; i < used; i++) floats[to + i] = floats[from + i]!;
      for (let i = used; i < TILE_COLUMNS; i++) floats[to + i] = 0;
      to += TILE_COLUMNS;
      from += n;
    }
  }
}

/** Packs the transpose of a row-major [n, k] matrix. */
export function packColumns(heap: Heap, source: number, n: number, k: number, packed: number): void {
  const floats = heap.floats();
  const panel = TILE_COLUMNS * k;
  for (let column = 0; column < n; column += TILE_COLUMNS) {
    const used = Math.min(TILE_COLUMNS, n - column);
    const start = (packed >> 2) + (column / TILE_COLUMNS) * panel;
    for (let i = 0; i < used; i++) {
      const from = (source >> 2) + (column + i) * k;
      for (let row = 0, to = start + i; row < k; row++, to += TILE_COLUMNS) floats[to] = floats[from + row]!;
    }
    for (let i = used; i < TILE_COLUMNS; i++) {
      for (let row = 0, to = start + i; row < k; row++, to += TILE_COLUMNS) floats[to] = 0;
    }
  }
}
