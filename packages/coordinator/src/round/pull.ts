/**
 * Brings one update into the spool and into the fold at the same time: each chunk is written, hashed and folded as it
 * arrives. Its header is judged as soon as it is here, before the rest is asked for.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  type BlobRef,
  type BlobSink,
  type Channel,
  crashPoint,
  errorCode,
  fetchBlob,
  openFileSink,
} from '@tributary/shared-protocol';
import type { Fold, IncomingUpdate } from '../aggregate/fold.ts';
import { readSpooled } from '../aggregate/update-reader.ts';
import { isStorageError } from '../run/atomic-file.ts';
import type { UpdateFacts } from '../strategy.ts';

/** An update may be this much larger than its tensors: header, names, padding. */
export const HEADER_SLACK_BYTES = 1024 * 1024;

/** Chunks in flight over all pulls together, about. */
const CHUNKS_IN_FLIGHT = 16;
/** Pulls at a time; later ones wait their turn. */
const MAX_PULLS = 16;

/** Chunks to ask one site for ahead of the one that is due, where so many send theirs. */
export function pullWindow(sites: number): number {
  return Math.max(1, Math.min(8, Math.floor(CHUNKS_IN_FLIGHT / sites)));
}

/** Runs what it is given when it is its turn. */
export function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0;
  const queued: (() => void)[] = [];
  return async (work) => {
    if (running >= MAX_PULLS) await new Promise<void>((go) => queued.push(go));
    running++;
    try {
      return await work();
    } finally {
      running--;
      queued.shift()?.();
    }
  };
}

export interface PullOptions {
  readonly channel: Channel;
  readonly ref: BlobRef;
  readonly path: string;
  readonly fold: Fold;
  readonly facts: UpdateFacts;
  readonly signal: AbortSignal;
  /** Chunks asked for ahead of the one that is due. */
  readonly window: number;
  readonly onProgress: (bytes: number) => void;
}

/**
 * Resolves when the whole update lies at `path`, its SHA-256 checked, and counts in the fold. When it rejects, nothing
 * of it is in the fold; what had arrived before a lost link is kept in the spool and not fetched again.
 *
 * @throws CoordinatorError FED_UPDATE_*, FED_RUN_STORAGE; ProtocolError FED_PROTOCOL_* and FED_TRANSPORT_*; the
 *   signal's reason
 */
export async function pullUpdate(options: PullOptions): Promise<IncomingUpdate> {
  const { channel, ref, path, fold, facts, signal, window, onProgress } = options;
  const spooled = await foldSpooled(fold, facts, path, ref.digest);
  if (spooled) return spooled;
  await mkdir(dirname(path), { recursive: true });
  const update = fold.begin(facts, ref.bytes);
  const part = `${path}.part`;
  const resumes = existsSync(part);
  let spoilt: unknown;
  const takeOut = (from: string): Promise<void> =>
    update.undo(from).catch((error: unknown) => {
      spoilt = error;
    });
  try {
    const file = await openFileSink(path, ref, { observe: update.write });
    const sink: BlobSink = {
      resumeAtChunk: file.resumeAtChunk,
      write(bytes, offset) {
        crashPoint('coordinator:update-chunk');
        return file.write(bytes, offset);
      },
      finish: file.finish,
      async close() {
        // First, for a file that is of no use goes with the close.
        await takeOut(part);
        await file.close?.();
      },
    };
    await fetchBlob(channel, ref, sink, { signal, window, onProgress });
    crashPoint('coordinator:after-update-spooled');
    await update.finish(path);
    return update;
  } catch (error) {
    await takeOut(existsSync(path) ? path : part);
    // A full disk keeps less than was folded: that it is full is what to tell then.
    if (spoilt !== undefined && !isStorageError(error)) throw spoilt;
    if (!resumes || !isOfTheBytes(error)) throw error;
    // What an earlier attempt left may have been torn by a crash; the site is to blame only for its own bytes.
    await rm(part, { force: true });
    return pullUpdate(options);
  }
}

/**
 * Folds in what lies whole in the spool, from before a lost link or a restart. Undefined, with the fold as it was, when
 * there is no such file or its bytes are not those of `digest`.
 */
export async function foldSpooled(
  fold: Fold,
  facts: UpdateFacts,
  path: string,
  digest: string,
): Promise<IncomingUpdate | undefined> {
  if (!existsSync(path)) return undefined;
  const update = fold.begin(facts, (await stat(path)).size);
  const hash = createHash('sha256');
  try {
    await readSpooled(path, (piece) => {
      hash.update(piece);
      update.write(piece);
      return true;
    });
    if (hash.digest('hex') === digest) {
      await update.finish(path);
      return update;
    }
  } catch (error) {
    if (!isOfTheBytes(error)) {
      await update.undo(path);
      throw error;
    }
  }
  await update.undo(path);
  return undefined;
}

/** Whether the bytes themselves are at fault, and not the way that they took. */
function isOfTheBytes(error: unknown): boolean {
  const code = errorCode(error) ?? '';
  return /^FED_(UPDATE|PROTOCOL_FRAME|PROTOCOL_BLOB_DIGEST)/.test(code);
}
