/**
 * Reads an update as its bytes come in: its header is judged as soon as it is here, each tensor's SHA-256 at the
 * tensor's end, and the values are handed on in small blocks that are still in the processor's cache: views of what
 * came where it is aligned, copies into one block elsewhere.
 */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { type FrameHeader, readFrameHeader } from '@tributary/shared-protocol';
import type { TensorShape } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';

/** Values handed on at a time, at most: 64 KiB. */
const BLOCK = 16_384;
const READ_BYTES = 1024 * 1024;

export interface UpdateReader {
  /**
   * Takes the next bytes of the frame, of any number; they are not kept.
   *
   * @throws ProtocolError FED_PROTOCOL_FRAME_* when they are of no tensor frame; CoordinatorError FED_UPDATE_MANIFEST
   *   when the header does not fit the model or a tensor's bytes do not have its digest
   */
  write(bytes: Uint8Array): void;
  /** Whether all bytes that the header declares have come. */
  readonly complete: boolean;
}

/**
 * A reader of one frame of `totalBytes` bytes. `take` gets each block of each tensor in order; `at` counts parameters
 * over all tensors, and the block is valid only during the call.
 */
export function createUpdateReader(
  manifest: readonly TensorShape[],
  totalBytes: number,
  take: (values: Float32Array, at: number, tensor: string) => void,
): UpdateReader {
  const block = new Float32Array(BLOCK);
  const blockBytes = new Uint8Array(block.buffer);
  let prefix: Uint8Array = new Uint8Array(0);
  let header: FrameHeader | undefined;
  /** Bytes of the frame that were seen, of the block that are filled, and parameters handed on. */
  let position = 0;
  let filled = 0;
  let at = 0;
  let index = 0;
  let hash = createHash('sha256');

  /** The bytes after the header, or undefined while it is not whole. */
  function readHeader(bytes: Uint8Array): Uint8Array | undefined {
    prefix = prefix.length === 0 ? bytes : Buffer.concat([prefix, bytes]);
    header = readFrameHeader(prefix, totalBytes);
    if (!header) {
      // The caller may use its memory again.
      if (prefix === bytes) prefix = bytes.slice();
      return undefined;
    }
    checkManifest(header, manifest);
    const rest = prefix.subarray(header.headerBytes);
    prefix = new Uint8Array(0);
    position = header.headerBytes;
    skipEmpty(header);
    return rest;
  }

  function handOn(values: Float32Array, bytes: Uint8Array, name: string): void {
    hash.update(bytes);
    take(values, at, name);
    at += values.length;
  }

  function endTensor({ tensors }: FrameHeader): void {
    const { name, digest } = tensors[index]!;
    const seen = hash.digest('hex');
    if (seen !== digest) {
      throw new CoordinatorError(
        'FED_UPDATE_MANIFEST',
        `the bytes of ${name} have the SHA-256 ${seen.slice(0, 12)}..., and the update's header declares ${digest.slice(0, 12)}...`,
      );
    }
    hash = createHash('sha256');
    index++;
  }

  /** A tensor without values ends where it begins. */
  function skipEmpty(known: FrameHeader): void {
    while (known.tensors[index]?.byteLength === 0) endTensor(known);
  }

  return {
    write(bytes) {
      let rest = header ? bytes : readHeader(bytes);
      while (rest && rest.length > 0) {
        const tensor = header?.tensors[index];
        // Before the first value of a tensor, or after the last one of all, there may be padding.
        if (!header || !tensor || position < tensor.offset) {
          const padding = Math.min(rest.length, (tensor?.offset ?? totalBytes) - position);
          if (padding <= 0) return;
          position += padding;
          rest = rest.subarray(padding);
          continue;
        }
        const left = tensor.offset + tensor.byteLength - position;
        const count = Math.min(rest.length, left, blockBytes.length - filled);
        const piece = rest.subarray(0, count);
        position += count;
        rest = rest.subarray(count);
        if (filled === 0 && count % 4 === 0 && piece.byteOffset % 4 === 0) {
          handOn(new Float32Array(piece.buffer, piece.byteOffset, count / 4), piece, tensor.name);
        } else {
          blockBytes.set(piece, filled);
          filled += count;
          if (filled === blockBytes.length || count === left) {
            handOn(block.subarray(0, filled / 4), blockBytes.subarray(0, filled), tensor.name);
            filled = 0;
          }
        }
        if (count < left) continue;
        endTensor(header);
        skipEmpty(header);
      }
    },
    get complete() {
      return header !== undefined && index === header.tensors.length;
    },
  };
}

/** Hands the bytes of a spooled update to `use` in order, a piece at a time, until it returns false. */
export async function readSpooled(path: string, use: (piece: Uint8Array) => boolean): Promise<void> {
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length);
      if (bytesRead === 0 || !use(buffer.subarray(0, bytesRead))) return;
    }
  } finally {
    await file.close();
  }
}

/** How the header differs from the tensors that belong in an update, or undefined when it does not. */
function manifestMismatch({ tensors }: FrameHeader, manifest: readonly TensorShape[]): string | undefined {
  const missing = manifest.filter((m) => !tensors.some((t) => t.name === m.name)).map((m) => m.name);
  if (missing.length > 0) return `tensors are missing: ${some(missing)}`;
  const extra = tensors.filter((t) => !manifest.some((m) => m.name === t.name)).map((t) => t.name);
  if (extra.length > 0) return `tensors that the model does not exchange: ${some(extra)}`;
  if (tensors.length !== manifest.length) return `${tensors.length} tensors where ${manifest.length} belong`;
  for (const [i, expected] of manifest.entries()) {
    const actual = tensors[i]!;
    if (actual.name !== expected.name) return `tensor ${i} is ${actual.name} where ${expected.name} belongs`;
    if (actual.dtype !== 'float32') return `${actual.name} is ${actual.dtype}, not float32`;
    if (actual.shape.join() !== expected.shape.join()) {
      return `${actual.name} has shape [${actual.shape.join(', ')}], not [${expected.shape.join(', ')}]`;
    }
  }
  return undefined;
}

function checkManifest(header: FrameHeader, manifest: readonly TensorShape[]): void {
  const mismatch = manifestMismatch(header, manifest);
  if (mismatch !== undefined)
    throw new CoordinatorError('FED_UPDATE_MANIFEST', `the update does not fit the model: ${mismatch}`);
}

function some(names: readonly string[]): string {
  return names.length > 3 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', ');
}
