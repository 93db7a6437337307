import { ProtocolError } from '@tributary/shared-protocol';
import { expect, test } from 'vitest';
import { MAX_DEPTH, packPlain, unpackPlain } from '../src/messagepack.ts';

const unpack = (bytes: Uint8Array | readonly number[], maxValues = 1000) =>
  unpackPlain(Uint8Array.from(bytes), { what: 'test', code: 'FED_PROTOCOL_MESSAGE_MALFORMED', maxValues });
const malformed = (text: string) =>
  expect.objectContaining({ code: 'FED_PROTOCOL_MESSAGE_MALFORMED', message: expect.stringContaining(text) });
const ascii = (text: string) => [...Buffer.from(text)];

test.each([
  [
    'an array of 2^32 − 1 in five bytes',
    [0xdd, 0xff, 0xff, 0xff, 0xff],
    '4294967295 bytes are declared but 0 are left',
  ],
  [
    'a map of 2^32 − 1 in five bytes',
    [0xdf, 0xff, 0xff, 0xff, 0xff],
    '8589934590 bytes are declared but 0 are left',
  ],
  ['a string of 2^32 − 1 in six bytes', [0xdb, 0xff, 0xff, 0xff, 0xff, 0x61], 'are declared but 1 are left'],
  ['a float64 of three bytes', [0xcb, 0, 0, 0], '8 bytes are declared'],
  ['an extension', [0xd4, 0x72, 0x40], 'type 0xd4'],
  ['an extension of declared length', [0xc9, 0, 0, 0, 0, 1], 'type 0xc9'],
  ['a byte string', [0xc4, 1, 0], 'type 0xc4'],
  ['the byte that is never used', [0xc1], 'type 0xc1'],
  ['a key that is a number', [0x81, 1, 1], 'key that is not a string'],
  ['the key __proto__', [0x81, 0xa9, ...ascii('__proto__'), 0x80], '__proto__'],
  ['a key twice', [0x82, 0xa1, 0x61, 1, 0xa1, 0x61, 2], '"a" twice'],
  ['text that is not UTF-8', [0xa2, 0xc3, 0x28], 'not UTF-8'],
  ['an integer past 2^53', [0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0], 'the integer 18374686479671623680'],
  ['two values', [1, 2], '1 bytes after the end'],
  ['no value', [], 'declared'],
  ['nesting without end', Array.from({ length: 500_000 }, () => 0x91), `more than ${MAX_DEPTH} levels`],
])('unpackPlain refuses %s', (_what, bytes, text) => {
  expect(() => unpack(bytes)).toThrow(malformed(text));
});

test('unpackPlain refuses more values than it may make, though each takes a byte', () => {
  // 16 empty maps and the array around them are 17 values.
  const bytes = [0xdc, 0, 16, ...Array.from({ length: 16 }, () => 0x80)];
  expect(unpack(bytes, 17)).toHaveLength(16);
  expect(() => unpack(bytes, 16)).toThrow(expect.objectContaining({ code: 'FED_PROTOCOL_LIMIT' }));
});

test('unpackPlain reads every kind and width of value that other encoders may choose', () => {
  const cases: [number[], unknown][] = [
    [[0xc0], null],
    [[0xc2], false],
    [[0xcc, 200], 200],
    [[0xcd, 1, 0], 256],
    [[0xce, 0x80, 0, 0, 0], 2 ** 31],
    [[0xcf, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Number.MAX_SAFE_INTEGER],
    [[0xd0, 0xff], -1],
    [[0xd1, 0xff, 0xfe], -2],
    [[0xd2, 0xff, 0xff, 0xff, 0xfd], -3],
    [[0xd3, 0xff, 0xe0, 0, 0, 0, 0, 0, 1], Number.MIN_SAFE_INTEGER],
    [[0xca, 0x3f, 0xc0, 0, 0], 1.5],
    [[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], 1.5],
    [[0xe0], -32],
    [[0xd9, 1, 0x61], 'a'],
    [[0xda, 0, 1, 0x61], 'a'],
    [[0xdb, 0, 0, 0, 1, 0x61], 'a'],
    [[0xdd, 0, 0, 0, 1, 7], [7]],
    [[0xde, 0, 1, 0xda, 0, 1, 0x61, 7], { a: 7 }],
    [[0xdf, 0, 0, 0, 1, 0xd9, 1, 0x61, 7], { a: 7 }],
    // Where records are on, 0x40 to 0x7f are theirs; here they are the numbers that MessagePack says.
    [
      [0x92, 0x40, 0x7f],
      [64, 127],
    ],
  ];
  for (const [bytes, value] of cases) expect(unpack(bytes)).toEqual(value);
});

test('packPlain writes nothing that unpackPlain refuses', () => {
  const value = {
    a: [1, -1, 2 ** 40, -(2 ** 40), 0.1, 'x'.repeat(70_000), null, true],
    constructor: { b: undefined },
  };
  expect(unpack(packPlain(value))).toEqual({ ...value, constructor: {} });
});

test('packPlain refuses what has no plain form, rather than sending something else', () => {
  expect(() => packPlain({ count: 1n << 70n })).toThrow(RangeError);
  for (const value of [new Map([[1, 2]]), new Uint8Array(3), 12n]) {
    let decoded: unknown;
    try {
      decoded = unpack(packPlain(value));
    } catch (error) {
      expect(error).toBeInstanceOf(ProtocolError);
      continue;
    }
    expect(decoded).toBe(12);
  }
});
