import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  addPackedPiece,
  PIECE_WORDS,
  packPiece,
  piecePacked,
  pieceWords,
} from '../../src/secure-aggregation/kernel.ts';
import { hasZeroPadding, packedBytes } from '../../src/secure-aggregation/packing.ts';

const allBits = Array.from({ length: 32 }, (_, i) => i + 1);

function pack(values: ArrayLike<number>, bits: number): Uint8Array {
  // What is left of earlier pieces must not show.
  pieceWords.fill(0xffff_ffff);
  pieceWords.set(values);
  return packPiece(values.length, bits).slice();
}

/** The values as one long number, the first in its lowest bits. */
function packPlainly(values: readonly number[], bits: number): Uint8Array {
  const long = values.reduceRight((rest, value) => (rest << BigInt(bits)) | BigInt(value), 0n);
  const length = Math.ceil((values.length * bits) / 8);
  return Uint8Array.from({ length }, (_, i) => Number((long >> BigInt(8 * i)) & 255n));
}

const valuesOf = (bits: number, maxLength: number) =>
  fc.array(fc.integer({ min: 0, max: 2 ** bits - 1 }), { maxLength });

describe('packed values', () => {
  test('of 12 bits: 0xabc, 0x123, 0xfff are bc 3a 12 ff 0f', () => {
    expect(Buffer.from(pack([0xabc, 0x123, 0xfff], 12)).toString('hex')).toBe('bc3a12ff0f');
  });

  test.each(allBits)('of %i bits are the bits of a long number', (bits) => {
    fc.assert(
      fc.property(valuesOf(bits, 200), (values) => {
        expect(pack(values, bits)).toEqual(packPlainly(values, bits));
      }),
      { numRuns: 30 },
    );
  });

  test.each(allBits)('of %i bits fill a whole piece, and are added to what is there', (bits) => {
    const values = Uint32Array.from(
      { length: PIECE_WORDS },
      (_, i) => Math.imul(i + 1, 2654435761) >>> (32 - bits),
    );
    const packed = pack(values, bits);
    expect(packed.length).toBe((PIECE_WORDS * bits) / 8);
    const before = Uint32Array.from({ length: PIECE_WORDS }, (_, i) => Math.imul(i, 40503) - 5);
    pieceWords.set(before);
    piecePacked.set(packed);
    addPackedPiece(PIECE_WORDS, bits);
    // Modulo 2^32, as Uint32Array stores what is beyond.
    expect(pieceWords).toEqual(before.map((word, i) => word + values[i]!));
  });

  test('of any length come back as they were, and nothing in front of them is changed', () => {
    const some = fc
      .integer({ min: 1, max: 32 })
      .chain((bits) => fc.tuple(fc.constant(bits), valuesOf(bits, 200)));
    fc.assert(
      fc.property(some, ([bits, values]) => {
        const packed = pack(values, bits);
        expect(packed.length).toBe(packedBytes(values.length, bits));
        pieceWords.fill(0);
        piecePacked.fill(0xff);
        piecePacked.set(packed);
        addPackedPiece(values.length, bits);
        expect([...pieceWords.subarray(0, values.length)]).toEqual(values);
      }),
    );
  });

  test('drop the bits above those that are kept', () => {
    expect([...pack([0xffff_fff1, 0x12], 4)]).toEqual([0x21]);
  });

  test('of 12 bits, three of them, leave 4 bits over, which are to be zero', () => {
    expect(hasZeroPadding(Uint8Array.of(0x0f), 3, 12)).toBe(true);
    expect(hasZeroPadding(Uint8Array.of(0x10), 3, 12)).toBe(false);
    expect(hasZeroPadding(Uint8Array.of(0x80, 0x00), 3, 12)).toBe(true);
    expect(hasZeroPadding(Uint8Array.of(0xff), 2, 12)).toBe(true);
  });

  test('have from 1 to 32 bits', () => {
    expect(() => packedBytes(1, 0)).toThrow('values of 0 bits');
    expect(() => packedBytes(1, 33)).toThrow('values of 33 bits');
    expect(() => packedBytes(1, 1.5)).toThrow('values of 1.5 bits');
  });
});
