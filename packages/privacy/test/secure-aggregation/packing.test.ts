import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createPacker, createUnpacker, packedBytes } from '../../src/secure-aggregation/packing.ts';
import { codeOf } from './federation.ts';

const bitsAndValues = fc
  .integer({ min: 1, max: 32 })
  .chain((bits) =>
    fc.tuple(fc.constant(bits), fc.array(fc.integer({ min: 0, max: 2 ** bits - 1 }), { maxLength: 200 })),
  );

function pack(values: readonly number[], bits: number, cuts: readonly number[] = []): Uint8Array {
  const packer = createPacker(values.length, bits);
  let start = 0;
  for (const cut of [...cuts.map((c) => c % (values.length + 1)).sort((a, b) => a - b), values.length]) {
    packer.write(Uint32Array.from(values.slice(start, cut)));
    start = cut;
  }
  return packer.finish();
}

describe('packed values', () => {
  test('of 12 bits: 0xabc, 0x123, 0xfff are bc 3a 12 ff 0f', () => {
    expect(Buffer.from(pack([0xabc, 0x123, 0xfff], 12)).toString('hex')).toBe('bc3a12ff0f');
  });

  test('are the bits of a long number, for every number of bits', () => {
    fc.assert(
      fc.property(bitsAndValues, ([bits, values]) => {
        let long = 0n;
        values.forEach((value, i) => {
          long |= BigInt(value) << BigInt(i * bits);
        });
        const expected = Array.from({ length: Math.ceil((values.length * bits) / 8) }, (_, i) =>
          Number((long >> BigInt(8 * i)) & 255n),
        );
        expect([...pack(values, bits)]).toEqual(expected);
      }),
    );
  });

  test('come back as they were, in whatever pieces they are written and read, from any place in memory', () => {
    fc.assert(
      fc.property(
        bitsAndValues,
        fc.array(fc.nat(), { maxLength: 4 }),
        fc.nat(7),
        ([bits, values], cuts, shift) => {
          const packed = pack(values, bits, cuts);
          expect(packed.length).toBe(packedBytes(values.length, bits));
          const moved = new Uint8Array(packed.length + shift);
          moved.set(packed, shift);
          const unpacker = createUnpacker(moved.subarray(shift), values.length, bits);
          const read = new Uint32Array(values.length);
          const half = values.length >> 1;
          unpacker.read(read.subarray(0, half));
          unpacker.read(read.subarray(half));
          expect([...read]).toEqual(values);
        },
      ),
    );
  });

  test('come back from more than one staged piece', () => {
    for (const bits of [7, 16, 31, 32]) {
      const values = Uint32Array.from({ length: 50_000 }, (_, i) => Math.imul(i, 2654435761) >>> (32 - bits));
      const packer = createPacker(values.length, bits);
      packer.write(values);
      const read = new Uint32Array(values.length);
      createUnpacker(packer.finish(), values.length, bits).read(read);
      expect(read).toEqual(values);
    }
  });

  test('drop the bits above those that are kept', () => {
    expect([...pack([0xffff_fff1, 0x12], 4)]).toEqual([0x21]);
  });

  test('are refused when there are more or fewer bytes, or bits that belong to no value', () => {
    const code = 'FED_PRIVACY_SECAGG_MESSAGE';
    expect(codeOf(() => createUnpacker(new Uint8Array(4), 3, 12))).toBe(code);
    expect(codeOf(() => createUnpacker(new Uint8Array(6), 3, 12))).toBe(code);
    expect(codeOf(() => createUnpacker(Uint8Array.of(0, 0, 0, 0, 0x10), 3, 12))).toBe(code);
    expect(codeOf(() => createUnpacker(Uint8Array.of(0, 0, 0, 0, 0x0f), 3, 12))).toBeUndefined();
  });

  test('have from 1 to 32 bits, and are as many as was said', () => {
    expect(() => packedBytes(1, 0)).toThrow('values of 0 bits');
    expect(() => packedBytes(1, 33)).toThrow('values of 33 bits');
    expect(() => createPacker(2, 8).finish()).toThrow('0 values for 2 places');
    expect(() => createPacker(2, 8).write(new Uint32Array(3))).toThrow('3 values for 2 places');
    expect(() => createUnpacker(new Uint8Array(2), 2, 8).read(new Uint32Array(3))).toThrow('value 3 of 2');
  });
});
