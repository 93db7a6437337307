/** Where fetched blobs go: memory, or a file that keeps what has arrived so that a later attempt goes on from there. */
import { createHash } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { checkRef, shortDigest } from './blobs.ts';
import { ProtocolError } from './errors.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import type { BlobRef } from './messages.ts';

export interface BlobSink {
  /** The first chunk it still needs. */
  readonly resumeAtChunk: number;
  /** Takes the next bytes in order; the next chunk is asked for once this settles. Must not keep or change `bytes`. */
  write(bytes: Uint8Array, offset: number): Promise<void> | void;
  /** All chunks are here: checks the SHA-256 and makes the blob whole. Throws FED_PROTOCOL_BLOB_DIGEST. */
  finish(digest: string): Promise<void>;
  /** Forgets what an earlier attempt left, so that `resumeAtChunk` is 0. */
  restart?(): Promise<void>;
  /** The fetch failed: frees what is open, keeps what can be resumed from. Harmless when called twice. */
  close?(): Promise<void>;
}

export interface FileSinkOptions {
  /** @default DEFAULT_LIMITS */
  readonly limits?: Limits;
  /** Whether the file and its folder are flushed to the disk before `finish` resolves. @default false */
  readonly fsync?: boolean;
  /**
   * Sees every byte in order: those that an earlier attempt left (while the sink is opened), and each chunk as it is
   * written. What it throws, the opening or the write throws; the chunk is on the disk all the same. Must not keep
   * `bytes`.
   */
  readonly observe?: (bytes: Uint8Array) => void;
}

const READ_BYTES = 1024 * 1024;

/**
 * Opens `path`.part, hashes the whole chunks that an earlier attempt left there, and resumes behind them; `finish`
 * renames it to `path`. After a wrong digest `close` removes the part file, for there is nothing to go on from.
 *
 * Throws FED_PROTOCOL_LIMIT before anything is opened, and what the file system throws.
 */
export async function openFileSink(
  path: string,
  ref: BlobRef,
  { limits = DEFAULT_LIMITS, fsync = false, observe }: FileSinkOptions = {},
): Promise<BlobSink> {
  checkRef(ref, limits);
  const partPath = `${path}.part`;
  let file: FileHandle | undefined = await openOrCreate(partPath);
  let hash = createHash('sha256');
  let resumeAtChunk = 0;
  /** Set when the whole is wrong and nothing of it came from an earlier attempt. */
  let useless = false;
  const see = (bytes: Uint8Array): void => {
    hash.update(bytes);
    observe?.(bytes);
  };
  try {
    const { size } = await file.stat();
    // A part file longer than the blob is of another one; its length says so, its bytes needn't be read.
    const keep = size > ref.bytes ? 0 : size === ref.bytes ? size : size - (size % ref.chunkBytes);
    await readPrefix(file, keep, see);
    // Truncated to nothing, ext4 would flush the file when it is closed; the spool need never reach the disk.
    if (keep < size) await file.truncate(keep);
    resumeAtChunk = Math.ceil(keep / ref.chunkBytes);
  } catch (error) {
    await file.close();
    throw error;
  }

  const opened = (): FileHandle => {
    if (file === undefined) throw new TypeError(`${path}: this sink is closed; open another one`);
    return file;
  };
  const close = async (): Promise<void> => {
    const closing = file;
    file = undefined;
    await closing?.close();
    if (closing && useless) await rm(partPath, { force: true });
  };

  return {
    get resumeAtChunk() {
      return resumeAtChunk;
    },
    async write(bytes, offset) {
      const written = writeAll(opened(), bytes, offset);
      // The disk works while this thread hashes. Its error is the graver one.
      try {
        see(bytes);
      } finally {
        await written;
      }
    },
    async finish(digest) {
      // A copy: a sink whose digest is wrong may be restarted, one that could not be renamed finished again.
      const seen = hash.copy().digest('hex');
      if (seen !== digest) {
        useless = resumeAtChunk === 0;
        throw digestError(digest, seen);
      }
      if (fsync) await opened().sync();
      await close();
      await rename(partPath, path);
      if (fsync) await syncFolder(dirname(path));
    },
    async restart() {
      await opened().truncate(0);
      hash = createHash('sha256');
      resumeAtChunk = 0;
    },
    close,
  };
}

export interface MemorySink extends BlobSink {
  /** The blob, valid once the fetch has resolved. */
  readonly bytes: Uint8Array;
}

/** Returns a sink of `ref.bytes` bytes of memory. Throws FED_PROTOCOL_LIMIT before it allocates. */
export function openMemorySink(ref: BlobRef, limits: Limits = DEFAULT_LIMITS): MemorySink {
  checkRef(ref, limits);
  const bytes = new Uint8Array(ref.bytes);
  const hash = createHash('sha256');
  return {
    resumeAtChunk: 0,
    bytes,
    write(part, offset) {
      bytes.set(part, offset);
      hash.update(part);
    },
    async finish(digest) {
      const seen = hash.digest('hex');
      if (seen !== digest) throw digestError(digest, seen);
    },
  };
}

function digestError(expected: string, seen: string): ProtocolError {
  return new ProtocolError(
    'FED_PROTOCOL_BLOB_DIGEST',
    `blob ${shortDigest(expected)}: the bytes that came have the SHA-256 ${seen}, not ${expected}; fetch it again`,
  );
}

async function openOrCreate(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r+');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return open(path, 'wx+');
  }
}

async function readPrefix(file: FileHandle, length: number, see: (bytes: Uint8Array) => void): Promise<void> {
  const buffer = Buffer.allocUnsafe(Math.min(length, READ_BYTES));
  for (let offset = 0; offset < length; ) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, length - offset), offset);
    if (bytesRead === 0) throw new Error('the file became shorter while it was read');
    see(buffer.subarray(0, bytesRead));
    offset += bytesRead;
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await file.write(bytes, done, bytes.byteLength - done, offset + done);
    done += bytesWritten;
  }
}

/** So that the new name is on the disk, too. Windows can't flush a folder and needn't. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
