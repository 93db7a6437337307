/**
 * A large gradient of images as the pieces that it is computed in: some rows of pixels each, every second row where the
 * stride is 2. Who takes it piece by piece finds each in the cache; the whole, which several passes over memory would
 * put in order, is then never made.
 */
import { ints, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { step, takingMask } from './mask.ts';
import { Notes } from './notes.ts';
import { zeroRowOf } from './zero-row.ts';

export interface Piece {
  /** [rows, width · channels] */
  readonly pixels: Value;
  /** Which of batch · height rows they are. */
  readonly rows: readonly number[];
}

export interface ByRows {
  readonly pieces: readonly Piece[];
  readonly batch: number;
  readonly height: number;
  /** What it is the gradient of, as far as that is known. */
  readonly of: Value | undefined;
}

const known = new Notes<ByRows>();

/** Returns the pieces in order, as images [batch, height, width, channels]. */
export function imagesOf(pieces: readonly Piece[], shape: readonly number[], of?: Value): Value {
  const [batch, height] = shape as [number, number];
  const order = new Array<number>(batch * height);
  let place = 0;
  for (const { rows } of pieces) for (const row of rows) order[row] = place++;
  const pixels = o.concat(
    pieces.map((piece) => piece.pixels),
    0,
  );
  const inOrder = order.every((at, row) => at === row) ? pixels : o.gather(pixels, ints(order), 0);
  const byRows: ByRows = { pieces, batch, height, of };
  known.set(inOrder, byRows);
  const size = inOrder.shape[1]!;
  takingMask(inOrder, (x) => {
    const below = zeroRowOf(x, batch);
    const image = below !== undefined && (below.size / batch) % size === 0 ? below : x;
    const masked = pieces.map((piece) => {
      const under = rowsLike(piece, image, size, byRows);
      return { pixels: o.mul(piece.pixels, step(under)), rows: piece.rows };
    });
    return imagesOf(masked, shape, image.node?.op === 'Relu' ? image.node.inputs[0] : image);
  });
  return o.reshape(inOrder, shape);
}

/** The pieces of a gradient, where it is computed in pieces. */
export function piecesOf(gradient: Value): ByRows | undefined {
  return known.get(gradient);
}

/** The rows of other images, of `size` numbers each, that are where a piece's are: [rows, size]. */
export function rowsLike({ rows }: Piece, images: Value, size: number, { batch, height }: ByRows): Value {
  const perImage = images.size / size / batch;
  const places = rows.map((row) => row + (perImage - height) * Math.floor(row / height));
  return o.gather(o.reshape(images, [batch * perImage, size]), ints(places), 0);
}
