/**
 * Values of b bits side by side, b from 1 to 32: the first value in the lowest bits of the first byte. A vector is packed
 * and unpacked piece by piece, so that it is never there twice.
 */
import { endianness } from 'node:os';
import { PrivacyError } from '../errors.ts';

/** Values at a time: their bits are counted in 32-bit integers. */
const BLOCK = 16_384;

if (endianness() !== 'LE') throw new Error('secure aggregation is written for little-endian processors');

export interface Packer {
  /** Appends values; bits above the lowest `bits` are dropped. */
  write(values: Uint32Array): void;
  /** The packed bytes, after the last value: bits that are left over are zero. */
  finish(): Uint8Array;
}

export interface Unpacker {
  /** Fills `values` with those that come next. */
  read(values: Uint32Array): void;
}

/** Bytes of `count` values of `bits` bits. */
export function packedBytes(count: number, bits: number): number {
  checkBits(bits);
  return Math.ceil((count * bits) / 8);
}

/** Whether the bits that belong to no value are zero in `tail`, which holds at least the last byte of `count` values. */
export function hasZeroPadding(tail: Uint8Array, count: number, bits: number): boolean {
  const over = packedBytes(count, bits) * 8 - count * bits;
  return over === 0 || tail.length === 0 || tail.at(-1)! >>> (8 - over) === 0;
}

/** Returns a packer for exactly `count` values; more or fewer are a RangeError. */
export function createPacker(count: number, bits: number): Packer {
  const bytes = packedBytes(count, bits);
  // One more, so that the last value too may spill into the word after its first.
  const words = new Int32Array(Math.ceil(bytes / 4) + 1);
  let written = 0;
  return {
    write(values) {
      if (written + values.length > count)
        throw new RangeError(`${written + values.length} values for ${count} places`);
      for (let start = 0; start < values.length; start += BLOCK) {
        const bit = written * bits;
        const block = signed(values.subarray(start, start + BLOCK));
        packBlock(block, words.subarray(Math.floor(bit / 32)), bit % 32, bits);
        written += block.length;
      }
    },
    finish() {
      if (written !== count) throw new RangeError(`${written} values for ${count} places`);
      return new Uint8Array(words.buffer, 0, bytes);
    },
  };
}

/**
 * Returns a reader of `count` values from `packed`, which is viewed, not copied. Throws PrivacyError
 * FED_PRIVACY_SECAGG_MESSAGE when there are more or fewer bytes than that, or bits that belong to no value.
 */
export function createUnpacker(packed: Uint8Array, count: number, bits: number): Unpacker {
  const bytes = packedBytes(count, bits);
  if (packed.length !== bytes)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_MESSAGE',
      `${packed.length} bytes of packed values, where ${count} values of ${bits} bits take ${bytes}`,
    );
  if (!hasZeroPadding(packed, count, bits))
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_MESSAGE',
      'the last bits of the packed values belong to no value and are not zero',
    );
  const staged = new Int32Array(Math.min(BLOCK, count) + 2);
  const stagedBytes = new Uint8Array(staged.buffer);
  let taken = 0;
  return {
    read(values) {
      if (taken + values.length > count) throw new RangeError(`value ${taken + values.length} of ${count}`);
      for (let start = 0; start < values.length; start += BLOCK) {
        const block = signed(values.subarray(start, start + BLOCK));
        const bit = taken * bits;
        const first = Math.floor(bit / 8);
        const part = packed.subarray(first, first + Math.ceil((block.length * bits + 7) / 8));
        stagedBytes.set(part);
        unpackBlock(staged, bit % 8, bits, block);
        taken += block.length;
      }
    },
  };
}

// In the loops below, a shift by 32 − s would be one by 0 where s is 0: hence two shifts, by 1 and by 31 − s. There are
// no branches, which a processor could not foretell.

function packBlock(values: Int32Array, words: Int32Array, firstBit: number, bits: number): void {
  const keep = lowest(bits);
  for (let i = 0, bit = firstBit; i < values.length; i++, bit += bits) {
    const value = values[i]! & keep;
    const word = bit >>> 5;
    const shift = bit & 31;
    words[word] = words[word]! | (value << shift);
    words[word + 1] = (value >>> 1) >>> (31 - shift);
  }
}

function unpackBlock(words: Int32Array, firstBit: number, bits: number, values: Int32Array): void {
  const keep = lowest(bits);
  for (let i = 0, bit = firstBit; i < values.length; i++, bit += bits) {
    const word = bit >>> 5;
    const shift = bit & 31;
    values[i] = ((words[word]! >>> shift) | ((words[word + 1]! << 1) << (31 - shift))) & keep;
  }
}

function lowest(bits: number): number {
  return bits === 32 ? -1 : (1 << bits) - 1;
}

/** The same words, as V8 adds and stores them fastest. */
function signed(words: Uint32Array): Int32Array {
  return new Int32Array(words.buffer, words.byteOffset, words.length);
}

function checkBits(bits: number): void {
  if (!Number.isInteger(bits) || bits < 1 || bits > 32)
    throw new RangeError(`values of ${bits} bits: from 1 to 32 can be packed`);
}
