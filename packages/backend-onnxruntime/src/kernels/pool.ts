/**
 * Pooling, tap by tap: the rows under each tap are gathered and the maximum (or sum) is taken over taps. Backwards, each
 * tap gets its share of dy, and each input pixel gathers its shares. In a tie the first maximum takes all, as in
 * TensorFlow.js: a tap takes what no earlier one has. Images that are in pieces are pooled piece by piece, where no window
 * lies in two: the pixels of a piece then stand tap by tap.
 */
import { backend_util } from '@tensorflow/tfjs-core';
import { number, sameShape, tracing, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { rowsInPiece, type Table } from '../table.ts';
import { type Tables, tablesOf, type Window } from '../window.ts';
import type { Cut } from './cut.ts';
import { imagesOf, piecesOf, shapeOf } from './image-pieces.ts';
import { accept, FLOAT, type KernelTable, refuse, type Unary } from './kernel.ts';
import { step, takingMask } from './mask.ts';

const ZERO = number(0);
const LOWEST = number(Number.NEGATIVE_INFINITY);
const NEVER = number(0, 'bool');

interface Geometry {
  readonly window: Window;
  readonly tables: Tables;
  readonly batch: number;
  readonly channels: number;
  readonly outShape: readonly number[];
}

const pixelsOf = (x: Value, { batch, channels }: Geometry): Value =>
  o.reshape(x, [batch, x.size / (batch * channels), channels]);

function eachTap(x: Value, { tables }: Geometry, fill: Value): Value[] {
  return Array.from({ length: tables.taps }, (_, tap) => tables.tap(tap).take(x, fill));
}

/** TensorFlow.js takes a 1x1 window that keeps the shape for nothing to do, whatever the padding. */
function changesNothing(x: Value, g: Geometry): boolean {
  return g.tables.taps === 1 && sameShape(x.shape, g.outShape) && x.shape.length === 4;
}

function maxPool(x: Value, g: Geometry): Value {
  if (changesNothing(x, g)) return x;
  const images = inWindows(x, g);
  if (images === undefined) return o.reshape(o.allOf('Max', eachTap(pixelsOf(x, g), g, LOWEST)), g.outShape);
  // Not ReduceMax, which finds a NaN in some places only.
  const pieces = images.byTap.map((taps) =>
    o.reshape(o.allOf('Max', eachRow(taps)), [taps.shape[1]! / g.channels, g.channels]),
  );
  return imagesOf({ cut: images.ofWindows, channels: g.channels, pieces: pieces.map((piece) => [piece]) });
}

interface InWindows {
  readonly cut: Cut;
  readonly ofWindows: Cut;
  /** [taps, windows · channels] of each piece. */
  readonly byTap: readonly Value[];
}

const eachRow = (x: Value): readonly Value[] => o.split(x, new Array<number>(x.shape[0]!).fill(1));

/** Images in pieces, by the place of pixels in the windows of a pooling that leaves none out. */
function inWindows(x: Value, { window, tables, batch, channels }: Geometry): InWindows | undefined {
  const images = piecesOf(x);
  const { inSize, outSize, kernel, stride, before } = window;
  if (images === undefined || !sameShape(shapeOf(images), [batch, ...inSize, channels])) return undefined;
  const apart = kernel.every(
    (size, d) => size === stride[d] && before[d] === 0 && size * outSize[d]! === inSize[d],
  );
  const size = kernel as [number, number];
  const { cut } = images;
  const ofWindows = apart ? cut.ofWindows(size) : undefined;
  if (ofWindows === undefined) return undefined;
  const byTap = images.pieces.map(([piece], i) => {
    const taken = piece!.derive(`by window ${size}`, () => o.gather(piece!, cut.byWindow(i, size).order, 0));
    return o.reshape(taken, [tables.taps, taken.size / tables.taps]);
  });
  return { cut, ofWindows, byTap };
}

function averagePool(x: Value, g: Geometry): Value {
  if (changesNothing(x, g)) return x;
  const sum = o.allOf('Add', eachTap(pixelsOf(x, g), g, ZERO));
  const counts = g.outShape.length === 5 ? g.tables.countsFromOne : g.tables.counts;
  return o.reshape(o.div(sum, counts), g.outShape);
}

function maxPoolGradient(dy: Value, x: Value, y: Value, g: Geometry): Value {
  const images = inWindows(x, g);
  if (images !== undefined) return gradientInWindows(dy, x, y, images, g);
  const dyPixels = pixelsOf(dy, g);
  const maximum = pixelsOf(y, g);
  const firsts = firstOf(eachTap(pixelsOf(x, g), g, LOWEST).map((candidate) => o.equal(candidate, maximum)));
  const [only, ...others] = g.tables.hits;
  if (only !== undefined && others.length === 0) {
    // Windows that don't overlap: a pixel has all of its window's dy, or nothing.
    const hits = o.concat(firsts, 1);
    const given = (dy: Value) => o.reshape(toWinners(pixelsOf(dy, g), hits, only, g), x.shape);
    return takingWinnersMask(given, dy, x, y);
  }
  const all = o.concat(
    firsts.map((first) => o.where(first, dyPixels, ZERO)),
    1,
  );
  return o.reshape(
    o.allOf(
      'Add',
      g.tables.hits.map((table) => table.take(all, ZERO)),
    ),
    x.shape,
  );
}

function gradientInWindows(dy: Value, x: Value, y: Value, images: InWindows, g: Geometry): Value {
  const { channels, window } = g;
  const { cut, ofWindows, byTap } = images;
  const perPiece = (pixels: Value) =>
    o
      .split(
        o.reshape(pixels, [pixels.size / channels, channels]),
        byTap.map((taps) => taps.shape[1]! / channels),
      )
      .map((piece) => o.reshape(piece, [1, piece.size]));
  const pooled = piecesOf(y);
  const maxima =
    pooled?.cut === ofWindows
      ? pooled.pieces.map(([piece]) => o.reshape(piece!, [1, piece!.size]))
      : perPiece(y);
  const wins = byTap.map((taps, i) => {
    const hits = o.equal(taps, maxima[i]!);
    return o.cast(o.concat(firstOf(eachRow(hits)), 0), 'float32');
  });
  const given = (dy: Value) => {
    const pieces = perPiece(dy).map((piece, i) => {
      const won = o.reshape(o.mul(wins[i]!, piece), [wins[i]!.size / channels, channels]);
      return [o.gather(won, cut.byWindow(i, window.kernel as [number, number]).back, 0)];
    });
    return imagesOf({ cut, channels, pieces });
  };
  return takingWinnersMask(given, dy, x, y);
}

/** What wins is the maximum: where the one is positive, so is the other, and there are fewer of those. */
function takingWinnersMask(given: (dy: Value) => Value, dy: Value, x: Value, y: Value): Value {
  return takingMask(given(dy), (masking) => {
    const same = o.unviewed(masking) === o.unviewed(x);
    return same ? given(o.mul(dy, step(o.reshape(y, dy.shape)))) : undefined;
  });
}

/** The hits of each tap where no earlier one has any. */
function firstOf(hits: readonly Value[]): Value[] {
  let taken: Value | undefined;
  return hits.map((hit) => {
    const first = taken === undefined ? hit : o.and(hit, o.not(taken));
    taken = taken === undefined ? hit : o.or(taken, hit);
    return first;
  });
}

/** Pieces of the gradient from which on it pays to have pieces. */
const IN_PIECES_FROM = 16;

/** Each pixel's part of dy: that of its window where it wins. */
function toWinners(dy: Value, hits: Value, winners: Table, { tables, batch, channels }: Geometry): Value {
  const inPieces = batch * tables.inPixels * channels * 4 >= IN_PIECES_FROM * tracing.pieceBytes;
  const take = (table: Table, x: Value, fill: Value) =>
    inPieces
      ? table.takeInPieces(x, fill, { width: 1, wanted: rowsInPiece(channels * 4, 1), use: 'winners' })
      : [table.take(x, fill)];
  const wins = take(winners, hits, NEVER);
  const products = take(tables.windowOf, dy, ZERO).map((reached, i) =>
    o.mul(reached, o.cast(wins[i]!, 'float32')),
  );
  return o.concat(products, 0);
}

/** Like `cpu`, which divides by the whole window also where a part of it is padding. */
function averagePoolGradient(dy: Value, x: Value, g: Geometry): Value {
  const { tables, batch, channels } = g;
  const share = o.div(pixelsOf(dy, g), tables.taps);
  // All taps' shares are equal: a place of taps × output pixels is just its output pixel.
  const all =
    tables.taps === 1
      ? share
      : o.reshape(o.tile(o.reshape(share, [batch, 1, share.shape[1]!, channels]), [1, tables.taps, 1, 1]), [
          batch,
          tables.taps * tables.outPixels,
          channels,
        ]);
  return o.reshape(
    o.allOf(
      'Add',
      tables.hits.map((table) => table.take(all, ZERO)),
    ),
    x.shape,
  );
}

// --- The table ---

interface PoolAttrs {
  readonly filterSize: number | [number, number];
  readonly strides: number | [number, number];
  readonly pad: Parameters<typeof backend_util.computePool2DInfo>[4];
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil';
}

interface Pool3DAttrs {
  readonly filterSize: number | [number, number, number];
  readonly strides: number | [number, number, number];
  readonly pad: 'valid' | 'same' | number;
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil';
  readonly dataFormat?: 'NDHWC' | 'NCDHW';
}

function pool2d(x: Value, { filterSize, strides, pad, dimRoundingMode }: PoolAttrs): Geometry {
  const shape = x.shape as [number, number, number, number];
  const info = backend_util.computePool2DInfo(shape, filterSize, strides, 1, pad, dimRoundingMode);
  return geometry(info, {
    inSize: [info.inHeight, info.inWidth],
    outSize: [info.outHeight, info.outWidth],
    kernel: [info.filterHeight, info.filterWidth],
    stride: [info.strideHeight, info.strideWidth],
    dilation: [1, 1],
    before: [info.padInfo.top, info.padInfo.left],
  });
}

function pool3d(
  x: Value,
  { filterSize, strides, pad, dimRoundingMode, dataFormat = 'NDHWC' }: Pool3DAttrs,
): Geometry {
  if (dataFormat !== 'NDHWC') refuse(dataFormat);
  const shape = x.shape as [number, number, number, number, number];
  const info = backend_util.computePool3DInfo(
    shape,
    filterSize,
    strides,
    1,
    pad,
    dimRoundingMode,
    dataFormat,
  );
  return geometry(info, {
    inSize: [info.inDepth, info.inHeight, info.inWidth],
    outSize: [info.outDepth, info.outHeight, info.outWidth],
    kernel: [info.filterDepth, info.filterHeight, info.filterWidth],
    stride: [info.strideDepth, info.strideHeight, info.strideWidth],
    dilation: [1, 1, 1],
    before: [info.padInfo.front, info.padInfo.top, info.padInfo.left],
  });
}

function geometry(
  info: { batchSize: number; inChannels: number; outShape: number[] },
  window: Window,
): Geometry {
  if (info.outShape.includes(0)) refuse('empty result');
  return {
    window,
    tables: tablesOf(window),
    batch: info.batchSize,
    channels: info.inChannels,
    outShape: info.outShape,
  };
}

interface PoolGradient {
  readonly dy: Value;
  readonly input: Value;
}

function kernelsFor<A>(geometryOf: (x: Value, attrs: A) => Geometry) {
  return {
    max: ({ x }: Unary, attrs: A) => {
      accept(FLOAT, x);
      return maxPool(x, geometryOf(x, attrs));
    },
    maxGradient: ({ dy, input, output }: PoolGradient & { output: Value }, attrs: A) => {
      accept(FLOAT, dy, input);
      return maxPoolGradient(dy, input, output, geometryOf(input, attrs));
    },
    average: ({ x }: Unary, attrs: A) => {
      accept(FLOAT, x);
      return averagePool(x, geometryOf(x, attrs));
    },
    averageGradient: ({ dy, input }: PoolGradient, attrs: A) => {
      accept(FLOAT, dy, input);
      return averagePoolGradient(dy, input, geometryOf(input, attrs));
    },
  };
}

const flat = kernelsFor(pool2d);
const solid = kernelsFor(pool3d);

export const pooling: KernelTable = {
  MaxPool: flat.max,
  MaxPoolGrad: flat.maxGradient,
  AvgPool: flat.average,
  AvgPoolGrad: flat.averageGradient,
  MaxPool3D: solid.max,
  MaxPool3DGrad: solid.maxGradient,
  AvgPool3D: solid.average,
  AvgPool3DGrad: solid.averageGradient,
};
