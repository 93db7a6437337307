/** The serving side of blobs: what this process has announced, from memory or from files, by digest. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { chunkCount, chunkLength, shortDigest } from './blobs.ts';
import { sha256Patiently } from './digest.ts';
import { ProtocolError } from './errors.ts';
import type { BlobRef, MessageOf } from './messages.ts';

export interface BlobShelf {
  /** Serves `bytes` without copying them: don't write to them until `remove`. A digest put twice is one blob. */
  addBytes(bytes: Uint8Array, chunkBytes: number): Promise<BlobRef>;
  /** Serves a file by positioned reads, one chunk in memory at a time. It must stay as it is until `remove`. */
  addFile(path: string, chunkBytes: number): Promise<BlobRef>;
  /** Stops serving; an unknown digest is fine. */
  remove(digest: string): void;
  /**
   * The answer to a `chunk` request. Throws FED_PROTOCOL_BLOB_UNKNOWN for a digest that is not on the shelf,
   * FED_PROTOCOL_CHUNK for an index past its end or a file that has changed.
   */
  answer(message: MessageOf<'chunk'>): Promise<{ message: MessageOf<'chunk-data'>; body: Uint8Array }>;
}

interface Blob {
  readonly ref: BlobRef;
  read(offset: number, length: number): Promise<Uint8Array> | Uint8Array;
}

/** Bytes hashed at a time when a file is put on the shelf. */
const HASH_READ_BYTES = 1024 * 1024;

/** Returns an empty shelf. One shelf may serve any number of channels. */
export function createBlobShelf(): BlobShelf {
  const blobs = new Map<string, Blob>();
  return {
    async addBytes(bytes, chunkBytes) {
      checkChunkBytes(chunkBytes);
      const digest = await sha256Patiently(bytes);
      const ref = { digest, bytes: bytes.byteLength, chunkBytes };
      blobs.set(digest, { ref, read: (offset, length) => bytes.subarray(offset, offset + length) });
      return ref;
    },
    async addFile(path, chunkBytes) {
      checkChunkBytes(chunkBytes);
      const hash = createHash('sha256');
      let bytes = 0;
      for await (const part of createReadStream(path, { highWaterMark: HASH_READ_BYTES })) {
        hash.update(part as Buffer);
        bytes += (part as Buffer).byteLength;
      }
      const ref = { digest: hash.digest('hex'), bytes, chunkBytes };
      blobs.set(ref.digest, { ref, read: (offset, length) => readAt(path, offset, length) });
      return ref;
    },
    remove(digest) {
      blobs.delete(digest);
    },
    async answer({ digest, index }) {
      const blob = blobs.get(digest);
      if (blob === undefined) {
        throw new ProtocolError(
          'FED_PROTOCOL_BLOB_UNKNOWN',
          `blob ${shortDigest(digest)} is not, or no longer, on offer here; ask for the current one`,
        );
      }
      if (index >= chunkCount(blob.ref)) {
        throw new ProtocolError(
          'FED_PROTOCOL_CHUNK',
          `blob ${shortDigest(digest)} has ${chunkCount(blob.ref)} chunks, so no chunk ${index}`,
        );
      }
      const length = chunkLength(blob.ref, index);
      const body = await blob.read(index * blob.ref.chunkBytes, length);
      if (body.byteLength !== length) {
        throw new ProtocolError(
          'FED_PROTOCOL_CHUNK',
          `blob ${shortDigest(digest)}: its file has become shorter since it was put on offer`,
        );
      }
      return { message: { type: 'chunk-data', digest, index }, body };
    },
  };
}

/** Up to `length` bytes at `offset`. The file is opened for each read: an idle blob holds no descriptor. */
async function readAt(path: string, offset: number, length: number): Promise<Uint8Array> {
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafeSlow(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await file.read(buffer, filled, length - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return buffer.subarray(0, filled);
  } finally {
    await file.close();
  }
}

function checkChunkBytes(chunkBytes: number): void {
  if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1) {
    throw new RangeError(`chunkBytes: ${chunkBytes} is not a positive integer`);
  }
}
