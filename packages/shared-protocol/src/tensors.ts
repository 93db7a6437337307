/**
 * Tensor frames: the one form in which weights and updates travel and are spooled. A fixed preamble, a MessagePack
 * header that lists every tensor with its place and digest, and the raw little-endian bytes, so aligned that a frame
 * in memory is used in place. docs/protocol.md gives the byte offsets.
 */
import { createHash } from 'node:crypto';
import { sha256, sha256Patiently } from './digest.ts';
import {
  areBools,
  assertLittleEndian,
  byteLengthOf,
  checkTensor,
  type DType,
  isDType,
  type Tensor,
  type TensorSpec,
  tensorBytes,
  viewElements,
} from './dtypes.ts';
import { ProtocolError } from './errors.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import { packPlain, unpackPlain } from './messagepack.ts';

/** What a frame says about itself beside its tensors: short facts, such as a round or the name of a codec. */
export type FrameMeta = Readonly<Record<string, string | number>>;

export interface FrameTensor extends TensorSpec {
  /** Bytes from the start of the frame, a multiple of 8. */
  readonly offset: number;
  readonly byteLength: number;
  /** SHA-256 of the tensor's bytes, lower-case hex. */
  readonly digest: string;
}

export interface FrameHeader {
  /** Bytes before the first tensor's, a multiple of 64. */
  readonly headerBytes: number;
  readonly tensors: readonly FrameTensor[];
  readonly meta: FrameMeta;
}

export interface DecodedFrame {
  readonly tensors: Tensor[];
  readonly meta: FrameMeta;
}

export interface DecodeFrameOptions {
  readonly limits?: Limits;
  /** Whether each tensor's bytes are hashed and compared; the header always is. @default true */
  readonly verifyDigests?: boolean;
}

export const FRAME_FORMAT_VERSION = 1;
/** Bytes before the header: magic, format version, header length, header digest. */
export const FRAME_PREAMBLE_BYTES = 48;
/** Entries that `meta` may have. */
export const MAX_META_ENTRIES = 64;
/** UTF-8 bytes of one string in `meta`. */
export const MAX_META_STRING_BYTES = 4096;

// "TRBF" and a line end of each kind, which a transfer in text mode would spoil.
const MAGIC = Uint8Array.of(0x54, 0x52, 0x42, 0x46, 0x0d, 0x0a, 0x1a, 0x0a);
const VERSION_AT = 8;
const HEADER_LENGTH_AT = 12;
const HEADER_DIGEST_AT = 16;
const DATA_ALIGNMENT = 64;
const TENSOR_ALIGNMENT = 8;

/**
 * The frame of `tensors`, in their order: one allocation of its final size, each tensor hashed where it lies and
 * copied once. Numbers in `meta` are finite, its strings at most 4,096 bytes of UTF-8.
 *
 * Throws TypeError or RangeError when a tensor is not what its fields say, a name comes twice, or `meta` is not plain.
 */
export function encodeFrame(tensors: readonly Tensor[], meta: FrameMeta = {}): Uint8Array {
  assertLittleEndian();
  checkMeta(meta);
  const names = new Set<string>();
  let dataBytes = 0;
  const manifest = tensors.map((tensor) => {
    checkTensor(tensor);
    if (names.has(tensor.name)) throw new RangeError(`tensor "${tensor.name}" comes twice`);
    names.add(tensor.name);
    const { name, dtype, shape, data } = tensor;
    const offset = dataBytes;
    dataBytes = alignUp(offset + data.byteLength, TENSOR_ALIGNMENT);
    return { name, dtype, shape, offset, byteLength: data.byteLength, digest: sha256(tensorBytes(data)) };
  });
  const header = packPlain({ tensors: manifest, meta });
  const dataStart = alignUp(FRAME_PREAMBLE_BYTES + header.byteLength, DATA_ALIGNMENT);

  const frame = new Uint8Array(dataStart + dataBytes);
  const view = new DataView(frame.buffer);
  frame.set(MAGIC);
  view.setUint32(VERSION_AT, FRAME_FORMAT_VERSION, true);
  view.setUint32(HEADER_LENGTH_AT, header.byteLength, true);
  frame.set(createHash('sha256').update(header).digest(), HEADER_DIGEST_AT);
  frame.set(header, FRAME_PREAMBLE_BYTES);
  tensors.forEach(({ data }, i) => {
    frame.set(tensorBytes(data), dataStart + manifest[i]!.offset);
  });
  return frame;
}

