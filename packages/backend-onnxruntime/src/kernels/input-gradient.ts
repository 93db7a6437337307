/**
 * A convolution's gradient for its images: dx = reached(dy) · Wᵀ, by classes of input pixels that the same taps reach, so
 * that there is no product with a zero.
 */
import { tracing, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { partition, paysForRow, rowsInPiece } from '../table.ts';
import type { ReachClass } from '../window.ts';
import { type Geometry, imageOf, inOrder, pixelsByRows, pixelsOf, rowOrders, ZERO } from './conv-geometry.ts';
import { Cut, cutOnce, rowsIn } from './cut.ts';
import { gradientOf } from './image-pieces.ts';
import { withZeroRow } from './zero-row.ts';

/** Pieces from which on it pays to have pieces. */
const IN_PIECES_FROM = 4;

export function inputGradient(dy: Value, filter: Value, g: Geometry): Value {
  const whole = cropped(dy, g);
  const padded = whole === dy && !g.channelsFirst ? withZeroRow(dy, g.batch, g.cout) : undefined;
  const dyPixels = padded ?? pixelsOf(whole, g);
  const weights = o.reshape(filter, [g.tables.taps * g.cin, g.cout]);
  return pixelsByRows(g) ? inRows(dyPixels, weights, g) : inClasses(dyPixels, weights, g);
}

/** A dy that is larger than the convolution's result counts as far as that goes. */
function cropped(dy: Value, { outShape }: Geometry): Value {
  return o.slice(
    dy,
    outShape.map(() => 0),
    outShape,
  );
}

/** One class after the other, then all pixels put in order. */
function inClasses(dy: Value, weights: Value, g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const withRow = paysForRow(tables.classes.map(({ table }) => table));
  const byClass = tables.classes.flatMap((reachClass) => {
    const { taps, pixels, table } = reachClass;
    const width = taps.length * cout;
    const inPieces = taps.length > 1 && batch * pixels * width * 4 >= IN_PIECES_FROM * tracing.pieceBytes;
    const wanted = rowsInPiece(width * 4, cin);
    const reached = inPieces
      ? table.takeInPieces(dy, ZERO, { width: taps.length, wanted, use: 'classes', withRow })
      : [o.reshape(table.take(dy, ZERO, withRow), [batch * pixels, width])];
    return reached.map((rows) => product(rows, weights, reachClass, g));
  });
  return imageOf(inOrder(byClass, g), g.inShape, g);
}

/** Some rows of images at a time, by class of pixels: pieces of the images. */
function inRows(dy: Value, weights: Value, g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const rowClasses = tables.rowClasses!;
  const [height, width] = g.window.inSize as [number, number];
  const across = rowClasses[0]!.columns.length;
  const withRow = paysForRow(tables.classes.map(({ table }) => table));
  const unit = width / across;
  const widest = Math.max(across * cin, ...tables.classes.map(({ taps }) => taps.length * cout));
  const wanted = Math.ceil(rowsInPiece(widest * 4, cin) / unit);
  const pieces = rowClasses.flatMap(({ columns }) => {
    const byColumn = columns.map((column) =>
      column.table
        .takeInPieces(dy, ZERO, { width: column.taps.length, wanted, unit, use: 'rows', withRow })
        .map((reached) => product(reached, weights, column, g)),
    );
    return byColumn[0]!.map((_, i) => byColumn.map((products) => products[i]!));
  });
  const cut = cutOnce(`rows ${batch} ${height} ${width} ${across} ${rowClasses.length} ${wanted}`, () => {
    const rows = rowClasses.flatMap(({ rows }) =>
      rowsIn(partition(batch, rows.length, wanted), rows, height),
    );
    return new Cut([batch, height, width], rows, across);
  });
  return gradientOf({ cut, channels: cin, pieces });
}

function product(rows: Value, weights: Value, { taps }: ReachClass, { tables, cin, cout }: Geometry): Value {
  // Rows of cout numbers, by input channel and tap: the transposed weights without a transposition.
  const used = o.reshape(weightRows(weights, taps, tables.taps, cin), [cin, taps.length * cout]);
  return o.gemm(rows, used, { transB: true });
}

function weightRows(rows: Value, taps: readonly number[], allTaps: number, cin: number): Value {
  if (allTaps === 1) return rows;
  const order = rowOrders.of(`${taps}/${cin}`, () => {
    return Int32Array.from({ length: cin * taps.length }, (_, i) => {
      const channel = Math.floor(i / taps.length);
      return taps[i % taps.length]! * cin + channel;
    });
  });
  return rows.derive(`rows of ${taps}`, () => o.gather(rows, order, 0));
}
