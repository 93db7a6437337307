/** Convolution with filters of its own for each channel: products with patches, summed over taps. */
import type { Value } from '../graph.ts';
import * as o from '../ops.ts';
import { type Geometry, imageOf, inOrder, pixelsOf, rowOrders, ZERO } from './conv-geometry.ts';

/** [batch, pixels, taps, cin, multiplier]: each input pixel's part in each output. */
export function depthwise(x: Value, filter: Value, g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const weights = o.reshape(filter, [tables.taps, cin, cout / cin]);
  const rows = o.reshape(tables.patches.take(pixelsOf(x, g), ZERO), [
    batch * tables.outPixels,
    tables.taps,
    cin,
    1,
  ]);
  return imageOf(sumOverTaps(rows, weights), g.outShape, g);
}

/** Σ over taps of rows[n, tap, channel, 1 or m] · weights[tap, channel, m], multipliers side by side. */
function sumOverTaps(rows: Value, weights: Value): Value {
  const [count, taps, cin] = rows.shape as [number, number, number, number];
  const multiplier = weights.shape[2]!;
  const flat = (x: Value, width: number) => o.reshape(x, [...x.shape.slice(0, -2), cin * width]);
  const products =
    multiplier === 1 ? o.mul(flat(rows, 1), flat(weights, 1)) : flat(o.mul(rows, weights), multiplier);
  return o.reduce('ReduceSum', o.reshape(products, [count, taps, cin * multiplier]), [1], false);
}

export function depthwiseFilterGradient(
  x: Value,
  dy: Value,
  filterShape: readonly number[],
  g: Geometry,
): Value {
  const { tables, batch, cin, cout } = g;
  const rows = batch * tables.outPixels;
  const taken = o.reshape(tables.patches.take(pixelsOf(x, g), ZERO), [rows, tables.taps, cin, 1]);
  const products = o.mul(taken, o.reshape(pixelsOf(dy, g), [rows, 1, cin, cout / cin]));
  return o.reshape(o.reduce('ReduceSum', products, [0], false), filterShape);
}

export function depthwiseInputGradient(dy: Value, filter: Value, g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const multiplier = cout / cin;
  const dyPixels = pixelsOf(dy, g);
  const weights = o.reshape(filter, [tables.taps, cout]);
  const byClass = tables.classes.map(({ taps, pixels, table }) => {
    const reached = o.reshape(table.take(dyPixels, ZERO), [batch * pixels, taps.length, cout]);
    const order = rowOrders.of(`${taps}`, () => Int32Array.from(taps));
    const used = taps.length === tables.taps ? weights : o.gather(weights, order, 0);
    const sums = o.reduce('ReduceSum', o.mul(reached, used), [1], false);
    if (multiplier === 1) return sums;
    return o.reduce('ReduceSum', o.reshape(sums, [batch * pixels, cin, multiplier]), [2], false);
  });
  return imageOf(inOrder(byClass, g), g.inShape, g);
}
