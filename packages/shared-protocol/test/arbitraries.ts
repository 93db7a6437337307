/** Generators of valid tensors, shared by the codecs' property tests. */
import { byteLengthOf, DTYPES, type DType, type Tensor, type TensorData } from '@tributary/shared-protocol';
import fc from 'fast-check';

const VIEWS: Record<DType, (bytes: Uint8Array) => TensorData> = {
  float32: (b) => new Float32Array(b.buffer),
  float16: (b) => new Uint16Array(b.buffer),
  bfloat16: (b) => new Uint16Array(b.buffer),
  int32: (b) => new Int32Array(b.buffer),
  int8: (b) => new Int8Array(b.buffer),
  uint8: (b) => b,
  bool: (b) => b.map((x) => x & 1),
  int64: (b) => new BigInt64Array(b.buffer),
};

/** Names of every kind that is allowed: any well-formed text, and the ones that trip up plain objects. */
export const nameArbitrary = fc.oneof(
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }),
  fc.constantFrom('__proto__', 'constructor', 'toString', '0', '17', 'conv/kernel:0', ' '),
);

export const tensorArbitrary: fc.Arbitrary<Tensor> = fc
  .record({
    name: nameArbitrary,
    dtype: fc.constantFrom(...DTYPES),
    shape: fc.array(fc.nat({ max: 4 }), { maxLength: 4 }),
  })
  .chain((spec) => {
    const length = byteLengthOf(spec);
    return fc
      .uint8Array({ minLength: length, maxLength: length })
      .map((bytes) => ({ ...spec, data: VIEWS[spec.dtype](new Uint8Array(bytes)) }));
  });

export const tensorsArbitrary: fc.Arbitrary<Tensor[]> = fc.uniqueArray(tensorArbitrary, {
  maxLength: 6,
  selector: (tensor) => tensor.name,
});

/** A tensor as plain values, for comparison by bits: NaN payloads count, and so does the sign of zero. */
export function plain(tensor: Tensor): unknown {
  const { name, dtype, shape, data } = tensor;
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { name, dtype, shape: [...shape], kind: data.constructor.name, bytes: bytes.toString('hex') };
}
