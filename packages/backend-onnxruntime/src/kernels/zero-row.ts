/**
 * Images with one row of pixels more below, all zeros, for what a window finds outside. A product makes it for nothing,
 * where to add it afterwards, or to put zeros into patches, is another pass.
 */
import type { Value } from '../graph.ts';
import * as o from '../ops.ts';
import { Notes } from './notes.ts';

interface Prepared {
  readonly batch: number;
  readonly make: () => Value;
}

const prepared = new Notes<Prepared>();

/** Returns `images`, known from now on as a batch that `make` makes anew with the row below each. */
export function takingZeroRow(images: Value, batch: number, make: () => Value): Value {
  prepared.set(images, { batch, make });
  return images;
}

/**
 * Returns the batch of images with a row of zeros as [batch, pixels, channels], where it can be had for nothing but making
 * them a second time.
 */
export function withZeroRow(images: Value, batch: number, channels: number): Value | undefined {
  const known = prepared.get(images);
  if (known?.batch !== batch) return undefined;
  return inPixels(o.unviewed(images).derive(`zero row ${batch}`, known.make), images, batch, channels);
}

/** The same, where somebody has asked for it already. */
export function zeroRowOf(images: Value, batch: number, channels: number): Value | undefined {
  const padded = o.unviewed(images).derived(`zero row ${batch}`);
  return padded === undefined ? undefined : inPixels(padded, images, batch, channels);
}

/** Images may be seen as others than they were made as: the row of zeros has to be whole pixels of these. */
function inPixels(padded: Value, images: Value, batch: number, channels: number): Value | undefined {
  const below = (padded.size - images.size) / batch;
  return below % channels === 0
    ? o.reshape(padded, [batch, padded.size / (batch * channels), channels])
    : undefined;
}

/** The result of an element-wise `op` that keeps zeros, with a row of zeros where `x` can have one. */
export function keepingZeroRow(x: Value, op: (x: Value) => Value): Value {
  const known = prepared.get(x);
  const result = op(x);
  return known === undefined ? result : takingZeroRow(result, known.batch, () => op(known.make()));
}
