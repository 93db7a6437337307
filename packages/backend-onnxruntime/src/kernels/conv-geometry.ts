/**
 * What all convolutions share: geometry, pixels with channels last whatever the caller's order, patches as rows, and
 * joining what was computed by classes of pixels.
 */
import type { backend_util } from '@tensorflow/tfjs-core';
import { external, number, tracing, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { partition, rowsInPiece } from '../table.ts';
import { type Tables, tablesOf, type Window } from '../window.ts';
import { Cut, cutOnce, rowsIn } from './cut.ts';
import { refuse } from './kernel.ts';
import { withZeroRow } from './zero-row.ts';

export const ZERO: Value = number(0);

export interface Geometry {
  readonly batch: number;
  readonly window: Window;
  readonly tables: Tables;
  readonly cin: number;
  readonly cout: number;
  readonly inShape: readonly number[];
  readonly outShape: readonly number[];
  readonly channelsFirst: boolean;
}

type Conv2DInfo = ReturnType<typeof backend_util.computeConv2DInfo>;
type Conv3DInfo = ReturnType<typeof backend_util.computeConv3DInfo>;

export function geometry2d(info: Conv2DInfo): Geometry {
  const window: Window = {
    inSize: [info.inHeight, info.inWidth],
    outSize: [info.outHeight, info.outWidth],
    kernel: [info.filterHeight, info.filterWidth],
    stride: [info.strideHeight, info.strideWidth],
    dilation: [info.dilationHeight, info.dilationWidth],
    before: [info.padInfo.top, info.padInfo.left],
  };
  return geometry(info, window);
}

export function geometry3d(info: Conv3DInfo): Geometry {
  const window: Window = {
    inSize: [info.inDepth, info.inHeight, info.inWidth],
    outSize: [info.outDepth, info.outHeight, info.outWidth],
    kernel: [info.filterDepth, info.filterHeight, info.filterWidth],
    stride: [info.strideDepth, info.strideHeight, info.strideWidth],
    dilation: [info.dilationDepth, info.dilationHeight, info.dilationWidth],
    before: [info.padInfo.front, info.padInfo.top, info.padInfo.left],
  };
  return geometry(info, window);
}

function geometry(info: Conv2DInfo | Conv3DInfo, window: Window): Geometry {
  if (info.outShape.includes(0)) refuse('empty result');
  return {
    batch: info.batchSize,
    window,
    tables: tablesOf(window),
    cin: info.inChannels,
    cout: info.outChannels,
    inShape: info.inShape,
    outShape: info.outShape,
    channelsFirst: info.dataFormat === 'channelsFirst',
  };
}

// --- Channels last inside, whatever outside ---

/** As [batch, pixels, channels]. */
export function pixelsOf(x: Value, { batch, channelsFirst }: Geometry): Value {
  const channels = channelsFirst ? x.shape[1]! : x.shape.at(-1)!;
  const last = channelsFirst ? o.transpose(x, [0, ...spatialAxes(x, 2), 1]) : x;
  return o.reshape(last, [batch, x.size / (batch * channels), channels]);
}

/** Back to `shape`, which has channels where the caller wants them. */
export function imageOf(pixels: Value, shape: readonly number[], { channelsFirst }: Geometry): Value {
  if (!channelsFirst) return o.reshape(pixels, shape);
  const [batch, channels, ...spatial] = shape as [number, number, ...number[]];
  const last = o.reshape(pixels, [batch, ...spatial, channels]);
  return o.transpose(last, [0, shape.length - 1, ...spatial.map((_, i) => i + 1)]);
}

function spatialAxes(x: Value, first: number): number[] {
  return x.shape.slice(2).map((_, i) => i + first);
}

/** Patches that are taken twice, in pieces, rather than kept: what does not fit a cache, by far. */
const PATCHES_IN_PIECES_FROM = 12;

/** [pixels, taps · cin] of the batch, in one or, where they are very many, in several pieces one after the other. */
export function patches(x: Value, g: Geometry, use: 'result' | 'gradient'): Value[] {
  const { batch, tables, cin } = g;
  const width = tables.taps * cin;
  if (!inPieces(g)) return [o.reshape(tables.patches.take(x, ZERO), [batch * tables.outPixels, width])];
  const source = (pixelsByRows(g) ? withZeroRow(x, batch, cin) : undefined) ?? x;
  const unit = byRows(g) ? rowsTogether(g) * g.window.outSize[1]! : 1;
  const options = { width: tables.taps, wanted: patchesInPiece(g, unit), unit, use };
  return tables.patches.takeInPieces(source, ZERO, options);
}

/** How the result of a convolution is cut, where its patches are in pieces of whole rows. */
export function cutOfResult(g: Geometry): Cut | undefined {
  if (!inPieces(g) || !byRows(g)) return undefined;
  const { batch, window } = g;
  const [height, width] = window.outSize as [number, number];
  const together = rowsTogether(g);
  const wanted = patchesInPiece(g, together * width);
  return cutOnce(`result ${batch} ${height} ${width} ${wanted}`, () => {
    const rows = Array.from({ length: height }, (_, row) => row);
    const pieces = rowsIn(partition(batch, height / together, wanted), rows, height, together);
    return new Cut([batch, height, width], pieces);
  });
}

const byRows = ({ window, channelsFirst }: Geometry): boolean =>
  window.outSize.length === 2 && !channelsFirst;

/** Two rows of the result where there are pairs, as most poolings take them. */
function rowsTogether({ window }: Geometry): number {
  return window.outSize[0]! % 2 === 0 ? 2 : 1;
}

function inPieces({ batch, tables, cin }: Geometry): boolean {
  return batch * tables.outPixels * tables.taps * cin * 4 >= PATCHES_IN_PIECES_FROM * tracing.pieceBytes;
}

/** Patches in a piece, in units of so many. */
function patchesInPiece({ tables, cin, cout }: Geometry, unit: number): number {
  return Math.ceil(rowsInPiece(tables.taps * cin * 4, cout) / unit);
}

/** Pieces of a gradient's images from which on they are computed by rows. */
const BY_ROWS_FROM = 4;

/** Whether the gradient for the images of a convolution is computed by rows of pixels. */
export function pixelsByRows({ tables, batch, cin, channelsFirst }: Geometry): boolean {
  if (channelsFirst || batch * tables.inPixels * cin * 4 < BY_ROWS_FROM * tracing.pieceBytes) return false;
  return tables.rowClasses !== undefined;
}

/** Joins what was computed for each class of input pixels: [rows, cin], one or several a class, in their order. */
export function inOrder(byClass: readonly Value[], { batch, tables, cin }: Geometry): Value {
  const all = o.concat(byClass, 0);
  const ordered = tables.order(batch).take(o.reshape(all, [1, all.shape[0]!, cin]), ZERO);
  return o.reshape(ordered, [batch, tables.inPixels, cin]);
}

/** Index tables for rows of weights, by what they select. */
export const rowOrders = {
  known: new Map<string, Value>(),
  of(key: string, make: () => Int32Array): Value {
    let order = this.known.get(key);
    if (order === undefined) {
      if (this.known.size >= 256) this.known.clear();
      const indices = make();
      order = external(indices, [indices.length], 'int32');
      this.known.set(key, order);
    }
    return order;
  },
};
