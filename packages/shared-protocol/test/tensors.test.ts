import {
  byteLengthOf,
  DEFAULT_LIMITS,
  decodeFrame,
  elementCount,
  encodeFrame,
  FRAME_PREAMBLE_BYTES,
  readFrameHeader,
  resealFrame,
  type Tensor,
} from '@tributary/shared-protocol';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { plain, tensorsArbitrary } from './arbitraries.ts';
import { reseal } from './frame-surgery.ts';

const weights: Tensor = { name: 'w', dtype: 'float32', shape: [2, 2], data: Float32Array.of(1, -2, 3.5, 0) };
const bias: Tensor = { name: 'b', dtype: 'int8', shape: [3], data: Int8Array.of(1, -1, 7) };

describe('encodeFrame and decodeFrame', () => {
  test('decode of encode is identity, for every dtype, shape and name', () => {
    const metaArbitrary = fc.dictionary(
      fc.string({ unit: 'grapheme', maxLength: 12 }).filter((key) => key !== '__proto__'),
      fc.oneof(
        fc.string({ unit: 'grapheme', maxLength: 40 }),
        fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0), // −0 travels as 0
        fc.maxSafeInteger(),
      ),
      { maxKeys: 5, noNullPrototype: true },
    );
    fc.assert(
      fc.property(tensorsArbitrary, metaArbitrary, (tensors, meta) => {
        const decoded = decodeFrame(encodeFrame(tensors, meta));
        expect(decoded.tensors.map(plain)).toEqual(tensors.map(plain));
        expect(decoded.meta).toEqual(meta);
      }),
      { numRuns: 2000 },
    );
  });

  test('the same tensors give the same bytes', () => {
    expect(encodeFrame([weights, bias], { round: 1 })).toEqual(encodeFrame([weights, bias], { round: 1 }));
  });

  test('data begins at a multiple of 64 and each tensor at one of 8', () => {
    const frame = encodeFrame([bias, weights]);
    const header = readFrameHeader(frame, frame.byteLength)!;
    expect(header.headerBytes % 64).toBe(0);
    // bias takes 3 bytes, padded to 8; weights take 16.
    expect(header.tensors.map((t) => t.offset - header.headerBytes)).toEqual([0, 8]);
    expect(frame.byteLength).toBe(header.headerBytes + 24);
  });

  test('decoded tensors are views of the frame, without a copy', () => {
    const frame = encodeFrame([weights]);
    const [decoded] = decodeFrame(frame).tensors;
    expect(decoded!.data.buffer).toBe(frame.buffer);
    frame.fill(0);
    expect(decoded!.data).toEqual(new Float32Array(4));
  });

  test('a frame at an odd address decodes too, by copying', () => {
    const frame = encodeFrame([weights, bias]);
    const shifted = new Uint8Array(frame.byteLength + 1).subarray(1);
    shifted.set(frame);
    expect(decodeFrame(shifted).tensors.map(plain)).toEqual([weights, bias].map(plain));
  });

  test('no tensors make a frame', () => {
    expect(decodeFrame(encodeFrame([]))).toEqual({ tensors: [], meta: {} });
  });

  test('a flipped bit anywhere in the frame is found', () => {
    const frame = encodeFrame([weights, bias], { round: 7 });
    for (let bit = 0; bit < frame.byteLength * 8; bit++) {
      const flipped = frame.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      expect(() => decodeFrame(flipped), `bit ${bit}`).toThrow(
        expect.objectContaining({ name: 'ProtocolError' }),
      );
    }
  });

  test('data that does not have its digest names the tensor, unless verifyDigests is off', () => {
    const frame = encodeFrame([weights, bias]);
    const header = readFrameHeader(frame, frame.byteLength)!;
    frame[header.tensors[1]!.offset]! ^= 0x40;
    expect(() => decodeFrame(frame)).toThrow(
      expect.objectContaining({ code: 'FED_PROTOCOL_FRAME_DIGEST', message: expect.stringContaining('"b"') }),
    );
    // 1 with bit 6 flipped is 65.
    expect(decodeFrame(frame, { verifyDigests: false }).tensors[1]!.data[0]).toBe(65);
  });

  test('a bool that is neither 0 nor 1 is refused, digests or not', () => {
    const frame = encodeFrame([{ name: 'm', dtype: 'bool', shape: [2], data: Uint8Array.of(0, 1) }]);
    frame[readFrameHeader(frame, frame.byteLength)!.headerBytes] = 2;
    expect(() => decodeFrame(frame, { verifyDigests: false })).toThrow(
      expect.objectContaining({ code: 'FED_PROTOCOL_FRAME_MALFORMED' }),
    );
  });

  test('every truncation is FED_PROTOCOL_FRAME_TRUNCATED', () => {
    const frame = encodeFrame([weights, bias]);
    for (let length = 0; length < frame.byteLength; length++) {
      expect(() => decodeFrame(frame.subarray(0, length)), `${length} bytes`).toThrow(
        expect.objectContaining({ code: 'FED_PROTOCOL_FRAME_TRUNCATED' }),
      );
    }
  });

  test.each([
    [
      'the dtype',
      { ...weights, data: new Int32Array(4) },
      TypeError,
      'float32 wants Float32Array, got Int32Array',
    ],
    ['the shape', { ...weights, shape: [5] }, RangeError, 'shape [5] has 5 elements, data has 4'],
    ['a dimension', { ...weights, shape: [-1] }, RangeError, 'shape [-1]'],
    ['the name', { ...weights, name: '' }, TypeError, 'name'],
    ['half a surrogate pair', { ...weights, name: 'w\ud800' }, TypeError, 'well-formed'],
    ['a bool', { name: 'm', dtype: 'bool', shape: [1], data: Uint8Array.of(2) }, RangeError, '0 or 1'],
  ] satisfies [string, Tensor, unknown, string][])(
    'encodeFrame refuses misuse of %s',
    (_what, tensor, type, text) => {
      expect(() => encodeFrame([tensor])).toThrow(type as typeof RangeError);
      expect(() => encodeFrame([tensor])).toThrow(text);
    },
  );

  test('encodeFrame refuses two tensors of one name and meta that is not plain', () => {
    expect(() => encodeFrame([weights, weights])).toThrow(RangeError);
    expect(() => encodeFrame([], { loss: Number.NaN })).toThrow(TypeError);
    expect(() => encodeFrame([], JSON.parse('{"__proto__": 1}'))).toThrow(TypeError);
  });
});

