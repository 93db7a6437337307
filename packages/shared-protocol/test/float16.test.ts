import {
  bfloat16Bits,
  bfloat16Value,
  float16Bits,
  float16Value,
  fromBfloat16,
  fromFloat16,
  toBfloat16,
  toFloat16,
} from '@tributary/shared-protocol';
import { expect, test } from 'vitest';

const ALL_BITS = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
const isNaN16 = (bits: number, exponent: number) =>
  (bits & exponent) === exponent && (bits & ~exponent & 0x7fff) !== 0;

test('float16: known values', () => {
  expect(float16Value(0x3c00)).toBe(1);
  expect(float16Value(0xc000)).toBe(-2);
  expect(float16Value(0x7bff)).toBe(65504); // the largest: (2 − 2^-10) · 2^15
  expect(float16Value(0x0001)).toBe(2 ** -24); // the smallest subnormal
  expect(float16Value(0x03ff)).toBe(1023 * 2 ** -24); // the largest subnormal
  expect(float16Value(0x0400)).toBe(2 ** -14); // the smallest normal
  expect(float16Value(0x7c00)).toBe(Number.POSITIVE_INFINITY);
  expect(Object.is(float16Value(0x8000), -0)).toBe(true);
  expect(float16Bits(1 / 3)).toBe(0x3555);
});

test('float16: narrowing a widened half gives the same bits, all 65,536 of them', () => {
  const again = toFloat16(fromFloat16(ALL_BITS));
  for (const bits of ALL_BITS) {
    if (isNaN16(bits, 0x7c00)) expect(float16Value(again[bits]!)).toBeNaN();
    else expect(again[bits]).toBe(bits);
  }
});

test('float16: rounds to nearest, ties to even, between every two neighbours', () => {
  for (let bits = 0; bits < 0x7bff; bits++) {
    const low = float16Value(bits);
    const high = float16Value(bits + 1);
    const middle = (low + high) / 2; // 12 significant bits: exact in float32
    const even = bits % 2 === 0 ? bits : bits + 1;
    expect(float16Bits(middle)).toBe(even);
    expect(float16Bits(-middle)).toBe(even | 0x8000);
    expect(float16Bits(middle * (1 - 2 ** -20))).toBe(bits);
    expect(float16Bits(middle * (1 + 2 ** -20))).toBe(bits + 1);
  }
});

test('float16: past the middle of 65,504 and 65,536 it is an infinity', () => {
  expect(float16Bits(65519.9)).toBe(0x7bff);
  expect(float16Bits(65520)).toBe(0x7c00);
  expect(float16Bits(-1e30)).toBe(0xfc00);
  expect(float16Value(float16Bits(Number.NaN))).toBeNaN();
});

test('bfloat16: narrowing a widened one gives the same bits, all 65,536 of them', () => {
  const again = toBfloat16(fromBfloat16(ALL_BITS));
  for (const bits of ALL_BITS) {
    if (isNaN16(bits, 0x7f80)) expect(bfloat16Value(again[bits]!)).toBeNaN();
    else expect(again[bits]).toBe(bits);
  }
});

test('bfloat16: rounds to nearest, ties to even', () => {
  // 1 is 0x3f80 and steps by 2^-7 there: 1 + 2^-8 is a tie that stays at even 0x3f80, 1 + 3·2^-8 one that goes up.
  expect(bfloat16Bits(1)).toBe(0x3f80);
  expect(bfloat16Bits(1 + 2 ** -8)).toBe(0x3f80);
  expect(bfloat16Bits(1 + 2 ** -8 + 2 ** -20)).toBe(0x3f81);
  expect(bfloat16Bits(1 + 3 * 2 ** -8)).toBe(0x3f82);
  expect(bfloat16Bits(-3.4e38)).toBe(0xff80); // nearer to 2^128 than to the largest bfloat16, 3.3895e38
  expect(bfloat16Value(bfloat16Bits(Number.NaN))).toBeNaN();
});
