/** Files that are either whole or absent, also after a power cut. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { crashPoint, errorCode } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';

/** How bytes reach the disk; tests put faults in. */
export type WriteFunction = (fd: number, bytes: Uint8Array) => number;

/**
 * Writes to a temporary name, fsyncs, renames over `path`, fsyncs the directory. On failure `path` is as it was and
 * the temporary file is gone.
 *
 * @throws CoordinatorError FED_RUN_STORAGE when the disk refuses (full, read-only, quota)
 */
export function writeFileAtomic(
  path: string,
  parts: readonly Uint8Array[],
  options: { readonly mode?: number; readonly crashName?: string; readonly write?: WriteFunction } = {},
): void {
  const write = options.write ?? writeSync;
  const temporary = `${path}.tmp`;
  try {
    const fd = openSync(temporary, 'w', options.mode ?? 0o644);
    try {
      for (const part of parts) {
        for (let at = 0; at < part.length; ) at += write(fd, part.subarray(at));
      }
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    if (options.crashName) crashPoint(`${options.crashName}-written`);
    renameSync(temporary, path);
    if (options.crashName) crashPoint(`${options.crashName}-renamed`);
    syncDirectory(dirname(path));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw storageError(path, error);
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
