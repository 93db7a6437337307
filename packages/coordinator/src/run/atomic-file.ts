/** Files that are either whole or absent, also after a power cut. */
import { closeSync, fsyncSync, openSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crashPoint, errorCode } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';

/**
 * Writes to a temporary name, fsyncs, renames over `path`, fsyncs the directory, all beside this thread: `parts` must
 * stay as they are until it resolves. On failure `path` is as it was and the temporary file is gone.
 *
 * @throws CoordinatorError FED_RUN_STORAGE when the disk refuses (full, read-only, quota)
 */
export async function writeFileAtomic(
  path: string,
  parts: readonly Uint8Array[],
  options: { readonly mode?: number; readonly crashName?: string } = {},
): Promise<void> {
  const temporary = `${path}.tmp`;
  try {
    const file = await open(temporary, 'w', options.mode ?? 0o644);
    try {
      await writeAll(file, parts);
      await file.sync();
    } finally {
      await file.close();
    }
    if (options.crashName) crashPoint(`${options.crashName}-written`);
    await rename(temporary, path);
    if (options.crashName) crashPoint(`${options.crashName}-renamed`);
    syncDirectory(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    throw storageError(path, error);
  }
}

/** One call for all parts, and again for what the system did not take. */
async function writeAll(file: FileHandle, parts: readonly Uint8Array[]): Promise<void> {
  let left = parts.filter((part) => part.byteLength > 0);
  while (left.length > 0) {
    let { bytesWritten } = await file.writev(left);
    const next = left.findIndex((part) => {
      if (part.byteLength > bytesWritten) return true;
      bytesWritten -= part.byteLength;
      return false;
    });
    left = next < 0 ? [] : [left[next]!.subarray(bytesWritten), ...left.slice(next + 1)];
  }
}

/** Makes a rename or a new file in `path` last; does nothing where directories can't be synced. */
export function syncDirectory(path: string): void {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return;
  }
  try {
    fsyncSync(fd);
  } catch {
    // Some file systems refuse to sync a directory; the rename itself is atomic all the same.
  } finally {
    closeSync(fd);
  }
}

export function storageError(path: string, error: unknown): CoordinatorError {
  if (error instanceof CoordinatorError) return error;
  const code = (error as NodeJS.ErrnoException).code;
  const cause = error instanceof Error ? error.message : String(error);
  const why =
    code === 'ENOSPC' ? 'the disk is full' : code === 'EDQUOT' ? 'the disk quota is used up' : cause;
  return new CoordinatorError(
    'FED_RUN_STORAGE',
    `${path} can't be written: ${why}. Nothing that was committed is lost: make room and start the same command again`,
    { cause: error },
  );
}

/** Whether our own disk is at fault: the system's code, such as ENOSPC, or what `storageError` made of it. */
export function isStorageError(error: unknown): boolean {
  const code = errorCode(error);
  return code !== undefined && (!code.startsWith('FED_') || code === 'FED_RUN_STORAGE');
}
