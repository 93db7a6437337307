/**
 * Sliding windows as index tables. A convolution or pooling over pixels stored channels-last never needs to move a
 * channel: it takes whole rows of C numbers. So every one of them, forwards and backwards, in any number of spatial
 * dimensions, is a Gather of rows followed by arithmetic. A tap is one place of the window. A pixel that lies outside
 * (padding) is the index one past the last, where a caller puts a row of zeros.
 */
import { external, number, type Value } from './graph.ts';
import { Memo } from './memo.ts';
import * as o from './ops.ts';
import { BATCH_SIZES, Table } from './table.ts';

/** Geometry, one number for each spatial dimension. */
export interface Window {
  readonly inSize: readonly number[];
  readonly outSize: readonly number[];
  readonly kernel: readonly number[];
  readonly stride: readonly number[];
  readonly dilation: readonly number[];
  /** Padding before the first pixel. */
  readonly before: readonly number[];
}

/**
 * Input pixels that the same taps can reach: with stride s there are s classes in each dimension, by the remainder of
 * the pixel's place. For each pixel and tap, `table` has the output pixel that reaches it.
 */
export interface ReachClass {
  readonly pixels: number;
  readonly taps: readonly number[];
  readonly table: Table;
}

/** Image rows that the same taps can reach, and the classes of their pixels, by turns along each row. */
export interface RowClass {
  readonly rows: readonly number[];
  readonly columns: readonly ReachClass[];
}

/** The tables of one window, each made when it is first asked for. */
export class Tables {
  readonly inPixels: number;
  readonly outPixels: number;
  readonly taps: number;
  readonly #window: Window;
  readonly #memo = new Memo();
  readonly #ofBatch = new Memo(BATCH_SIZES);

  constructor(window: Window) {
    this.#window = window;
    this.inPixels = product(window.inSize);
    this.outPixels = product(window.outSize);
    this.taps = product(window.kernel);
  }