/**
 * Makes `frame` true again after its tensors' bytes were changed in place: hashes each anew and writes the digests,
 * nothing else. The frame is then the one that encodeFrame would give; it must not be used or changed until then.
 * Rejects as readFrameHeader throws.
 */
export async function resealFrame(frame: Uint8Array): Promise<void> {
  const { headerBytes, tensors, meta } = readFrameHeader(frame, frame.byteLength) ?? {
    headerBytes: 0,
    tensors: [],
    meta: {},
  };
  const manifest: unknown[] = [];
  for (const { name, dtype, shape, offset, byteLength } of tensors) {
    const digest = await sha256Patiently(frame.subarray(offset, offset + byteLength));
    manifest.push({ name, dtype, shape, offset: offset - headerBytes, byteLength, digest });
  }
  // Digests have one length, so the header keeps its own.
  const header = packPlain({ tensors: manifest, meta });
  frame.set(header, FRAME_PREAMBLE_BYTES);
  frame.set(createHash('sha256').update(header).digest(), HEADER_DIGEST_AT);
}

/**
 * The tensors of a frame as views of `bytes`, which must not change while they are in use; only tensors that lie
 * badly aligned in memory are copied (none, when `bytes` starts at a multiple of 8). Accepts exactly what encodeFrame
 * can write.
 *
 * Throws FED_PROTOCOL_FRAME_TRUNCATED, FED_PROTOCOL_FRAME_MALFORMED, FED_PROTOCOL_FRAME_DIGEST, FED_PROTOCOL_LIMIT,
 * and FED_PROTOCOL_VERSION for a frame format of the future.
 */
export function decodeFrame(bytes: Uint8Array, options: DecodeFrameOptions = {}): DecodedFrame {
  const header = readFrameHeader(bytes, bytes.byteLength, options.limits);
  if (header === undefined) throw truncated(bytes.byteLength, FRAME_PREAMBLE_BYTES);
  const verify = options.verifyDigests ?? true;
  const tensors = header.tensors.map(({ name, dtype, shape, offset, byteLength, digest }) => {
    const end = offset + byteLength;
    const data = bytes.subarray(offset, end);
    if (!isZero(bytes, end, alignUp(end, TENSOR_ALIGNMENT))) {
      throw malformed(`tensor "${name}": the padding after it is not zero`);
    }
    if (verify && sha256(data) !== digest) {
      throw new ProtocolError(
        'FED_PROTOCOL_FRAME_DIGEST',
        `frame: tensor "${name}": its ${byteLength} bytes do not have the SHA-256 that the header gives`,
      );
    }
    if (dtype === 'bool' && !areBools(data)) throw malformed(`tensor "${name}": a bool is neither 0 nor 1`);
    return { name, dtype, shape, data: viewElements(dtype, data) };
  });
  return { tensors, meta: header.meta };
}

/**
 * The header of a frame of `totalBytes` of which `prefix` is the beginning, or undefined when the prefix is too short
 * to tell (headerBytes, at most `limits.maxHeaderBytes` + 112, are always enough). Everything that the header says is
 * checked: limits, places, and that the tensors fill `totalBytes` exactly. Throws as decodeFrame does.
 */
