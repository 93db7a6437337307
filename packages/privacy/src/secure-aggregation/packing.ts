/**
 * Values of b bits side by side, b from 1 to 32: the first value in the lowest bits of the first byte. A vector is packed
 * and unpacked piece by piece, so that it is never there twice.
 */
import { endianness } from 'node:os';
import { PrivacyError } from '../errors.ts';

const STAGED_WORDS = 16_384;

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

/** Returns a packer for exactly `count` values; more or fewer are a RangeError. */
export function createPacker(count: number, bits: number): Packer {
  const bytes = packedBytes(count, bits);
  const words = new Uint32Array(Math.ceil(bytes / 4));
  const keep = bits === 32 ? -1 : (1 << bits) - 1;
  let written = 0;
  let word = 0;
  let pending = 0;
  let filled = 0;
  return {
    write(values) {
      written += values.length;
      if (written > count) throw new RangeError(`${written} values for ${count} places`);
      for (let i = 0; i < values.length; i++) {
        const value = values[i]! & keep;
        pending |= value << filled;
        const end = filled + bits;
        if (end >= 32) {
          words[word++] = pending;
          pending = filled === 0 ? 0 : value >>> (32 - filled);
          filled = end - 32;
        } else filled = end;
      }
    },
    finish() {
      if (written !== count) throw new RangeError(`${written} values for ${count} places`);
      if (filled > 0) words[word] = pending;
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
  const over = bytes * 8 - count * bits;
  if (over > 0 && packed[bytes - 1]! >>> (8 - over) !== 0)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_MESSAGE',
      `the last ${over} bits belong to no value and are not zero`,
    );
  const staged = new Uint32Array(STAGED_WORDS);
  const stagedBytes = new Uint8Array(staged.buffer);
  const keep = bits === 32 ? -1 : (1 << bits) - 1;
  let at = 0;
  let next = STAGED_WORDS;
  let pending = 0;
  let left = 0;
  let taken = 0;
  const stage = () => {
    const part = packed.subarray(at, at + stagedBytes.length);
    stagedBytes.set(part);
    stagedBytes.fill(0, part.length);
    at += part.length;
    next = 0;
  };
  return {
    read(values) {
      taken += values.length;
      if (taken > count) throw new RangeError(`value ${taken} of ${count}`);
      for (let i = 0; i < values.length; i++) {
        if (left >= bits) {
          values[i] = pending & keep;
          // A shift by 32 would be one by 0; with 32 bits, `left` is never as large here.
          pending >>>= bits;
          left -= bits;
          continue;
        }
        if (next === STAGED_WORDS) stage();
        const word = staged[next++]!;
        values[i] = (pending | (word << left)) & keep;
        const used = bits - left;
        pending = used === 32 ? 0 : word >>> used;
        left = 32 - used;
      }
    },
  };
}

function checkBits(bits: number): void {
  if (!Number.isInteger(bits) || bits < 1 || bits > 32)
    throw new RangeError(`values of ${bits} bits: from 1 to 32 can be packed`);
}