describe('readFrameHeader', () => {
  test('asks for more bytes until the header is complete, then needs none of the data', () => {
    const frame = encodeFrame([weights, bias], { round: 2 });
    const { headerBytes } = readFrameHeader(frame, frame.byteLength)!;
    for (let length = 0; length < headerBytes; length++) {
      expect(readFrameHeader(frame.subarray(0, length), frame.byteLength), `${length} bytes`).toBeUndefined();
    }
    const header = readFrameHeader(frame.subarray(0, headerBytes), frame.byteLength);
    expect(header?.tensors.map((t) => t.name)).toEqual(['w', 'b']);
    expect(header?.meta).toEqual({ round: 2 });
  });

  test('what is not a frame is refused at its first byte', () => {
    expect(() => readFrameHeader(Uint8Array.of(0x50), 1000)).toThrow(
      expect.objectContaining({ code: 'FED_PROTOCOL_FRAME_MALFORMED' }),
    );
  });

  test('a frame format of the future is FED_PROTOCOL_VERSION, with both versions', () => {
    const frame = encodeFrame([weights]);
    frame[8] = 9;
    expect(() => decodeFrame(frame)).toThrow(
      expect.objectContaining({
        code: 'FED_PROTOCOL_VERSION',
        message: 'frame: format version 9, this end reads 1',
      }),
    );
  });

  const entry = {
    name: 'w',
    dtype: 'float32',
    shape: [2, 2],
    offset: 0,
    byteLength: 16,
    digest: 'a'.repeat(64),
  };
  const MALFORMED = 'FED_PROTOCOL_FRAME_MALFORMED';
  const LIMIT = 'FED_PROTOCOL_LIMIT';
  const TRUNCATED = 'FED_PROTOCOL_FRAME_TRUNCATED';
  test.each([
    ['bytes that the shape does not take', { tensors: [{ ...entry, byteLength: 8 }], meta: {} }, MALFORMED],
    ['a gap before a tensor', { tensors: [{ ...entry, offset: 8 }], meta: {} }, MALFORMED],
    ['overlapping tensors', { tensors: [entry, { ...entry, name: 'v' }], meta: {} }, MALFORMED],
    ['a name twice', { tensors: [entry, { ...entry, offset: 16 }], meta: {} }, MALFORMED],
    ['an unknown dtype', { tensors: [{ ...entry, dtype: 'float64' }], meta: {} }, MALFORMED],
    ['a dtype that objects inherit', { tensors: [{ ...entry, dtype: 'toString' }], meta: {} }, MALFORMED],
    ['a negative dimension', { tensors: [{ ...entry, shape: [-4] }], meta: {} }, MALFORMED],
    ['a broken dimension', { tensors: [{ ...entry, shape: [1.5] }], meta: {} }, MALFORMED],
    ['a product past 2^53', { tensors: [{ ...entry, shape: [2 ** 50, 2 ** 50] }], meta: {} }, MALFORMED],
    ['a digest that is none', { tensors: [{ ...entry, digest: 'A'.repeat(64) }], meta: {} }, MALFORMED],
    ['a field too many', { tensors: [{ ...entry, extra: 1 }], meta: {} }, MALFORMED],
    ['a field too few', { tensors: [] }, MALFORMED],
    ['a list of nothing known', { tensors: [null], meta: {} }, MALFORMED],
    ['meta that is nested', { tensors: [], meta: { a: [] } }, MALFORMED],
    [
      'tensors that run past the end',
      { tensors: [{ ...entry, shape: [99], byteLength: 396 }], meta: {} },
      TRUNCATED,
    ],
    ['bytes that no tensor has', { tensors: [{ ...entry, shape: [1], byteLength: 4 }], meta: {} }, MALFORMED],
    [
      'a terabyte',
      { tensors: [{ ...entry, shape: [2 ** 40], dtype: 'uint8', byteLength: 2 ** 40 }], meta: {} },
      LIMIT,
    ],
    ['too many dimensions', { tensors: [{ ...entry, shape: [1, 1, 1, 1, 1, 1, 1, 2, 2] }], meta: {} }, LIMIT],
    ['a long name', { tensors: [{ ...entry, name: 'w'.repeat(257) }], meta: {} }, LIMIT],
  ])('a header that declares %s is refused', (_what, header, code) => {
    // A frame with one float32 tensor of 4 elements, whose header is replaced and sealed anew.
    const frame = reseal(encodeFrame([weights]), header);
    expect(() => readFrameHeader(frame, frame.byteLength)).toThrow(expect.objectContaining({ code }));
  });

  test('limits are checked on what is declared, before the bytes are there', () => {
    const frame = encodeFrame([weights, bias]);
    const prefix = frame.subarray(0, FRAME_PREAMBLE_BYTES);
    const limited = (limits: Partial<typeof DEFAULT_LIMITS>, totalBytes = frame.byteLength) =>
      expect(() => readFrameHeader(prefix, totalBytes, { ...DEFAULT_LIMITS, ...limits }));
    limited({ maxHeaderBytes: 100 }).toThrow(expect.objectContaining({ code: LIMIT }));
    limited({}, DEFAULT_LIMITS.maxBlobBytes + 1).toThrow(expect.objectContaining({ code: LIMIT }));
    expect(() => decodeFrame(frame, { limits: { ...DEFAULT_LIMITS, maxTensors: 1 } })).toThrow(
      expect.objectContaining({ code: LIMIT }),
    );
  });
});

describe('elementCount and byteLengthOf', () => {
  test('a scalar has one element, an empty dimension none', () => {
    expect(elementCount([])).toBe(1);
    expect(elementCount([3, 0, 5])).toBe(0);
    expect(byteLengthOf({ dtype: 'int64', shape: [3, 2] })).toBe(48);
  });

  test('a product past 2^53 is a RangeError, not a rounded number', () => {
    expect(() => elementCount([2 ** 30, 2 ** 30])).toThrow(RangeError);
  });
});

describe('resealFrame', () => {
  test('gives the frame that encodeFrame gives for the changed values', async () => {
    const specs = [
      { name: 'kernel', dtype: 'float32', shape: [3] },
      { name: 'bias', dtype: 'float32', shape: [1] },
    ] as const;
    const encode = (values: number[][]) =>
      encodeFrame(
        specs.map((spec, i) => ({ ...spec, data: Float32Array.from(values[i] ?? []) })),
        { round: 7 },
      );
    const frame = encode([[1, 2, 3], [4]]);
    const [kernel] = decodeFrame(frame).tensors;
    (kernel!.data as Float32Array).set([5, 6, 7]);
    await resealFrame(frame);
    expect(frame).toEqual(encode([[5, 6, 7], [4]]));
  });
});
