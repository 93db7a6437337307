/** The golden vectors: what each file holds, from which its bytes are made and against which every reader is checked. */
import {
  bfloat16Value,
  decodeFrame,
  encodeFrame,
  encodeMessage,
  float16Value,
  type Tensor,
} from '@tributary/shared-protocol';
import { MESSAGES } from '../../packages/shared-protocol/test/messages.ts';

export interface Vector {
  /** The file's name without `.bin`. */
  readonly name: string;
  readonly kind: 'message' | 'frame';
  readonly bytes: Uint8Array;
  /** What a reader must find, as JSON; undefined when it must refuse the bytes. */
  readonly expected: unknown;
}

const TENSORS: readonly Tensor[] = [
  {
    name: 'conv2d/kernel',
    dtype: 'float32',
    shape: [2, 3],
    data: Float32Array.of(1, -0.5, 0.1, 1e-45, 3.4028234663852886e38, Number.NEGATIVE_INFINITY),
  },
  { name: 'half', dtype: 'float16', shape: [4], data: Uint16Array.of(0x3c00, 0x8001, 0x7bff, 0x7e00) },
  { name: 'brain', dtype: 'bfloat16', shape: [3], data: Uint16Array.of(0x3f80, 0xc049, 0x7f80) },
  { name: 'counts', dtype: 'int32', shape: [2, 1], data: Int32Array.of(-2_147_483_648, 2_147_483_647) },
  { name: 'codes', dtype: 'int8', shape: [3], data: Int8Array.of(-128, 0, 127) },
  { name: 'pixels', dtype: 'uint8', shape: [5], data: Uint8Array.of(0, 1, 2, 254, 255) },
  { name: 'mask', dtype: 'bool', shape: [3], data: Uint8Array.of(1, 0, 1) },
  { name: 'steps', dtype: 'int64', shape: [], data: BigInt64Array.of(-9_223_372_036_854_775_807n) },
  { name: 'leer/空', dtype: 'float32', shape: [0, 4], data: new Float32Array(0) },
];

/** Fresh bytes of every vector, in the order of their names. */
export function makeVectors(): Vector[] {
  const every = encodeFrame(TENSORS, { round: 3, codec: 'none', big: 2 ** 40 });
  const flipped = every.slice();
  flipped[flipped.byteLength - 1]! ^= 1; // in the int64, the last tensor that has bytes
  const padded = every.slice();
  padded[padded.byteLength - 9]! ^= 1; // after the three bytes of the mask
  const frames: Vector[] = [
    { name: 'frame-empty', kind: 'frame', bytes: encodeFrame([]), expected: { meta: {}, tensors: [] } },
    { name: 'frame-every-dtype', kind: 'frame', bytes: every, expected: frameAsJson(every) },
    { name: 'frame-truncated', kind: 'frame', bytes: every.slice(0, -1), expected: undefined },
    { name: 'frame-flipped', kind: 'frame', bytes: flipped, expected: undefined },
    { name: 'frame-padding', kind: 'frame', bytes: padded, expected: undefined },
  ];
  const messages = MESSAGES.map((message): Vector => {
    return {
      name: `message-${message.type}`,
      kind: 'message',
      bytes: encodeMessage(message),
      expected: message,
    };
  });
  return [...frames, ...messages].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** A frame as JSON can say it: half floats by value, 64-bit integers and what is not finite as texts. */
export function frameAsJson(bytes: Uint8Array): unknown {
  const { tensors, meta } = decodeFrame(bytes);
  return {
    meta,
    tensors: tensors.map(({ name, dtype, shape, data }) => ({
      name,
      dtype,
      shape,
      values: Array.from<number | bigint, number | string>(data, (value) => valueAsJson(dtype, value)),
    })),
  };
}

function valueAsJson(dtype: Tensor['dtype'], value: number | bigint): number | string {
  if (typeof value === 'bigint') return String(value);
  const number =
    dtype === 'float16' ? float16Value(value) : dtype === 'bfloat16' ? bfloat16Value(value) : value;
  return Number.isFinite(number) ? number : String(number);
}