export function readFrameHeader(
  prefix: Uint8Array,
  totalBytes: number,
  limits: Limits = DEFAULT_LIMITS,
): FrameHeader | undefined {
  assertLittleEndian();
  const magicBytes = Math.min(prefix.byteLength, MAGIC.length);
  for (let i = 0; i < magicBytes; i++) {
    if (prefix[i] !== MAGIC[i]) throw malformed('not a tensor frame: its first bytes are others');
  }
  if (totalBytes > limits.maxBlobBytes) throw pastLimit(`${totalBytes} bytes`, limits.maxBlobBytes);
  if (totalBytes < FRAME_PREAMBLE_BYTES) throw truncated(totalBytes, FRAME_PREAMBLE_BYTES);
  if (prefix.byteLength < FRAME_PREAMBLE_BYTES) return undefined;

  const view = new DataView(prefix.buffer, prefix.byteOffset, FRAME_PREAMBLE_BYTES);
  const version = view.getUint32(VERSION_AT, true);
  if (version !== FRAME_FORMAT_VERSION) {
    throw new ProtocolError(
      'FED_PROTOCOL_VERSION',
      `frame: format version ${version}, this end reads ${FRAME_FORMAT_VERSION}`,
    );
  }
  const headerLength = view.getUint32(HEADER_LENGTH_AT, true);
  if (headerLength > limits.maxHeaderBytes) {
    throw pastLimit(`a header of ${headerLength} bytes`, limits.maxHeaderBytes);
  }
  const headerEnd = FRAME_PREAMBLE_BYTES + headerLength;
  const dataStart = alignUp(headerEnd, DATA_ALIGNMENT);
  if (dataStart > totalBytes) throw truncated(totalBytes, dataStart);
  if (prefix.byteLength < dataStart) return undefined;

  const header = prefix.subarray(FRAME_PREAMBLE_BYTES, headerEnd);
  const declared = prefix.subarray(HEADER_DIGEST_AT, FRAME_PREAMBLE_BYTES);
  if (!createHash('sha256').update(header).digest().equals(declared)) {
    throw new ProtocolError(
      'FED_PROTOCOL_FRAME_DIGEST',
      'frame: the header does not have the SHA-256 before it',
    );
  }
  if (!isZero(prefix, headerEnd, dataStart)) throw malformed('the padding after the header is not zero');
  return readHeader(header, dataStart, totalBytes, limits);
}

function readHeader(bytes: Uint8Array, dataStart: number, totalBytes: number, limits: Limits): FrameHeader {
  const header = unpackPlain(bytes, {
    what: 'frame header',
    code: 'FED_PROTOCOL_FRAME_MALFORMED',
    // A tensor is a map of six names and six values, with the sizes in `shape`; the rest is `meta` and the outermost.
    maxValues: limits.maxTensors * (13 + limits.maxRank) + 2 * MAX_META_ENTRIES + 6,
  });
  const { tensors: entries, meta } = fieldsOf(header, ['tensors', 'meta'], 'header');
  if (!Array.isArray(entries)) throw malformed('"tensors" is not a list');
  if (entries.length > limits.maxTensors) throw pastLimit(`${entries.length} tensors`, limits.maxTensors);
  readMeta(meta);

  const names = new Set<string>();
  let end = dataStart;
  const tensors = entries.map((entry: unknown, index) => {
    const tensor = readTensor(entry, index, dataStart, limits);
    if (names.has(tensor.name)) throw malformed(`tensor "${tensor.name}" comes twice`);
    names.add(tensor.name);
    if (tensor.offset !== end) {
      throw malformed(
        `tensor "${tensor.name}": at ${tensor.offset - dataStart} of the data, where ${end - dataStart} follows ` +
          'from the tensors before it',
      );
    }
    end = alignUp(end + tensor.byteLength, TENSOR_ALIGNMENT);
    if (end > limits.maxBlobBytes) throw pastLimit(`tensors of ${end} bytes`, limits.maxBlobBytes);
    return tensor;
  });
  if (end > totalBytes) throw truncated(totalBytes, end);
  if (end < totalBytes) throw malformed(`${totalBytes - end} bytes after the last tensor`);
  return { headerBytes: dataStart, tensors, meta: meta as FrameMeta };
}

