/** A spooled update as a file: its header checked against the model, its tensors read block by block. */
import { type FileHandle, open } from 'node:fs/promises';
import { type FrameHeader, readFrameHeader } from '@tributary/shared-protocol';
import type { TensorShape } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';

/** Float32 values read at a time: 1 MiB. */
export const BLOCK = 262_144;
const PREFIX_BYTES = 65_536;

/** How the header differs from the tensors that belong in an update, or undefined when it does not. */
export function manifestMismatch(header: FrameHeader, manifest: readonly TensorShape[]): string | undefined {
  const { tensors } = header;
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

/** @throws CoordinatorError FED_UPDATE_MANIFEST saying which tensor is wrong */
export function checkManifest(header: FrameHeader, manifest: readonly TensorShape[]): void {
  const mismatch = manifestMismatch(header, manifest);
  if (mismatch !== undefined)
    throw new CoordinatorError('FED_UPDATE_MANIFEST', `the update does not fit the model: ${mismatch}`);
}

export interface UpdateFile {
  readonly header: FrameHeader;
  /**
   * Calls `take` with each block of each tensor, in order; `at` counts parameters over all tensors. The block is valid
   * only during the call. Stops early when `take` returns false, or at parameter `end`.
   */
  blocks(
    take: (values: Float32Array, at: number, tensorIndex: number) => boolean | undefined,
    end?: number,
  ): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens a spooled update and checks its header against the model. Blocks are read into `buffer`.
 *
 * @throws ProtocolError FED_PROTOCOL_FRAME_* when it is no tensor frame; CoordinatorError FED_UPDATE_MANIFEST
 */
export async function openUpdateFile(
  path: string,
  manifest: readonly TensorShape[],
  buffer: Float32Array = new Float32Array(BLOCK),
): Promise<UpdateFile> {
  const file = await open(path, 'r');
  try {
    const header = await readHeader(file);
    checkManifest(header, manifest);
    return {
      header,
      async blocks(take, end = Number.POSITIVE_INFINITY) {
        let at = 0;
        for (const [index, tensor] of header.tensors.entries()) {
          for (let done = 0; done < tensor.byteLength; ) {
            if (at >= end) return;
            const count = Math.min(buffer.length, (tensor.byteLength - done) / 4, end - at);
            await readFully(file, new Uint8Array(buffer.buffer, 0, count * 4), tensor.offset + done);
            if (take(buffer.subarray(0, count), at, index) === false) return;
            done += count * 4;
            at += count;
          }
        }
      },
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readHeader(file: FileHandle): Promise<FrameHeader> {
  const { size } = await file.stat();
  for (let length = Math.min(size, PREFIX_BYTES); ; length = Math.min(size, length * 4)) {
    const prefix = new Uint8Array(length);
    await readFully(file, prefix, 0);
    const header = readFrameHeader(prefix, size);
    if (header) return header;
    if (length === size)
      throw new CoordinatorError('FED_UPDATE_MANIFEST', 'the update ends within its header');
  }
}

async function readFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0)
      throw new Error(`a spooled update ended at byte ${position + done}, before its declared length`);
    done += bytesRead;
  }
}

function some(names: readonly string[]): string {
  return names.length > 3 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', ');
}
