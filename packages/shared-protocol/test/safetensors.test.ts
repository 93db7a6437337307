import {
  DEFAULT_LIMITS,
  decodeSafetensors,
  encodeSafetensors,
  type Tensor,
} from '@tributary/shared-protocol';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { plain, tensorsArbitrary } from './arbitraries.ts';

const weights: Tensor = { name: 'w', dtype: 'float32', shape: [2], data: Float32Array.of(1, -2) };

/** A file with this header text and `dataBytes` zeros. */
function fileOf(header: string, dataBytes: number): Uint8Array {
  const text = Buffer.from(header);
  const file = new Uint8Array(8 + text.byteLength + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.byteLength), true);
  file.set(text, 8);
  return file;
}

test('safetensors: decode of encode is identity, for every dtype, shape and name', () => {
  const metadata = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }), {
    maxKeys: 3,
    noNullPrototype: true,
  });
  const byName = (a: Tensor, b: Tensor) => (a.name < b.name ? -1 : 1);
  fc.assert(
    fc.property(tensorsArbitrary, metadata, (tensors, meta) => {
      const decoded = decodeSafetensors(encodeSafetensors(tensors, meta));
      expect(decoded.tensors.sort(byName).map(plain)).toEqual([...tensors].sort(byName).map(plain));
      expect(Object.entries(decoded.metadata)).toEqual(Object.entries(meta));
    }),
    { numRuns: 1000 },
  );
});

test('safetensors: tensors of one dtype keep their order, whatever their names', () => {
  const tensors = ['b', '10', 'a', '2'].map((name) => ({ ...weights, name }));
  expect(decodeSafetensors(encodeSafetensors(tensors)).tensors.map((t) => t.name)).toEqual([
    'b',
    '10',
    'a',
    '2',
  ]);
});

test('safetensors: the bytes are those of the format', () => {
  const file = encodeSafetensors([weights], { round: '3' });
  const json = '{"__metadata__":{"round":"3"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}';
  // 83 bytes of JSON after 8 of length: 5 spaces bring the data to 96, a multiple of 8.
  expect(json.length).toBe(83);
  const expected = Buffer.concat([
    Buffer.from([88, 0, 0, 0, 0, 0, 0, 0]),
    Buffer.from(`${json}     `),
    Buffer.from([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]),
  ]);
  expect(Buffer.from(file).toString('hex')).toBe(expected.toString('hex'));
});

test('safetensors: wide elements go first, so that all are views', () => {
  const narrow: Tensor = { name: 'n', dtype: 'int8', shape: [3], data: Int8Array.of(1, 2, 3) };
  const file = encodeSafetensors([narrow, weights]);
  const decoded = decodeSafetensors(file).tensors;
  expect(decoded.map((t) => t.name)).toEqual(['w', 'n']);
  for (const tensor of decoded) expect(tensor.data.buffer).toBe(file.buffer);
});

const MALFORMED = 'FED_PROTOCOL_FRAME_MALFORMED';
test.each([
  ['no JSON', 'nope', 0, MALFORMED],
  ['a list', '[]', 0, MALFORMED],
  ['an unknown dtype', '{"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}}', 1, MALFORMED],
  ['a shape that is none', '{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', 1, MALFORMED],
  ['a shape past 2^53', '{"a":{"dtype":"U8","shape":[1e15,1e15],"data_offsets":[0,1]}}', 1, MALFORMED],
  ['bytes that are not the shape', '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}', 8, MALFORMED],
  ['a gap', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', 2, MALFORMED],
  [
    'an overlap',
    '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
    3,
    MALFORMED,
  ],
  ['bytes left over', '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 2, MALFORMED],
  [
    'bytes missing',
    '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
    2,
    'FED_PROTOCOL_FRAME_TRUNCATED',
  ],
  ['metadata that is not text', '{"__metadata__":{"a":1}}', 0, MALFORMED],
  ['bytes after an empty tensor', '{"a":{"dtype":"BOOL","shape":[0],"data_offsets":[0,0]}} ', 1, MALFORMED],
  [
    'nine dimensions',
    '{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}',
    1,
    'FED_PROTOCOL_LIMIT',
  ],
])('safetensors: %s is refused', (_what, header, dataBytes, code) => {
  expect(() => decodeSafetensors(fileOf(header, dataBytes))).toThrow(expect.objectContaining({ code }));
});

test('safetensors: a declared header of 2^62 bytes is refused before it is read', () => {
  const file = new Uint8Array(16);
  new DataView(file.buffer).setBigUint64(0, 2n ** 62n, true);
  expect(() => decodeSafetensors(file)).toThrow(expect.objectContaining({ code: 'FED_PROTOCOL_LIMIT' }));
});

test('safetensors: a bool that is neither 0 nor 1 is refused', () => {
  const file = fileOf('{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}', 1);
  expect(decodeSafetensors(file).tensors[0]?.data).toEqual(Uint8Array.of(0));
  file[file.length - 1] = 7;
  expect(() => decodeSafetensors(file)).toThrow(expect.objectContaining({ code: MALFORMED }));
});

test('safetensors: every truncation is refused', () => {
  const file = encodeSafetensors([weights]);
  for (let length = 0; length < file.byteLength; length++) {
    expect(() => decodeSafetensors(file.subarray(0, length)), `${length} bytes`).toThrow(
      expect.objectContaining({ code: 'FED_PROTOCOL_FRAME_TRUNCATED' }),
    );
  }
});

test('safetensors: the limits on tensors and names hold', () => {
  const file = encodeSafetensors([weights, { ...weights, name: 'v'.repeat(300) }]);
  const decode = (limits: Partial<typeof DEFAULT_LIMITS>) => () =>
    decodeSafetensors(file, { limits: { ...DEFAULT_LIMITS, ...limits } });
  expect(decode({})).toThrow(expect.objectContaining({ code: 'FED_PROTOCOL_LIMIT' }));
  expect(decode({ maxNameBytes: 300 })().tensors).toHaveLength(2);
  expect(decode({ maxNameBytes: 300, maxTensors: 1 })).toThrow(
    expect.objectContaining({ code: 'FED_PROTOCOL_LIMIT' }),
  );
});
