/**
 * AssemblyScript: the usual case of src/images/affine.ts (RGB bytes, bilinear, borders clamped), two pixels at a time.
 * Every value takes the same float64 operations in the same order as there, so the results are the same to the bit.
 * Clamping needs no branch: where a coordinate is on the last row or column, the neighbour beyond has weight 0, and
 * whatever lies in memory behind the image times 0 adds nothing.
 */

/** Whole numbers below 2^32, plus this, have themselves in the low half of the float64's bits. */
const WHOLE: f64 = 4503599627370496.0;

/**
 * Writes rows [from, to) of the result to `target`: width × 3 float32 each. Up to 28 bytes behind the last row are
 * overwritten, and up to one row and 16 bytes behind the source are read.
 */
export function resample(
  source: usize,
  target: usize,
  height: i32,
  width: i32,
  from: i32,
  to: i32,
  m00: f64,
  m01: f64,
  m10: f64,
  m11: f64,
  o0: f64,
  o1: f64,
  flipHorizontal: bool,
  flipVertical: bool,
  scale: f32,
): void {
  const zero = f64x2.splat(0);
  const one = f64x2.splat(1);
  const lastRow = f64x2.splat(<f64>(height - 1));
  const lastColumn = f64x2.splat(<f64>(width - 1));
  const rowBytes = f64x2.splat(<f64>(width * 3));
  const pixelBytes = f64x2.splat(3);
  const whole = f64x2.splat(WHOLE);
  const factor = f32x4.splat(scale);
  const dy = f64x2.splat(m01);
  const dx = f64x2.splat(m11);
  const pitch = <usize>width * 3;
  const step: f64 = flipHorizontal ? -1 : 1;
  const first: f64 = flipHorizontal ? <f64>(width - 1) : 0;
  const next = f64x2.splat(2 * step);
  const start = f64x2.replace_lane(f64x2.splat(first), 1, first + step);
  // Of eight bytes, the three of a pixel (and of the one on its right) as four int32.
  const left = i8x16(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1);
  const right = i8x16(3, -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, -1, -1, -1, -1);

  for (let row = from; row < to; row++) {
    const r = <f64>(flipVertical ? height - 1 - row : row);
    const y0 = f64x2.splat(o0 + r * m00);
    const x0 = f64x2.splat(o1 + r * m10);
    let column = start;
    let at = target + <usize>(row - from) * pitch * 4;
    const end = at + pitch * 4;
    for (; at < end; at += 24) {
      const y = f64x2.pmin(lastRow, f64x2.pmax(zero, f64x2.add(y0, f64x2.mul(column, dy))));
      const x = f64x2.pmin(lastColumn, f64x2.pmax(zero, f64x2.add(x0, f64x2.mul(column, dx))));
      column = f64x2.add(column, next);
      const iy = f64x2.floor(y);
      const ix = f64x2.floor(x);
      const down = f64x2.sub(y, iy);
      const along = f64x2.sub(x, ix);
      const up = f64x2.sub(one, down);
      const back = f64x2.sub(one, along);
      const w00 = f64x2.mul(up, back);
      const w01 = f64x2.mul(up, along);
      const w10 = f64x2.mul(down, back);
      const w11 = f64x2.mul(down, along);
      const place = f64x2.add(f64x2.add(f64x2.mul(iy, rowBytes), f64x2.mul(ix, pixelBytes)), whole);
      const p0 = source + <usize>i32x4.extract_lane(place, 0);
      const p1 = source + <usize>i32x4.extract_lane(place, 2);

      const top0 = v128.load64_zero(p0);
      const low0 = v128.load64_zero(p0 + pitch);
      const top1 = v128.load64_zero(p1);
      const low1 = v128.load64_zero(p1 + pitch);
      const a0 = i8x16.swizzle(top0, left);
      const b0 = i8x16.swizzle(top0, right);
      const c0 = i8x16.swizzle(low0, left);
      const d0 = i8x16.swizzle(low0, right);
      const a1 = i8x16.swizzle(top1, left);
      const b1 = i8x16.swizzle(top1, right);
      const c1 = i8x16.swizzle(low1, left);
      const d1 = i8x16.swizzle(low1, right);

      const redGreen0 = mix(a0, b0, c0, d0, both(w00, 0), both(w01, 0), both(w10, 0), both(w11, 0));
      const redGreen1 = mix(a1, b1, c1, d1, both(w00, 1), both(w01, 1), both(w10, 1), both(w11, 1));
      const blue = mix(thirds(a0, a1), thirds(b0, b1), thirds(c0, c1), thirds(d0, d1), w00, w01, w10, w11);
      const blue1 = v128.shuffle<i32>(blue, blue, 1, 1, 1, 1);
      v128.store(at, f32x4.mul(v128.shuffle<i32>(redGreen0, blue, 0, 1, 4, 5), factor));
      v128.store(at, f32x4.mul(v128.shuffle<i32>(redGreen1, blue1, 0, 1, 4, 5), factor), 12);
    }
  }
}

@inline
function both(w: v128, lane: i32): v128 {
  return lane === 0 ? v128.shuffle<f64>(w, w, 0, 0) : v128.shuffle<f64>(w, w, 1, 1);
}

@inline
function thirds(x: v128, y: v128): v128 {
  return v128.shuffle<i32>(x, y, 2, 6, 3, 7);
}

/** Two values of four neighbours, in the order of summation that the other path has, rounded to float32. */
@inline
function mix(a: v128, b: v128, c: v128, d: v128, wa: v128, wb: v128, wc: v128, wd: v128): v128 {
  return f32x4.demote_f64x2_zero(
    f64x2.add(
      f64x2.add(
        f64x2.add(f64x2.mul(f64x2.convert_low_i32x4_s(a), wa), f64x2.mul(f64x2.convert_low_i32x4_s(b), wb)),
        f64x2.mul(f64x2.convert_low_i32x4_s(c), wc),
      ),
      f64x2.mul(f64x2.convert_low_i32x4_s(d), wd),
    ),
  );
}