  /** For each output pixel and tap, the input pixel. */
  get patches(): Table {
    return this.#memo.once('patches', () => {
      const { reach, outPixels, taps } = this;
      const indices = new Int32Array(outPixels * taps);
      for (let out = 0; out < outPixels; out++) {
        for (let tap = 0; tap < taps; tap++) indices[out * taps + tap] = reach[tap * outPixels + out]!;
      }
      return new Table(indices, this.inPixels);
    });
  }

  /**
   * The same, and after each patch the index two past the last pixel. With a zero row, one more row of patches follows,
   * all outside.
   */
  patchesAndOne(withZeroRow: boolean): Value {
    return this.#memo.once(`patchesAndOne ${withZeroRow}`, () => {
      const { reach, outPixels, taps } = this;
      const row = withZeroRow ? this.#window.outSize.at(-1)! : 0;
      const indices = new Int32Array((outPixels + row) * (taps + 1)).fill(this.inPixels);
      for (let out = 0; out < outPixels; out++) {
        for (let tap = 0; tap < taps; tap++) indices[out * (taps + 1) + tap] = reach[tap * outPixels + out]!;
        indices[out * (taps + 1) + taps] = this.inPixels + 1;
      }
      return external(indices, [indices.length], 'int32');
    });
  }

  /** For each output pixel, the input pixel under one tap. */
  tap(tap: number): Table {
    return this.#memo.once(`tap ${tap}`, () => {
      const { reach, outPixels } = this;
      return new Table(reach.slice(tap * outPixels, (tap + 1) * outPixels), this.inPixels);
    });
  }

  /** How many pixels of each window are inside: [outPixels, 1]. */
  get counts(): Value {
    return this.#memo.once('counts', () => {
      const counts = new Float32Array(this.outPixels);
      this.reach.forEach((pixel, i) => {
        if (pixel !== this.inPixels) counts[i % this.outPixels]!++;
      });
      return external(counts, [this.outPixels, 1], 'float32');
    });
  }

  /** The same, but 1 where there is none. */
  get countsFromOne(): Value {
    return this.#memo.once('countsFromOne', () =>
      o.allOf('Max', [this.counts, o.expand(number(1), this.counts.shape)]),
    );
  }

  /** Input pixels by the taps that can reach them; those that no tap reaches are in no class. */
  get classes(): readonly ReachClass[] {
    return this.#byClass.map(({ taps, pixels }) => ({
      taps,
      pixels: pixels.length,
      table: this.#memo.once(`class ${taps}`, () => {
        const indices = new Int32Array(pixels.length * taps.length);
        pixels.forEach((pixel, i) => {
          taps.forEach((tap, j) => {
            indices[i * taps.length + j] = this.#from.get(pixel * this.taps + tap) ?? this.outPixels;
          });
        });
        return new Table(indices, this.outPixels);
      }),
    }));
  }

  /** The classes by image rows, where each row has as many pixels of each of its classes and no pixel is in none. */
  get rowClasses(): readonly RowClass[] | undefined {
    const { inSize, stride } = this.#window;
    const [height, width] = inSize as [number, number];
    const [down, across] = stride as [number, number];
    const { classes } = this;
    if (inSize.length !== 2 || width % across !== 0 || classes.length !== Math.min(down, height) * across)
      return undefined;
    return Array.from({ length: classes.length / across }, (_, i) => ({
      rows: Array.from({ length: Math.ceil((height - i) / down) }, (_, j) => i + j * down),
      columns: classes.slice(i * across, (i + 1) * across),
    }));
  }

  /** Where each input pixel of a batch is when the classes stand one after the other, all images in each. */
  order(batch: number): Table {
    return this.#ofBatch.once(`order ${batch}`, () => {
      const reached = this.#byClass.reduce((sum, { pixels }) => sum + pixels.length, 0);
      const indices = new Int32Array(batch * this.inPixels).fill(batch * reached);
      let place = 0;
      for (const { pixels } of this.#byClass) {
        for (let image = 0; image < batch; image++) {
          for (const pixel of pixels) indices[image * this.inPixels + pixel] = place++;
        }
      }
      return new Table(indices, batch * reached);
    });
  }

  /** The n-th table has, for each input pixel, the n-th place of taps × output pixels that reaches it. */
  get hits(): readonly Table[] {
    return this.#memo.once('hits', () => {
      const places: number[][] = Array.from({ length: this.inPixels }, () => []);
      this.reach.forEach((pixel, place) => {
        places[pixel]?.push(place);
      });
      const most = Math.max(...places.map((reached) => reached.length));
      const total = this.reach.length;
      return Array.from(
        { length: most },
        (_, n) =>
          new Table(
            Int32Array.from(places, (reached) => reached[n] ?? total),
            total,
          ),
      );
    });
  }

  /** For each input pixel, the first output pixel whose window it is in. */
  get windowOf(): Table {
    return this.#memo.once('windowOf', () => {
      const indices = new Int32Array(this.inPixels).fill(this.outPixels);
      for (let place = this.reach.length - 1; place >= 0; place--) {
        const pixel = this.reach[place]!;
        if (pixel !== this.inPixels) indices[pixel] = place % this.outPixels;
      }
      return new Table(indices, this.outPixels);
    });
  }

  /** reach[tap * outPixels + out] is the input pixel under that tap, or inPixels. */
  get reach(): Int32Array {
    return this.#memo.once('reach', () => {
      const outPlaces = placesIn(this.#window.outSize);
      return Int32Array.from(
        placesIn(this.#window.kernel).flatMap((tap) =>
          outPlaces.map((out) => inputPixel(this.#window, out, tap)),
        ),
      );
    });
  }

  /** Output pixel by input pixel * taps + tap. */
  get #from(): ReadonlyMap<number, number> {
    return this.#memo.once('from', () => {
      const from = new Map<number, number>();
      this.reach.forEach((pixel, i) => {
        const tap = Math.floor(i / this.outPixels);
        if (pixel !== this.inPixels) from.set(pixel * this.taps + tap, i % this.outPixels);
      });
      return from;
    });
  }

  get #byClass(): readonly { readonly taps: readonly number[]; readonly pixels: readonly number[] }[] {
    return this.#memo.once('byClass', () => {
      const { inSize, kernel, stride, dilation, before } = this.#window;
      const tapPlaces = placesIn(kernel);
      const groups = new Map<string, { taps: number[]; pixels: number[] }>();
      placesIn(inSize).forEach((place, pixel) => {
        const remainder = place.map((at, d) => (at + before[d]!) % stride[d]!);
        const key = remainder.join();
        let group = groups.get(key);
        if (group === undefined) {
          const reaches = (tap: readonly number[]) =>
            tap.every((at, d) => (remainder[d]! - at * dilation[d]!) % stride[d]! === 0);
          group = { taps: tapPlaces.flatMap((tap, i) => (reaches(tap) ? [i] : [])), pixels: [] };
          groups.set(key, group);
        }
        group.pixels.push(pixel);
      });
      return [...groups.values()].filter((group) => group.taps.length > 0);
    });
  }
}

const MAX_TABLES = 256;
const known = new Map<string, Tables>();

/** Returns the tables of a window, made once. */
export function tablesOf(window: Window): Tables {
  const { inSize, outSize, kernel, stride, dilation, before } = window;
  const key = [inSize, outSize, kernel, stride, dilation, before].join(';');
  let tables = known.get(key);
  if (tables === undefined) {
    if (known.size >= MAX_TABLES) known.clear();
    tables = new Tables(window);
    known.set(key, tables);
  }
  return tables;
}

function inputPixel(window: Window, out: readonly number[], tap: readonly number[]): number {
  const { inSize, stride, dilation, before } = window;
  let pixel = 0;
  for (let d = 0; d < inSize.length; d++) {
    const at = out[d]! * stride[d]! + tap[d]! * dilation[d]! - before[d]!;
    if (at < 0 || at >= inSize[d]!) return product(inSize);
    pixel = pixel * inSize[d]! + at;
  }
  return pixel;
}

/** All places of a grid in row-major order. */
function placesIn(size: readonly number[]): number[][] {
  return size.reduce<number[][]>(
    (places, n) => places.flatMap((place) => Array.from({ length: n }, (_, i) => [...place, i])),
    [[]],
  );
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
