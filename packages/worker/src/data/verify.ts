/**
 * The quarantine: every image is decoded once before training, so that an unreadable one is known by name at the start
 * and not met in the middle of a round. An index remembers what was found by path, size and time of change, and makes
 * the next start quick.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { errorCode } from '@tributary/shared-protocol';
import { z } from 'zod';
import { isNoRoom, writeFileAtomic } from '../agent/atomic-file.ts';

/** A file that can't be decoded, and why. */
export interface Unreadable {
  file: string;
  reason: string;
}

export interface VerifyOptions {
  /** The folder that the files lie in; each has an index of its own. */
  dataDir: string;
  /** Where the index is kept; without it every start decodes everything. */
  cacheDir?: string | undefined;
  /** Decodes one file; throws a WorkerError FED_IMAGE_… when that can't be done. */
  decode: (file: string, index: number) => Promise<unknown>;
  /** Called with the share of files looked at, in [0, 1]. */
  onProgress?: ((share: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

const indexSchema = z.object({
  version: z.literal(1),
  /** File to [size in bytes, time of change in ms, reason why it is unreadable or '']. */
  files: z.record(z.string(), z.tuple([z.number(), z.number(), z.string()])),
});
type Index = z.infer<typeof indexSchema>['files'];

/** Returns the unreadable ones among `files`, in their order. Other failures than a bad image are thrown. */
export async function findUnreadable(
  files: readonly string[],
  options: VerifyOptions,
): Promise<Unreadable[]> {
  const { dataDir, cacheDir, decode, onProgress, signal } = options;
  const known = cacheDir === undefined ? {} : await readIndex(indexPath(cacheDir, dataDir));
  const found: Index = {};
  const reasons = new Array<string>(files.length).fill('');
  let changed = false;
  let done = 0;
  await forEachLimited(files.length, availableParallelism() + 1, async (i) => {
    signal?.throwIfAborted();
    const file = files[i]!;
    const info = await stat(file).catch(() => undefined);
    const size = info?.size ?? -1;
    const mtimeMs = info?.mtimeMs ?? -1;
    const entry = known[file];
    if (entry && size >= 0 && entry[0] === size && entry[1] === mtimeMs) reasons[i] = entry[2];
    else {
      changed = true;
      reasons[i] = await reasonOf(file, () => decode(file, i));
    }
    found[file] = [size, mtimeMs, reasons[i]!];
    done++;
    onProgress?.(done / files.length);
  });
  if (cacheDir !== undefined && changed) await writeIndex(indexPath(cacheDir, dataDir), found);
  return files.flatMap((file, i) => (reasons[i] ? [{ file, reason: reasons[i] }] : []));
}

/** Runs `task` for 0 … count-1, `limit` at a time; stops at the first failure and throws it once all have settled. */
export async function forEachLimited(
  count: number,
  limit: number,
  task: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failed = false;
  const lane = async () => {
    while (next < count && !failed) {
      try {
        await task(next++);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: Math.min(limit, count) }, lane));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
}

async function reasonOf(file: string, decode: () => Promise<unknown>): Promise<string> {
  try {
    await decode();
    return '';
  } catch (error) {
    if (!errorCode(error)?.startsWith('FED_IMAGE_')) throw error;
    const message = error instanceof Error ? error.message : String(error);
    return message.startsWith(`${file}: `) ? message.slice(file.length + 2) : message;
  }
}

async function readIndex(path: string): Promise<Index> {
  try {
    return indexSchema.parse(JSON.parse(await readFile(path, 'utf8'))).files;
  } catch {
    // Absent or damaged: it is only a shortcut.
    return {};
  }
}

async function writeIndex(path: string, files: Index): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  try {
    await writeFileAtomic(path, JSON.stringify({ version: 1, files }));
  } catch (error) {
    // It is only a shortcut, which a full disk may do without.
    if (!isNoRoom(error)) throw error;
  }
}

function indexPath(cacheDir: string, dataDir: string): string {
  const digest = createHash('sha256').update(resolve(dataDir)).digest('hex').slice(0, 16);
  return join(cacheDir, `images-${digest}.json`);
}
