/**
 * The safetensors file format (an 8-byte little-endian header length, a JSON header, raw little-endian bytes): what
 * checkpoints and exports are, so that Python and others read them as they are.
 */
import {
  areBools,
  assertLittleEndian,
  byteLengthOf,
  checkTensor,
  type DType,
  elementBytes,
  type Tensor,
  tensorBytes,
  viewElements,
} from './dtypes.ts';
import { ProtocolError } from './errors.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';

const NAMES: Readonly<Record<DType, string>> = {
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
  int32: 'I32',
  int8: 'I8',
  uint8: 'U8',
  bool: 'BOOL',
  int64: 'I64',
};
const DTYPE_OF: ReadonlyMap<unknown, DType> = new Map(
  Object.entries(NAMES).map(([dtype, name]) => [name, dtype as DType]),
);
const METADATA = '__metadata__';
const LENGTH_BYTES = 8;

export interface DecodedSafetensors {
  readonly tensors: Tensor[];
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * The file of `tensors` and `metadata`, in one allocation of its final size. The data is ordered by element size, the
 * largest first, and as given within a size; tensors of one dtype therefore keep their order.
 *
 * Throws TypeError or RangeError when a tensor is not what its fields say or a name comes twice or is `__metadata__`.
 */
export function encodeSafetensors(
  tensors: readonly Tensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const parts = safetensorsParts(tensors, metadata);
  const file = new Uint8Array(parts.reduce((bytes, part) => bytes + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.byteLength;
  }
  return file;
}

/**
 * The same file as pieces to write one after the other: the header, then each tensor's bytes as a view of its data, so
 * that a large model is written without a second copy of it. Throws as encodeSafetensors does.
 */
export function safetensorsParts(
  tensors: readonly Tensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array[] {
  assertLittleEndian();
  for (const tensor of tensors) checkTensor(tensor);
  const ordered = [...tensors].sort((a, b) => elementBytes(b.dtype) - elementBytes(a.dtype));
  const entries = new Map<string, unknown>();
  if (Object.keys(metadata).length > 0) entries.set(METADATA, metadata);
  let end = 0;
  for (const { name, dtype, shape, data } of ordered) {
    if (name === METADATA || entries.has(name))
      throw new RangeError(`tensor "${name}" is reserved or comes twice`);
    const begin = end;
    end += data.byteLength;
    entries.set(name, { dtype: NAMES[dtype], shape, data_offsets: [begin, end] });
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const dataStart = Math.ceil((LENGTH_BYTES + json.byteLength) / 8) * 8;

  const header = new Uint8Array(dataStart);
  new DataView(header.buffer).setBigUint64(0, BigInt(dataStart - LENGTH_BYTES), true);
  header.set(json, LENGTH_BYTES);
  header.fill(0x20, LENGTH_BYTES + json.byteLength);
  return [header, ...ordered.map(({ data }) => tensorBytes(data))];
}

/**
 * The tensors of a safetensors file, in the order of their data, as views of `bytes` (copies where badly aligned).
 * The format carries no digest; whoever keeps the file keeps one.
 *
 * Throws FED_PROTOCOL_FRAME_TRUNCATED, FED_PROTOCOL_FRAME_MALFORMED (also for gaps and overlaps) and
 * FED_PROTOCOL_LIMIT.
 */
export function decodeSafetensors(
  bytes: Uint8Array,
  options: { readonly limits?: Limits } = {},
): DecodedSafetensors {
  assertLittleEndian();
  const limits = options.limits ?? DEFAULT_LIMITS;
  if (bytes.byteLength > limits.maxBlobBytes)
    throw pastLimit(`${bytes.byteLength} bytes`, limits.maxBlobBytes);
  if (bytes.byteLength < LENGTH_BYTES) throw truncated(bytes.byteLength, LENGTH_BYTES);
  const declared = new DataView(bytes.buffer, bytes.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (declared > limits.maxHeaderBytes)
    throw pastLimit(`a header of ${declared} bytes`, limits.maxHeaderBytes);
  const dataStart = LENGTH_BYTES + Number(declared);
  if (dataStart > bytes.byteLength) throw truncated(bytes.byteLength, dataStart);
  const header = parseHeader(bytes.subarray(LENGTH_BYTES, dataStart));

  const metadata = Object.hasOwn(header, METADATA) ? header[METADATA] : {};
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === 'string')) {
    throw malformed(`"${METADATA}" is not a map of texts`);
  }
  const names = Object.keys(header).filter((name) => name !== METADATA);
  if (names.length > limits.maxTensors) throw pastLimit(`${names.length} tensors`, limits.maxTensors);
  const places = names.map((name) => readEntry(name, header[name], limits));
  places.sort((a, b) => a.begin - b.begin || a.end - b.end);

  let at = 0;
  for (const { name, begin, end } of places) {
    if (begin !== at)
      throw malformed(`tensor "${name}": begins at ${begin}, not at ${at}, the end of the one before`);
    at = end;
  }
  if (dataStart + at > bytes.byteLength) throw truncated(bytes.byteLength, dataStart + at);
  if (dataStart + at < bytes.byteLength) {
    throw malformed(`${bytes.byteLength - dataStart - at} bytes after the last tensor`);
  }
  const tensors = places.map(({ name, dtype, shape, begin, end }) => {
    const data = bytes.subarray(dataStart + begin, dataStart + end);
    if (dtype === 'bool' && !areBools(data)) throw malformed(`tensor "${name}": a bool is neither 0 nor 1`);
    return { name, dtype, shape, data: viewElements(dtype, data) };
  });
  return { tensors, metadata: metadata as Record<string, string> };
}

function parseHeader(bytes: Uint8Array): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new ProtocolError('FED_PROTOCOL_FRAME_MALFORMED', 'safetensors: the header is not JSON', { cause });
  }
  if (!isRecord(header)) throw malformed('the header is not a map');
  return header;
}

function readEntry(name: string, entry: unknown, limits: Limits) {
  const nameBytes = Buffer.byteLength(name);
  if (nameBytes > limits.maxNameBytes) throw pastLimit(`a name of ${nameBytes} bytes`, limits.maxNameBytes);
  if (name === '' || !isRecord(entry)) throw malformed(`tensor "${name}": not a map under a name`);
  const { dtype: dtypeName, shape, data_offsets: offsets } = entry;
  const dtype = DTYPE_OF.get(dtypeName);
  if (dtype === undefined)
    throw malformed(`tensor "${name}": unknown dtype ${String(dtypeName).slice(0, 32)}`);
  if (!Array.isArray(shape) || !shape.every(isSize))
    throw malformed(`tensor "${name}": no shape that can be`);
  if (shape.length > limits.maxRank)
    throw pastLimit(`tensor "${name}": rank ${shape.length}`, limits.maxRank);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw malformed(`tensor "${name}": data_offsets are not two positions`);
  }
  const [begin, end] = offsets as [number, number];
  if (end - begin !== declaredBytes(dtype, shape)) {
    throw malformed(
      `tensor "${name}": ${dtypeName} of shape [${shape.join(', ')}] does not take ${end - begin} bytes`,
    );
  }
  return { name, dtype, shape: shape as number[], begin, end };
}

function declaredBytes(dtype: DType, shape: readonly number[]): number {
  try {
    return byteLengthOf({ dtype, shape });
  } catch {
    return Number.NaN;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function malformed(problem: string): ProtocolError {
  return new ProtocolError('FED_PROTOCOL_FRAME_MALFORMED', `safetensors: ${problem}`);
}

function truncated(has: number, wants: number): ProtocolError {
  return new ProtocolError(
    'FED_PROTOCOL_FRAME_TRUNCATED',
    `safetensors: ${has} bytes, where its header wants ${wants}`,
  );
}

function pastLimit(what: string, limit: number): ProtocolError {
  return new ProtocolError('FED_PROTOCOL_LIMIT', `safetensors: ${what}, more than the limit of ${limit}`);
}
