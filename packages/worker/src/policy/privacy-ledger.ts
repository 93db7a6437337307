/**
 * A site's own books of what it has spent of its privacy in a run: a line for each update, on disk before the
 * update can leave, never changed afterwards. A coordinator that keeps other books, or none, changes nothing here.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';
import { WorkerError } from '../errors.ts';

const everyEntry = {
  /** Unix millis. */
  at: z.number(),
  round: z.int().min(0),
  /** Digest of the global model that was trained on. */
  base: z.string(),
  noiseMultiplier: z.number().positive(),
  clippingNorm: z.number().positive(),
};
const entrySchema = z.union([
  /** Of records. */
  z.strictObject({
    ...everyEntry,
    trainExamples: z.int().min(1),
    batchSize: z.int().min(1),
    /** Batches of the round. */
    steps: z.int().min(1),
  }),
  /** Of the site as a whole. */
  z.strictObject({ ...everyEntry, unit: z.literal('site') }),
]);
export type PrivacyEntry = z.infer<typeof entrySchema>;

export interface PrivacyLedger {
  /** Oldest first. */
  readonly entries: readonly PrivacyEntry[];
  /** On disk when this returns. Throws FED_WORKER_STATE_UNUSABLE; nothing may leave then. */
  add(entry: PrivacyEntry): void;
}

/** Opens the ledger at `path`, which need not be there yet. Throws FED_WORKER_STATE_UNUSABLE for one that is damaged. */
export function openPrivacyLedger(path: string): PrivacyLedger {
  const { entries, torn } = read(path);
  let mend = torn;
  return {
    entries,
    add(entry) {
      try {
        const file = openSync(path, 'a', 0o600);
        try {
          // What a crash left of a line was no update: it is ended, and skipped when read.
          writeSync(file, `${mend ? '\n' : ''}${JSON.stringify(entry)}\n`);
          fsyncSync(file);
        } finally {
          closeSync(file);
        }
        if (entries.length === 0) syncFolder(path);
      } catch (error) {
        throw unusable(
          path,
          `can't be written (${(error as Error).message}); no update leaves until it can`,
          error,
        );
      }
      mend = false;
      entries.push(entry);
    },
  };
}

function read(path: string): { entries: PrivacyEntry[]; torn: boolean } {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { entries: [], torn: false };
    throw unusable(path, `can't be read (${(error as Error).message})`, error);
  }
  const lines = text.split('\n');
  const last = lines.pop() ?? '';
  const entries = lines.flatMap((line, i) => {
    const entry = parse(line);
    if (entry !== undefined) return [entry];
    // Only a crash in the middle of a line leaves the beginning of one.
    if (line === '' || isBeginning(line)) return [];
    throw unusable(
      path,
      `is damaged in line ${i + 1}; restore it from a copy: what was spent of this site's privacy must not be forgotten`,
    );
  });
  return { entries, torn: last !== '' };
}

function parse(line: string): PrivacyEntry | undefined {
  try {
    return entrySchema.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}

function isBeginning(line: string): boolean {
  return line.startsWith('{"at":') && !line.endsWith('}');
}

function syncFolder(path: string): void {
  const folder = openSync(dirname(path), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function unusable(path: string, problem: string, cause?: unknown): WorkerError {
  return new WorkerError('FED_WORKER_STATE_UNUSABLE', `${path}: the site's privacy ledger ${problem}`, {
    cause,
  });
}
