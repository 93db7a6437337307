/** Files that are there whole or not at all, whatever happens to the process or the power in between. */
import { open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorCode } from '@tributary/shared-protocol';
import { WorkerError } from '../errors.ts';

/** Puts `bytes` at `path`: written beside it, flushed, renamed. A reader sees the old file or the new one. */
export async function writeFileAtomic(path: string, bytes: string | Uint8Array, mode = 0o644): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = await open(temporary, 'w', mode);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/** The text of a file; undefined when there is none. */
export async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Whether the system had no room for what was to be written: the disk, the quota or the size of a file is used up. */
export function isNoRoom(error: unknown): boolean {
  if (error instanceof WorkerError && error.cause !== undefined) return isNoRoom(error.cause);
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(errorCode(error) ?? '');
}

/** Makes renames and removals in a folder durable, where the system lets a folder be flushed. */
export async function syncDirectory(path: string): Promise<void> {
  try {
    const directory = await open(path, 'r');
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch {
    // Windows opens no folders; its renames are journalled.
  }
}
