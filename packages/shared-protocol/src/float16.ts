/**
 * Half precision as bits: IEEE 754 binary16 (5 exponent bits, 10 of fraction) and bfloat16 (a float32 cut to its upper
 * half). Narrowing rounds to nearest, ties to even, and keeps the sign of zero, infinities and NaN (made quiet).
 */

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** The binary16 bits, in [0, 0xffff], of `value` taken as a float32. Past 65,519.996… it is an infinity. */
export function float16Bits(value: number): number {
  f32[0] = value;
  return narrowToFloat16(u32[0]!);
}

/** The exact value of binary16 bits. */
export function float16Value(bits: number): number {
  u32[0] = widenFloat16(bits);
  return f32[0]!;
}

/** The bfloat16 bits, in [0, 0xffff], of `value` taken as a float32. */
export function bfloat16Bits(value: number): number {
  f32[0] = value;
  return narrowToBfloat16(u32[0]!);
}

/** The exact value of bfloat16 bits. */
export function bfloat16Value(bits: number): number {
  u32[0] = bits << 16;
  return f32[0]!;
}

/** Fresh binary16 bits, one for each float32. */
export function toFloat16(values: Float32Array): Uint16Array {
  return mapBits(values, narrowToFloat16);
}

/** Fresh float32 values, one for each binary16. */
export function fromFloat16(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = widenFloat16(bits[i]!);
  return new Float32Array(out.buffer);
}

/** Fresh bfloat16 bits, one for each float32. */
export function toBfloat16(values: Float32Array): Uint16Array {
  return mapBits(values, narrowToBfloat16);
}

/** Fresh float32 values, one for each bfloat16. */
export function fromBfloat16(bits: Uint16Array): Float32Array {
  const out = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16;
  return new Float32Array(out.buffer);
}

function mapBits(values: Float32Array, narrow: (bits: number) => number): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = narrow(bits[i]!);
  return out;
}

function narrowToFloat16(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fff_ffff;
  if (magnitude > 0x7f80_0000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff); // NaN
  // 0x477ff000 is 65,520, halfway between the largest half and the next: ties to even go up, to infinity.
  if (magnitude >= 0x477f_f000) return sign | 0x7c00;
  // 0x38800000 is 2^-14, the smallest normal half. Adding 0xfff and the last kept bit rounds ties to even; a carry
  // runs into the exponent, as it should. 0xc8000000 rebiases it by 15 − 127.
  if (magnitude >= 0x3880_0000) {
    return sign | (((magnitude + 0xc800_0fff + ((magnitude >>> 13) & 1)) >>> 13) & 0x7fff);
  }
  // 0x33000000 is 2^-25, half of the smallest subnormal: it ties to even, to zero.
  if (magnitude <= 0x3300_0000) return sign;
  const shift = 126 - (magnitude >>> 23);
  const significand = (magnitude & 0x007f_ffff) | 0x0080_0000;
  const kept = significand >>> shift;
  const rest = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return sign | (kept + (rest > half || (rest === half && (kept & 1) === 1) ? 1 : 0));
}

function widenFloat16(bits: number): number {
  const sign = (bits & 0x8000) << 16;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f80_0000 | (fraction << 13);
  if (exponent !== 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  // Subnormal: the value is fraction · 2^-24. Shift its leading bit to where a normal float32 has it hidden.
  const lead = Math.clz32(fraction) - 21;
  return sign | ((113 - lead) << 23) | (((fraction << lead) & 0x3ff) << 13);
}

function narrowToBfloat16(bits: number): number {
  if ((bits & 0x7fff_ffff) > 0x7f80_0000) return (bits >>> 16) | 0x40; // NaN
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}
