/**
 * Tables of pixels to take. One that lies outside (padding) is the index one past the last; it takes a row that is all
 * `fill`.
 */
import { emit, external, ints, number, tracing, type Value } from './graph.ts';
import { Memo } from './memo.ts';
import * as o from './ops.ts';

/** Tables for whole batches are large: they are kept for so many sizes of batches. */
export const BATCH_SIZES = 8;

/** To overwrite one number in place takes as long as to copy so many, which a row for what is outside costs. */
const SCATTER_COST = 12;

/** Whether a row for what is outside pays, for tables of one image. */
export function paysForRow(tables: readonly Table[]): boolean {
  const outside = tables.reduce((sum, table) => sum + table.outside.length, 0);
  return outside * SCATTER_COST > tables[0]!.pixels;
}

export class Table {
  readonly indices: Value;
  /** Pixels that there are; the index of those outside. */
  readonly pixels: number;
  /** Places in the table whose pixel is outside. */
  readonly outside: readonly number[];
  /** Whether it takes each pixel once and in order. */
  readonly identity: boolean;
  readonly #numbers: Int32Array;
  readonly #memo = new Memo();
  readonly #ofBatch = new Memo(2 * BATCH_SIZES);

  constructor(indices: Int32Array, pixels: number) {
    const outside: number[] = [];
    indices.forEach((pixel, place) => {
      if (pixel === pixels) outside.push(place);
    });
    this.#numbers = indices;
    this.pixels = pixels;
    this.outside = outside;
    this.identity = indices.length === pixels && indices.every((pixel, i) => pixel === i);
    this.indices = external(indices, [indices.length], 'int32');
  }

  get length(): number {
    return this.#numbers.length;
  }

  /**
   * The rows of x [batch, pixels, channels] that the table names: [batch, length, channels]. x may have more pixels below
   * each image, the first of which is what is outside.
   */
  take(x: Value, fill: Value, withRow: boolean = paysForRow([this])): Value {
    const padded = x.shape[1]! > this.pixels;
    if (this.identity && !padded) return x;
    if (padded || this.outside.length === 0) return o.gather(x, this.indices, 1);
    if (withRow) return o.gather(withRowOf(fill, x), this.indices, 1);
    const { inside, outside } = this.#memo.once('inside', () => {
      const numbers = this.#numbers.map((pixel) => (pixel === this.pixels ? 0 : pixel));
      return { inside: external(numbers, [numbers.length], 'int32'), outside: ints(this.outside) };
    });
    return overwritten(o.gather(x, inside, 1), 1, outside, fill);
  }

  /**
   * The same as rows of `width` pixels, in pieces of about `tracing.pieceBytes` one after the other: [rows, width ·
   * channels] each. What takes a piece at once finds it in the cache.
   */
  takeInPieces(
    x: Value,
    fill: Value,
    { width, wanted, unit = 1, use, withRow = paysForRow([this]) }: PieceOptions,
  ): Value[] {
    const [batch, own, channels] = x.shape as [number, number, number];
    const source = withRow && own === this.pixels && this.outside.length > 0 ? withRowOf(fill, x) : x;
    const pixels = source.shape[1]!;
    const flat = o.reshape(source, [batch * pixels, channels]);
    const pieces = this.#ofBatch.once(`${use} ${batch} ${width} ${wanted} ${unit} ${pixels}`, () =>
      this.#pieces(batch, width * unit, wanted, pixels),
    );
    return pieces.map(({ indices, offset, outside }) => {
      const taken = o.gather(flat, offset === undefined ? indices : o.add(indices, offset), 0);
      const rows = outside === undefined ? taken : overwritten(taken, 0, outside, fill);
      return o.reshape(rows, [indices.size / width, width * channels]);
    });
  }

  #pieces(batch: number, width: number, wanted: number, pixels: number): Piece[] {
    const padded = pixels > this.pixels;
    const tables = new Map<string, Pick<Piece, 'indices' | 'outside'>>();
    return partition(batch, this.length / width, wanted).map(({ images, from, to }) => {
      const key = `${images.count} ${from}`;
      let table = tables.get(key);
      if (table === undefined) {
        const numbers = this.#numbers.subarray(from * width, to * width);
        const outside: number[] = [];
        const indices = Int32Array.from({ length: images.count * numbers.length }, (_, i) => {
          const pixel = numbers[i % numbers.length]!;
          const inside = padded || pixel < this.pixels;
          if (!inside) outside.push(i);
          return Math.floor(i / numbers.length) * pixels + (inside ? pixel : 0);
        });
        table = {
          indices: external(indices, [indices.length], 'int32'),
          outside: outside.length === 0 ? undefined : ints(outside),
        };
        tables.set(key, table);
      }
      return { ...table, offset: images.first === 0 ? undefined : number(images.first * pixels, 'int32') };
    });
  }
}

