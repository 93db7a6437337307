/** How the pixels of a batch of images are shared out among pieces, and in which order they stand in them. */
import { external, type Value } from '../graph.ts';
import { Memo } from '../memo.ts';
import { BATCH_SIZES, type Stretch } from '../table.ts';

export class Cut {
  readonly batch: number;
  readonly height: number;
  readonly width: number;
  /** Which of batch · height rows each piece has. */
  readonly rows: readonly (readonly number[])[];
  /** Each piece is in so many parts: pixels by turns along each row. */
  readonly parts: number;
  readonly #memo = new Memo();

  constructor(
    [batch, height, width]: readonly [number, number, number],
    rows: readonly (readonly number[])[],
    parts = 1,
  ) {
    this.batch = batch;
    this.height = height;
    this.width = width;
    this.rows = rows;
    this.parts = parts;
  }

  /** Whether the pieces, one after the other, are the images. */
  get ascending(): boolean {
    return this.#memo.once(
      'ascending',
      () => this.parts === 1 && this.rows.flat().every((row, i) => row === i),
    );
  }

  /** Pieces that an image ends with, where no piece has pixels of two. */
  get ends(): ReadonlySet<number> | undefined {
    if (this.rows.some((rows) => this.#imageOf(rows[0]!) !== this.#imageOf(rows.at(-1)!))) return undefined;
    return new Set(this.rows.flatMap((rows, i) => ((rows.at(-1)! + 1) % this.height === 0 ? [i] : [])));
  }

  /**
   * Where each pixel of the batch stands in all parts of all pieces, one after the other. With a row below each image,
   * the pixels of that are one place further.
   */
  places(withRowBelow: boolean): Value {
    return this.#memo.once(`places ${withRowBelow}`, () => {
      const { batch, height, width } = this;
      const perImage = (height + (withRowBelow ? 1 : 0)) * width;
      const places = new Int32Array(batch * perImage).fill(batch * height * width);
      let place = 0;
      for (const rows of this.rows) {
        for (const pixel of inWindows(rows.length, width, [1, this.parts])) {
          const row = rows[Math.floor(pixel / width)]!;
          places[this.#imageOf(row) * perImage + (row % height) * width + (pixel % width)] = place++;
        }
      }
      return external(places, [places.length], 'int32');
    });
  }

  /**
   * The pixels of a piece, a table for each part, counted from an image whose first pixel is `offset`; images have
   * `rowsBelow` more rows.
   */
  pixelsOf(piece: number, rowsBelow: number): { tables: readonly Value[]; offset: number } {
    const { height, width, parts } = this;
    const rows = this.rows[piece]!;
    const first = this.#imageOf(rows[0]!);
    const own = rows.map((row) => row - first * height);
    const tables = this.#memo.once(`pixels ${own} ${rowsBelow}`, () => {
      const pixels = inWindows(own.length, width, [1, parts]).map((pixel) => {
        const row = own[Math.floor(pixel / width)]!;
        return (row + rowsBelow * this.#imageOf(row)) * width + (pixel % width);
      });
      const each = pixels.length / parts;
      return Array.from({ length: parts }, (_, i) =>
        external(pixels.slice(i * each, (i + 1) * each), [each], 'int32'),
      );
    });
    return { tables, offset: first * (height + rowsBelow) * width };
  }

  /** The rows of a piece, counted through images with `rowsBelow` more rows. */
  rowsOf(piece: number, rowsBelow: number): Value {
    return this.#memo.once(`rows ${piece} ${rowsBelow}`, () => {
      const rows = Int32Array.from(this.rows[piece]!, (row) => row + rowsBelow * this.#imageOf(row));
      return external(rows, [rows.length], 'int32');
    });
  }

  /**
   * The cut of what has one pixel for each window of pixels, which are all in windows; undefined where a window lies in
   * two pieces.
   */
  ofWindows([down, across]: WindowSize): Cut | undefined {
    if (!this.ascending || this.rows.some(({ length }) => length % down !== 0)) return undefined;
    return this.#memo.once(`of windows ${down} ${across}`, () => {
      const rows = this.rows.map((rows) =>
        Array.from({ length: rows.length / down }, (_, i) => rows[0]! / down + i),
      );
      return new Cut([this.batch, this.height / down, this.width / across], rows);
    });
  }

  /** The pixels of a piece by their place in windows: first the upper left ones of all, then those beside them. */
  byWindow(piece: number, window: WindowSize): { readonly order: Value; readonly back: Value } {
    const { length } = this.rows[piece]!;
    return this.#memo.once(`by window ${length} ${window}`, () => {
      const order = inWindows(length, this.width, window);
      const back = new Int32Array(order.length);
      order.forEach((pixel, place) => {
        back[pixel] = place;
      });
      return {
        order: external(order, [order.length], 'int32'),
        back: external(back, [back.length], 'int32'),
      };
    });
  }

  #imageOf(row: number): number {
    return Math.floor(row / this.height);
  }
}

/** As many as some layers have with batches of some sizes. */
const cuts = new Memo(8 * BATCH_SIZES);

/** Returns the cut of that name, made once: who asks for the same gets the same. */
export function cutOnce(name: string, make: () => Cut): Cut {
  return cuts.once(name, make);
}

/** Which of batch · height rows of pixels each stretch has; it counts in `unit` of the `rows` that an image has. */
export function rowsIn(
  stretches: readonly Stretch[],
  rows: readonly number[],
  height: number,
  unit = 1,
): number[][] {
  return stretches.map(({ images, from, to }) =>
    Array.from({ length: images.count }, (_, n) =>
      rows.slice(from * unit, to * unit).map((row) => (images.first + n) * height + row),
    ).flat(),
  );
}

/** Rows and columns of pixels. */
export type WindowSize = readonly [down: number, across: number];

/** Which pixel of rows · width comes at each place, by windows. */
function inWindows(rows: number, width: number, [down, across]: WindowSize): Int32Array {
  const order = new Int32Array(rows * width);
  let place = 0;
  for (let i = 0; i < down * across; i++) {
    for (let row = Math.floor(i / across); row < rows; row += down) {
      for (let column = i % across; column < width; column += across) order[place++] = row * width + column;
    }
  }
  return order;
}
