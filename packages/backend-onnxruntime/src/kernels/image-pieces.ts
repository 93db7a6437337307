/**
 * A large batch of images as the pieces that it is computed in: some rows of pixels each. Who takes it piece by piece
 * finds each in the cache; the whole, which passes over memory would put in order, is then never made.
 */
import { number, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import type { Cut } from './cut.ts';
import { step, takingMask } from './mask.ts';
import { Notes } from './notes.ts';
import { takingZeroRow, zeroRowOf } from './zero-row.ts';

export interface Images {
  readonly cut: Cut;
  readonly channels: number;
  /** Pixels [n, channels] of each part of each piece. */
  readonly pieces: readonly (readonly Value[])[];
  /** What it is the gradient of, as far as that is known. */
  readonly of?: Value | undefined;
}

const known = new Notes<Images>();

/** The pieces of images, where they are computed in pieces. */
export function piecesOf(images: Value): Images | undefined {
  return known.get(images);
}

/** [batch, height, width, channels] */
export function shapeOf({ cut, channels }: Images): readonly number[] {
  return [cut.batch, cut.height, cut.width, channels];
}

/** Returns the pieces as one batch of images. */
export function imagesOf(images: Images): Value {
  const whole = images.cut.ascending ? joined(images) : put(images);
  known.set(whole, images);
  return o.reshape(whole, shapeOf(images));
}

/** Pieces that follow each other. */
function joined({ cut, pieces, channels }: Images): Value {
  const { batch, height, width, ends } = cut;
  const parts = pieces.flat();
  const whole = o.concat(parts, 0);
  if (ends === undefined) return whole;
  return takingZeroRow(whole, batch, () => {
    const line = o.expand(number(0), [width, channels]);
    const withLines = parts.flatMap((part, i) => (ends.has(i) ? [part, line] : [part]));
    return o.reshape(o.concat(withLines, 0), [batch, (height + 1) * width, channels]);
  });
}

/** Pieces whose pixels lie between each other's. */
function put({ cut, pieces, channels }: Images): Value {
  const all = pieces.flat();
  return takingZeroRow(o.gather(o.concat(all, 0), cut.places(false), 0), cut.batch, () => {
    const withZero = o.concat([...all, o.expand(number(0), [1, channels])], 0);
    return o.reshape(o.gather(withZero, cut.places(true), 0), [
      cut.batch,
      (cut.height + 1) * cut.width,
      channels,
    ]);
  });
}

/** Images of which each value is what an element-wise `op` makes of one of these. */
export function eachPiece({ cut, channels, pieces }: Images, op: (piece: Value) => Value): Value {
  return imagesOf({ cut, channels, pieces: pieces.map((piece) => piece.map(op)) });
}

/** A gradient as images, which can be had masked. */
export function gradientOf(gradient: Images): Value {
  const { batch, width } = gradient.cut;
  return takingMask(imagesOf(gradient), (x) => {
    const image = zeroRowOf(x, batch, width * gradient.channels) ?? x;
    const pieces = gradient.pieces.map((piece, i) => {
      const under = pixelsLike(gradient, i, image);
      return piece.map((pixels, part) => o.mul(pixels, step(under[part]!)));
    });
    return gradientOf({ ...gradient, pieces, of: beforeRelu(image) });
  });
}

function beforeRelu(x: Value): Value {
  const { node } = o.unviewed(x);
  return node?.op === 'Relu' ? node.inputs[0]! : x;
}

/** The pixels of other images that are where those of a piece are. */
function pixelsLike({ cut, channels }: Images, piece: number, images: Value): Value[] {
  const rowsBelow = images.size / (cut.batch * cut.width * channels) - cut.height;
  const { tables, offset } = cut.pixelsOf(piece, rowsBelow);
  const pixels = o.reshape(images, [images.size / channels, channels]);
  const at = (table: Value) => (offset === 0 ? table : o.add(table, number(offset, 'int32')));
  return tables.map((table) => o.gather(pixels, at(table), 0));
}

/** The rows of other images, of `size` numbers each, that are where a piece's are: [rows, size]. */
export function rowsLike({ cut }: Images, piece: number, images: Value, size: number): Value {
  const rows = images.size / size;
  return o.gather(o.reshape(images, [rows, size]), cut.rowsOf(piece, rows / cut.batch - cut.height), 0);
}
