/**
 * Values of b bits side by side, b from 1 to 32: the first value in the lowest bits of the first byte. kernel.ts packs and
 * unpacks them.
 */
import { endianness } from 'node:os';

if (endianness() !== 'LE') throw new Error('secure aggregation is written for little-endian processors');

/** Bytes of `count` values of `bits` bits. */
export function packedBytes(count: number, bits: number): number {
  if (!Number.isInteger(bits) || bits < 1 || bits > 32)
    throw new RangeError(`values of ${bits} bits: from 1 to 32 can be packed`);
  return Math.ceil((count * bits) / 8);
}

/** Whether the bits that belong to no value are zero in `tail`, which holds at least the last byte of `count` values. */
export function hasZeroPadding(tail: Uint8Array, count: number, bits: number): boolean {
  const over = packedBytes(count, bits) * 8 - count * bits;
  return over === 0 || tail.length === 0 || tail.at(-1)! >>> (8 - over) === 0;
}
