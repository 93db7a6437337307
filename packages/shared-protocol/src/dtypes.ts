/** Tensors as names, types, shapes and little-endian bytes: what frames, checkpoints and the engines agree on. */
import { endianness } from 'node:os';

export type DType = 'float32' | 'float16' | 'bfloat16' | 'int32' | 'int8' | 'uint8' | 'bool' | 'int64';

/** Row-major; `[]` is a scalar, and a dimension of 0 makes an empty tensor. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** float16 and bfloat16 as their bits in Uint16Array, bool as 0 or 1 in Uint8Array, the others as they are called. */
export type TensorData = Float32Array | Uint16Array | Int32Array | Int8Array | Uint8Array | BigInt64Array;

export interface Tensor extends TensorSpec {
  readonly data: TensorData;
}

interface ArrayType {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): TensorData;
  readonly BYTES_PER_ELEMENT: number;
}

const ARRAYS: Readonly<Record<DType, ArrayType>> = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int32: Int32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int64: BigInt64Array,
};

export const DTYPES: readonly DType[] = Object.keys(ARRAYS) as DType[];

export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && Object.hasOwn(ARRAYS, value);
}

/** Bytes of one element. */
export function elementBytes(dtype: DType): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/** Product of the dimensions, 1 for `[]`. Throws RangeError when one is not an integer >= 0 or the product passes 2^53. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new RangeError(`shape [${shape.join(', ')}]: each dimension is an integer from 0`);
    }
    count *= size;
  }
  if (!Number.isSafeInteger(count))
    throw new RangeError(`shape [${shape.join(', ')}]: more than 2^53 elements`);
  return count;
}

/** Values in all of the tensors together. Throws as elementCount does. */
export function parameterCount(tensors: readonly { readonly shape: readonly number[] }[]): number {
  return tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
}

/** Bytes of a tensor's data, without padding. Throws as elementCount does. */
export function byteLengthOf(spec: Pick<TensorSpec, 'dtype' | 'shape'>): number {
  return elementCount(spec.shape) * elementBytes(spec.dtype);
}

/** The bytes of a tensor's data, viewed in place. */
export function tensorBytes(data: TensorData): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * `bytes` as elements of `dtype`: a view where the address is a multiple of the element's size, else of a copy.
 * `bytes` must be a whole number of elements.
 */
export function viewElements(dtype: DType, bytes: Uint8Array): TensorData {
  const type = ARRAYS[dtype];
  const length = bytes.byteLength / type.BYTES_PER_ELEMENT;
  if (bytes.byteOffset % type.BYTES_PER_ELEMENT === 0)
    return new type(bytes.buffer, bytes.byteOffset, length);
  const copy = new Uint8Array(bytes);
  return new type(copy.buffer, 0, length);
}

/** Whether every byte is a bool's: 0 or 1. */
export function areBools(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i]! > 1) return false;
  return true;
}

/** Throws TypeError or RangeError when a tensor that is to be written is not what its fields say. */
export function checkTensor(tensor: Tensor): void {
  const { name, dtype, shape, data } = tensor;
  if (typeof name !== 'string' || name === '') throw new TypeError('a tensor needs a name');
  if (/\p{Surrogate}/u.test(name))
    throw new TypeError(`tensor ${JSON.stringify(name)}: not a well-formed string`);
  if (!isDType(dtype)) {
    throw new TypeError(`tensor "${name}": unknown dtype ${String(dtype)}, expected ${DTYPES.join(', ')}`);
  }
  if (!(data instanceof ARRAYS[dtype])) {
    throw new TypeError(
      `tensor "${name}": ${dtype} wants ${ARRAYS[dtype].name}, got ${Object(data).constructor?.name}`,
    );
  }
  const count = elementCount(shape);
  if (data.length !== count) {
    throw new RangeError(
      `tensor "${name}": shape [${shape.join(', ')}] has ${count} elements, data has ${data.length}`,
    );
  }
  if (dtype === 'bool' && !areBools(tensorBytes(data))) {
    throw new RangeError(`tensor "${name}": a bool is 0 or 1`);
  }
}

/** Throws on the rare machine whose memory is big-endian: tensors are never byte-swapped. */
export function assertLittleEndian(): void {
  if (endianness() !== 'LE') throw new TypeError('Tributary runs on little-endian machines only');
}
