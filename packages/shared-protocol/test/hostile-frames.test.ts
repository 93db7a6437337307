import {
  byteLengthOf,
  DEFAULT_LIMITS,
  decodeFrame,
  encodeFrame,
  type Limits,
  type Tensor,
} from '@tributary/shared-protocol';
import fc from 'fast-check';
import { Unpackr } from 'msgpackr';
import { expect, test } from 'vitest';
import { rawHeader, reseal, seal } from './frame-surgery.ts';

const RUNS = 100_000;
const LIMITS: Limits = {
  ...DEFAULT_LIMITS,
  maxBlobBytes: 1024 * 1024,
  maxHeaderBytes: 64 * 1024,
  maxTensors: 8,
};
/** What decoding may leave behind beside the frame itself: the objects of a header, its digest, an error. */
const SLACK_BYTES = 256 * 1024;

const FRAMES = [
  encodeFrame([]),
  encodeFrame([{ name: 's', dtype: 'float32', shape: [], data: Float32Array.of(1) }], { round: 1 }),
  encodeFrame(
    [
      { name: 'conv/kernel', dtype: 'float32', shape: [3, 3, 1, 4], data: new Float32Array(36).fill(0.5) },
      { name: 'conv/bias', dtype: 'float16', shape: [4], data: Uint16Array.of(0, 1, 0x3c00, 0x7bff) },
      { name: 'mask', dtype: 'bool', shape: [5], data: Uint8Array.of(0, 1, 1, 0, 1) },
      { name: 'none', dtype: 'int8', shape: [0, 7], data: new Int8Array(0) },
      { name: 'steps', dtype: 'int64', shape: [1], data: BigInt64Array.of(-9n) },
    ] satisfies Tensor[],
    { round: 3, codec: 'none' },
  ),
] as const;

const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true });
interface Draft {
  tensors: Record<string, unknown>[];
  meta: Record<string, unknown>;
}

/** Values that a decoder may trust once too often. */
const LIES: readonly unknown[] = [
  ...[0, 1, -1, 7, 8, 64, 0.5, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40, 2 ** 53 - 1, 2 ** 53, 1e300],
  ...[Number.NaN, Number.POSITIVE_INFINITY, null, true, '', '__proto__', 'constructor', 'float32', 'float64'],
  ...[
    'x'.repeat(300),
    '0'.repeat(64),
    [],
    [0],
    [2 ** 53 - 1, 2 ** 53 - 1],
    [2 ** 32, 2 ** 32, 0],
    {},
    { length: 9 },
  ],
  Array.from({ length: 40 }, () => 1),
];
const FIELDS = ['name', 'dtype', 'shape', 'offset', 'byteLength', 'digest', 'extra'] as const;

/** One way to spoil a frame, given three draws in [0, 2^32). */
type Mutation = (frame: Uint8Array, a: number, b: number, c: number) => Uint8Array;

const edited = (frame: Uint8Array, edit: (draft: Draft) => void): Uint8Array => {
  const draft = unpackr.unpack(rawHeader(frame)) as Draft;
  edit(draft);
  return reseal(frame, draft);
};