/** Some rows of some images. */
export interface Stretch {
  readonly images: { readonly first: number; readonly count: number };
  readonly from: number;
  readonly to: number;
}

/**
 * Rows of `bytes` bytes in a piece of about `tracing.pieceBytes`, but not fewer than `fewest`: the columns of the product
 * that takes it. ONNX Runtime shares out the rows of a tall product among threads, which leaves its bits alone, but the
 * columns of a wide one.
 */
export function rowsInPiece(bytes: number, fewest: number): number {
  return Math.max(fewest, Math.round(tracing.pieceBytes / bytes));
}

export interface PieceOptions {
  /** Pixels in a row. */
  readonly width: number;
  /** Rows in a piece, or somewhat more; in units. */
  readonly wanted: number;
  /** So many rows stay together. @default 1 */
  readonly unit?: number;
  /**
   * Who takes them. Several would otherwise share the pieces and make them all be kept: to take them again is faster than
   * to read them from memory.
   */
  readonly use: string;
  /** Whether what is outside is a row of its own. */
  readonly withRow?: boolean;
}

interface Piece {
  readonly indices: Value;
  /** To be added to the indices. */
  readonly offset: Value | undefined;
  /** Places whose pixel is outside. */
  readonly outside: Value | undefined;
}

/** Several images a piece, or several pieces an image: `wanted` rows or somewhat more in each. */
export function partition(batch: number, rows: number, wanted: number): Stretch[] {
  const groups = spread(batch, Math.floor(batch / Math.ceil(wanted / rows)));
  const parts = spread(rows, Math.floor(rows / wanted));
  return groups.flatMap(([first, end]) =>
    parts.map(([from, to]) => ({ images: { first, count: end - first }, from, to })),
  );
}

/** From where to where each of `parts` parts goes (one at least), all about equal. */
function spread(total: number, parts: number): [number, number][] {
  const count = Math.max(1, parts);
  const bound = (i: number) => Math.floor((i * total) / count);
  return Array.from({ length: count }, (_, i) => [bound(i), bound(i + 1)]);
}

/** The pixels with one more at the end, for all that is outside. */
function withRowOf(fill: Value, x: Value): Value {
  const [batch, , channels] = x.shape as [number, number, number];
  // Not Pad, which copies on one thread.
  return x.derive(`row of ${fill.constant!.token}`, () =>
    o.concat([x, o.expand(fill, [batch, 1, channels])], 1),
  );
}

/** `x` with `fill` in the rows at `places` of an axis, in place where nobody else reads it. */
function overwritten(x: Value, axis: number, places: Value, fill: Value): Value {
  const along = (n: number) => x.shape.map((size, i) => (i === axis ? places.size : n * size || 1));
  const shape = along(1);
  const at = places.derive(`at ${shape}`, () => o.expand(o.reshape(places, along(0)), shape));
  const filled = fill.derive(`as ${shape}`, () => o.expand(fill, shape));
  return emit('ScatterElements', [x, at, filled], x.shape, x.dtype, { axis });
}
