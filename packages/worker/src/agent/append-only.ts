/**
 * A file of JSON lines that only grows, for what a site must never forget: a line is on disk before what it allows is
 * done, and none is changed afterwards.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { z } from 'zod';
import { WorkerError } from '../errors.ts';

export interface AppendOnly<T> {
  /** Oldest first. */
  readonly entries: readonly T[];
  /** On disk when this returns. Throws FED_WORKER_STATE_UNUSABLE; nothing may go on then. */
  add(entry: T): void;
}

export interface AppendOnlyOptions<T> {
  /** Need not be there yet. */
  readonly path: string;
  readonly schema: z.ZodType<T>;
  /** What it is, for errors, e.g. "the site's privacy ledger". */
  readonly what: string;
  /** What may not happen while it can't be written, and what would be forgotten without it. */
  readonly otherwise: { readonly unwritten: string; readonly forgotten: string };
}

/** Opens the file. Throws FED_WORKER_STATE_UNUSABLE for one that is damaged. */
export function openAppendOnly<T>(options: AppendOnlyOptions<T>): AppendOnly<T> {
  const { path, what, otherwise } = options;
  const unusable = (problem: string, cause?: unknown) =>
    new WorkerError('FED_WORKER_STATE_UNUSABLE', `${path}: ${what} ${problem}`, { cause });
  const { entries, torn } = read(options, unusable);
  let mend = torn;
  return {
    entries,
    add(entry) {
      try {
        const file = openSync(path, 'a', 0o600);
        try {
          // What a crash left of a line allowed nothing: it is ended, and skipped when read.
          writeSync(file, `${mend ? '\n' : ''}${JSON.stringify(entry)}\n`);
          fsyncSync(file);
        } finally {
          closeSync(file);
        }
        if (entries.length === 0) syncFolder(path);
      } catch (error) {
        throw unusable(`can't be written (${(error as Error).message}); ${otherwise.unwritten}`, error);
      }
      mend = false;
      entries.push(entry);
    },
  };
}

function read<T>(
  { path, schema, otherwise }: AppendOnlyOptions<T>,
  unusable: (problem: string, cause?: unknown) => WorkerError,
): { entries: T[]; torn: boolean } {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { entries: [], torn: false };
    throw unusable(`can't be read (${(error as Error).message})`, error);
  }
  const lines = text.split('\n');
  const last = lines.pop() ?? '';
  const entries = lines.flatMap((line, i) => {
    const entry = parse(schema, line);
    if (entry !== undefined) return [entry];
    // Only a crash in the middle of a line leaves the beginning of one.
    if (line === '' || isBeginning(line)) return [];
    throw unusable(`is damaged in line ${i + 1}; restore it from a copy: ${otherwise.forgotten}`);
  });
  return { entries, torn: last !== '' };
}

function parse<T>(schema: z.ZodType<T>, line: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(line)).data;
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