const MUTATIONS: Readonly<Record<string, Mutation>> = {
  truncated: (frame, a) => frame.slice(0, a % frame.length),
  extended: (frame, a, b) => Buffer.concat([frame, new Uint8Array((a % 200) + 1).fill(b)]),
  flipped: (frame, a, b) => {
    const out = frame.slice();
    for (const bit of [a, b]) out[(bit >>> 3) % out.length]! ^= 1 << (bit & 7);
    return out;
  },
  'header flipped and sealed again': (frame, a, b, c) => {
    const header = rawHeader(frame);
    header[a % header.length]! ^= 1 << (b & 7);
    if (c & 1) header[(c >>> 1) % header.length] = b >>> 8;
    return reseal(frame, header);
  },
  'header of other bytes': (frame, a, b) =>
    reseal(
      frame,
      rawHeader(frame)
        .subarray(0, a % 64)
        .fill(b, 1),
    ),
  'lying header length': (frame, a, b) => {
    const out = frame.slice();
    const length = a & 1 ? b : b % out.length;
    if (a & 2 && length <= out.length - 48) seal(out, length);
    else new DataView(out.buffer).setUint32(12, length, true);
    return out;
  },
  'lying field': (frame, a, b, c) =>
    edited(frame, ({ tensors, meta }) => {
      const field = FIELDS[b % FIELDS.length]!;
      (tensors[a % (tensors.length || 1)] ?? meta)[field] = LIES[c % LIES.length];
    }),
  'lying dimension': (frame, a, b, c) =>
    edited(frame, ({ tensors }) => {
      const shape = tensors[a % (tensors.length || 1)]?.['shape'] as unknown[] | undefined;
      if (shape !== undefined) shape[b % (shape.length + 1)] = LIES[c % LIES.length];
    }),
  'shape and bytes that agree on too much': (frame, a, b) =>
    edited(frame, ({ tensors }) => {
      const count = [2 ** 20, 2 ** 24, 2 ** 33, 2 ** 48, 2 ** 53 - 1][b % 5]!;
      Object.assign(tensors[a % (tensors.length || 1)] ?? {}, {
        dtype: 'uint8',
        shape: [count],
        byteLength: count,
      });
    }),
  'one tensor over another': (frame, a, b) =>
    edited(frame, ({ tensors }) => {
      const [from, to] = [tensors[a % (tensors.length || 1)], tensors[b % (tensors.length || 1)]];
      if (from !== undefined && to !== undefined) to['offset'] = from['offset'];
    }),
  'tensor or name twice': (frame, a, b) =>
    edited(frame, ({ tensors }) => {
      const tensor = tensors[a % (tensors.length || 1)];
      if (tensor !== undefined) for (let i = 0; i <= b % 10; i++) tensors.push({ ...tensor });
    }),
  'other order': (frame) => edited(frame, ({ tensors }) => tensors.reverse()),
  'lying meta': (frame, a, b, c) =>
    edited(frame, (draft) => {
      if (a & 1) draft.meta[String(b)] = LIES[c % LIES.length];
      else Object.assign(draft, { meta: LIES[c % LIES.length] });
    }),
};
const KINDS = Object.keys(MUTATIONS);

test(`decodeFrame: ${RUNS} mutated frames are read or refused, and take no memory that they do not have`, () => {
  const met = new Map<string, number>();
  const draw = fc.integer({ min: 0, max: 0xffff_ffff });
  const once = fc.tuple(fc.constantFrom(...KINDS), draw, draw, draw);
  const before = Reflect.ownKeys(Object.prototype).length;
  let worst = 0;

  fc.assert(
    fc.property(fc.constantFrom(...FRAMES), once, fc.boolean(), (frame, [kind, a, b, c], verifyDigests) => {
      const mutated = MUTATIONS[kind]!(frame, a, b, c);
      const from = process.memoryUsage().arrayBuffers;
      let outcome = 'read';
      try {
        for (const tensor of decodeFrame(mutated, { limits: LIMITS, verifyDigests }).tensors) {
          // What is read is whole, and lies inside the frame that was given.
          expect(tensor.data.byteLength).toBe(byteLengthOf(tensor));
          expect(tensor.data.byteLength).toBeLessThanOrEqual(mutated.byteLength);
        }
      } catch (error) {
        if ((error as Error).name !== 'ProtocolError') throw error;
        outcome = (error as { code: string }).code;
      }
      worst = Math.max(worst, process.memoryUsage().arrayBuffers - from - mutated.byteLength);
      met.set(outcome, (met.get(outcome) ?? 0) + 1);
    }),
    { numRuns: RUNS, seed: 20_260_101 },
  );

  expect(worst).toBeLessThan(SLACK_BYTES);
  expect(Reflect.ownKeys(Object.prototype)).toHaveLength(before);
  // The mutations reach every check: else the test proves less than it says.
  for (const outcome of ['read', 'TRUNCATED', 'MALFORMED', 'DIGEST', 'LIMIT', 'VERSION']) {
    const count = [...met].filter(([code]) => code.endsWith(outcome)).reduce((sum, [, n]) => sum + n, 0);
    expect(count, `${outcome}: ${JSON.stringify([...met])}`).toBeGreaterThan(20);
  }
}, 120_000);

test('decodeFrame: a header that declares the most it may makes no more objects than its bytes pay for', () => {
  // 64 KiB of empty maps would be 65,536 objects; the bound on values stops at 8 tensors' worth.
  const header = new Uint8Array(64 * 1024).fill(0x80);
  header.set([0x82, 0xa7, ...Buffer.from('tensors'), 0xdd, 0, 0, 0xff, 0]);
  const frame = reseal(FRAMES[0], header);
  expect(() => decodeFrame(frame, { limits: LIMITS })).toThrow(
    expect.objectContaining({ code: 'FED_PROTOCOL_LIMIT' }),
  );
});
