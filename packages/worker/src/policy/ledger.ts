/**
 * What a policy counts, on disk: rounds trained in this run and bytes moved today. Bytes are written down ahead, some
 * at a time, so that a site that is killed has counted too many rather than too few. Written synchronously: a count
 * that is still on its way to the disk when the next bytes leave would not be one.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { z } from 'zod';
import { WorkerError } from '../errors.ts';

const ledgerSchema = z.strictObject({
  version: z.literal(1),
  /** Round and the beginning of its base model's digest: the same round on another model is another one. */
  rounds: z.array(z.string()),
  /** In local time, YYYY-MM-DD. */
  day: z.string(),
  bytes: z.number().min(0),
});

export interface Ledger {
  /** Keys of the rounds that were trained. */
  readonly rounds: readonly string[];
  addRound(key: string): void;
  /** Sent and received since local midnight. */
  bytesToday(): number;
  addBytes(bytes: number): void;
  /** Writes down the exact count. */
  close(): void;
}

export interface LedgerOptions {
  readonly path: string;
  readonly now: () => number;
  /** How far ahead bytes are written down: what a kill may count too many. @default 4 MiB */
  readonly aheadBytes?: number;
}

/** Opens the ledger in a file, made on the first count. Throws FED_WORKER_STATE_UNUSABLE for one that can't be read. */
export function openLedger({ path, now, aheadBytes = 4 * 2 ** 20 }: LedgerOptions): Ledger {
  const { rounds, ...stored } = read(path);
  let { day, bytes } = stored;
  /** What the file says. */
  let written = bytes;

  function write(upTo: number): void {
    const text = JSON.stringify({ version: 1, rounds, day, bytes: upTo });
    const temporary = `${path}.tmp`;
    try {
      const file = openSync(temporary, 'w', 0o600);
      try {
        writeSync(file, `${text}\n`);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(temporary, path);
    } catch (error) {
      throw new WorkerError(
        'FED_WORKER_STATE_UNUSABLE',
        `${path}: what the site's policy counts can't be written down (${(error as Error).message}); nothing is sent until it can`,
        { cause: error },
      );
    }
    written = upTo;
  }

  /** A clock that was set back does not give the day's bytes anew. */
  function turnDay(): void {
    const today = dayOf(now());
    if (today > day) [day, bytes, written] = [today, 0, 0];
  }

  return {
    rounds,
    addRound(key) {
      if (rounds.includes(key)) return;
      rounds.push(key);
      write(Math.max(written, bytes));
    },
    bytesToday() {
      turnDay();
      return bytes;
    },
    addBytes(more) {
      turnDay();
      bytes += more;
      if (bytes > written) write(bytes + aheadBytes);
    },
    close() {
      if (written !== bytes) write(bytes);
    },
  };
}

/** The date of `at` in local time, as YYYY-MM-DD. */
export function dayOf(at: number): string {
  const date = new Date(at);
  const two = (part: number) => String(part).padStart(2, '0');
  return `${String(date.getFullYear()).padStart(4, '0')}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** When the next day begins in local time. */
export function nextDay(at: number): number {
  const date = new Date(at);
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() + 1).getTime();
}

function read(path: string): { rounds: string[]; day: string; bytes: number } {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { rounds: [], day: '', bytes: 0 };
    throw unusable(path, (error as Error).message, error);
  }
  try {
    return ledgerSchema.parse(JSON.parse(text));
  } catch (error) {
    throw unusable(path, 'it is not a ledger of this version', error);
  }
}

function unusable(path: string, problem: string, cause: unknown): WorkerError {
  return new WorkerError(
    'FED_WORKER_STATE_UNUSABLE',
    `${path}: what the site's policy has counted can't be read (${problem}); restore it, or remove it to begin counting anew`,
    { cause },
  );
}
