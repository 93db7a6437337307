/**
 * The affine part of a random transform as one backward map: source (row, col) = matrix · output (row, col) + offset.
 * `keras3` (Keras >= 2.9) keeps that version's quirks: tx moves columns though it is drawn from the height's range, and
 * on images that are not square the centre has height and width exchanged. `classic` (keras-preprocessing <= 1.1.2)
 * has the centre half a pixel off and turns the other way.
 */

export type Variant = 'keras3' | 'classic';

/** Degrees for theta and shear, pixels for tx and ty, factors for zx and zy. */
export interface AffineParams {
  theta: number;
  tx: number;
  ty: number;
  shear: number;
  zx: number;
  zy: number;
}

/** [m00, m01, m10, m11, o0, o1]: row = m00·r + m01·c + o0, col = m10·r + m11·c + o1. */
export type Affine = readonly [number, number, number, number, number, number];

type Matrix = readonly [number, number, number, number, number, number, number, number, number];

/**
 * Returns the backward map of rotation, shift, shear and zoom about the image's centre, or undefined when all of them
 * are identities (the image is then left untouched, not resampled). Height and width in pixels.
 */
export function affineMatrix(
  params: AffineParams,
  height: number,
  width: number,
  variant: Variant,
): Affine | undefined {
  const { theta, tx, ty, shear, zx, zy } = params;
  let m: Matrix | undefined;
  if (theta !== 0) {
    const a = radians(theta);
    m = [Math.cos(a), -Math.sin(a), 0, Math.sin(a), Math.cos(a), 0, 0, 0, 1];
  }
  if (tx !== 0 || ty !== 0) m = times(m, [1, 0, tx, 0, 1, ty, 0, 0, 1]);
  if (shear !== 0) {
    const s = radians(shear);
    m = times(m, [1, -Math.sin(s), 0, 0, Math.cos(s), 0, 0, 0, 1]);
  }
  if (zx !== 1 || zy !== 1) m = times(m, [zx, 0, 0, 0, zy, 0, 0, 0, 1]);
  if (!m) return undefined;

  const shift = variant === 'keras3' ? -0.5 : 0.5;
  const ox = height / 2 + shift;
  const oy = width / 2 + shift;
  const [a, b, e, c, d, f] = times(times([1, 0, ox, 0, 1, oy, 0, 0, 1], m), [1, 0, -ox, 0, 1, -oy, 0, 0, 1]);
  return variant === 'keras3' ? [d, c, b, a, f, e] : [a, b, c, d, e, f];
}

function radians(degrees: number): number {
  return degrees * (Math.PI / 180);
}

function times(a: Matrix | undefined, b: Matrix): Matrix {
  if (!a) return b;
  const cell = (row: 0 | 3 | 6, col: 0 | 1 | 2) =>
    fusedAdd(a[row + 2]!, b[col + 6]!, fusedAdd(a[row + 1]!, b[col + 3]!, a[row]! * b[col]!));
  return [
    cell(0, 0),
    cell(0, 1),
    cell(0, 2),
    cell(3, 0),
    cell(3, 1),
    cell(3, 2),
    cell(6, 0),
    cell(6, 1),
    cell(6, 2),
  ];
}

/**
 * a·b + c rounded once, as the matrix product that Keras calls does on current processors. The last bit matters: it
 * decides which way a position that lies on a border, or half way between two pixels, falls.
 */
function fusedAdd(a: number, b: number, c: number): number {
  const product = a * b;
  const sum = product + c;
  // What the product lost (Dekker 1971), and what the sum lost (Knuth's two-sum).
  const [aHigh, aLow] = halves(a);
  const [bHigh, bLow] = halves(b);
  const productLoss = aLow * bLow - (product - aHigh * bHigh - aLow * bHigh - aHigh * bLow);
  const part = sum - product;
  const sumLoss = product - (sum - part) + (c - part);
  return sum + (productLoss + sumLoss);
}

function halves(x: number): [number, number] {
  const scaled = x * (2 ** 27 + 1);
  const high = scaled - (scaled - x);
  return [high, x - high];
}