function readTensor(entry: unknown, index: number, dataStart: number, limits: Limits): FrameTensor {
  const where = `tensor ${index}`;
  const fields = fieldsOf(entry, ['name', 'dtype', 'shape', 'offset', 'byteLength', 'digest'], where);
  const { name, dtype, shape, offset, byteLength, digest } = fields;
  if (typeof name !== 'string' || name === '') throw malformed(`${where}: its name is not a text`);
  const nameBytes = Buffer.byteLength(name);
  if (nameBytes > limits.maxNameBytes)
    throw pastLimit(`${where}: a name of ${nameBytes} bytes`, limits.maxNameBytes);
  if (!isDType(dtype)) throw malformed(`tensor "${name}": unknown dtype ${String(dtype).slice(0, 32)}`);
  if (!Array.isArray(shape)) throw malformed(`tensor "${name}": its shape is not a list`);
  if (shape.length > limits.maxRank)
    throw pastLimit(`tensor "${name}": rank ${shape.length}`, limits.maxRank);
  if (!shape.every(isSize)) throw malformed(`tensor "${name}": a dimension is not an integer from 0`);
  if (!isSize(offset) || !isSize(byteLength)) {
    throw malformed(`tensor "${name}": offset or byteLength is not an integer from 0`);
  }
  if (typeof digest !== 'string' || !/^[0-9a-f]{64}$/.test(digest)) {
    throw malformed(`tensor "${name}": its digest is not a SHA-256 in lower-case hex`);
  }
  if (byteLength > limits.maxBlobBytes) {
    throw pastLimit(`tensor "${name}": ${byteLength} bytes`, limits.maxBlobBytes);
  }
  if (byteLength !== declaredBytes(dtype, shape)) {
    throw malformed(
      `tensor "${name}": ${dtype} of shape [${shape.join(', ')}] does not take ${byteLength} bytes`,
    );
  }
  return { name, dtype, shape, offset: dataStart + offset, byteLength, digest };
}

/** As byteLengthOf, with NaN instead of an error for a shape whose product passes 2^53. */
function declaredBytes(dtype: DType, shape: readonly number[]): number {
  try {
    return byteLengthOf({ dtype, shape });
  } catch {
    return Number.NaN;
  }
}

/** The fields of a map that must have exactly these. */
function fieldsOf<K extends string>(value: unknown, names: readonly K[], where: string): Record<K, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw malformed(`${where}: not a map`);
  if (Object.keys(value).length !== names.length || !names.every((name) => Object.hasOwn(value, name))) {
    throw malformed(`${where}: its fields must be ${names.join(', ')}`);
  }
  return value as Record<K, unknown>;
}

function readMeta(meta: unknown): void {
  if (typeof meta !== 'object' || meta === null || Array.isArray(meta))
    throw malformed('"meta" is not a map');
  const problem = metaProblem(meta);
  if (problem !== undefined) throw malformed(problem);
}

function checkMeta(meta: FrameMeta): void {
  const problem = metaProblem(meta);
  if (problem !== undefined) throw new TypeError(problem);
}

function metaProblem(meta: object): string | undefined {
  const entries: [string, unknown][] = Object.entries(meta);
  if (entries.length > MAX_META_ENTRIES)
    return `meta: ${entries.length} entries, at most ${MAX_META_ENTRIES}`;
  for (const [key, value] of entries) {
    if (key === '__proto__') return 'meta: the key "__proto__" is not allowed';
    if (!isShortText(key)) return `meta: a key that is not a text of at most ${MAX_META_STRING_BYTES} bytes`;
    if (typeof value === 'number' ? !Number.isFinite(value) : !isShortText(value)) {
      return `meta: ${JSON.stringify(key.slice(0, 64))} is neither a finite number nor a short text`;
    }
  }
  return undefined;
}

function isShortText(value: unknown): value is string {
  if (typeof value !== 'string' || value.length > MAX_META_STRING_BYTES) return false;
  return Buffer.byteLength(value) <= MAX_META_STRING_BYTES && !/\p{Surrogate}/u.test(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0 && !Object.is(value, -0);
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (bytes[i] !== 0) return false;
  return true;
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

function malformed(problem: string): ProtocolError {
  return new ProtocolError('FED_PROTOCOL_FRAME_MALFORMED', `frame: ${problem}`);
}

function truncated(has: number, wants: number): ProtocolError {
  return new ProtocolError(
    'FED_PROTOCOL_FRAME_TRUNCATED',
    `frame: ${has} bytes, where its header wants ${wants}`,
  );
}

function pastLimit(what: string, limit: number): ProtocolError {
  return new ProtocolError('FED_PROTOCOL_LIMIT', `frame: ${what}, more than the limit of ${limit}`);
}
