/**
 * This site's own copy of the lines of the run's log that concern it, as the coordinator brought them: signed by the run,
 * each with its number and hash. A log that later tells something else is found out by it.
 */
import { existsSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { readRecordLine } from '@tributary/shared-protocol';
import { z } from 'zod';
import { WorkerError } from '../errors.ts';

const noisedSchema = z.object({
  type: z.literal('noised'),
  round: z.int().min(0),
  sites: z.array(z.string()),
});

export interface SiteRecords {
  /** Number of the last line that is kept; -1 when there is none. */
  readonly upTo: number;
  /** By round: how often the coordinator drew noise for a sum that has this site's update. */
  readonly noised: ReadonlyMap<number, number>;
  /**
   * Keeps lines, durably, when this resolves. Lines that are here already are passed over.
   *
   * @throws WorkerError FED_WORKER_RECORDS for a line that the run did not sign; what the system says of a full disk
   */
  take(lines: readonly string[], publicKey: string): Promise<void>;
}

/**
 * Opens the copy at `path` of the site called `name`. It need not be there yet; what a crash left of a last line is cut
 * off.
 */
export async function openRecords(path: string, name: string): Promise<SiteRecords> {
  const bytes = existsSync(path) ? await readFile(path) : Buffer.alloc(0);
  let size = bytes.lastIndexOf(10) + 1;
  const kept = bytes.toString('utf8', 0, size);
  let upTo = lastNumber(kept);
  const noised = new Map<number, number>();
  const note = (line: string): void => {
    const round = noisedRound(line, name);
    if (round !== undefined) noised.set(round, (noised.get(round) ?? 0) + 1);
  };
  for (const line of kept.split('\n')) note(line);
  let last: Promise<void> = Promise.resolve();

  async function append(lines: readonly string[], publicKey: string): Promise<void> {
    const fresh: string[] = [];
    let reached = upTo;
    for (const line of lines) {
      const read = readRecordLine(Buffer.from(line), publicKey);
      if ('fault' in read)
        throw new WorkerError(
          'FED_WORKER_RECORDS',
          `the coordinator brought a line of its log that ${read.fault.what}; this site does not keep it`,
        );
      if (read.record.seq <= reached) continue;
      reached = read.record.seq;
      fresh.push(`${line}\n`);
    }
    if (fresh.length === 0) return;
    const text = Buffer.from(fresh.join(''));
    const file = await open(path, existsSync(path) ? 'r+' : 'w+');
    try {
      // Also over half a line, which a crash or a full disk has left.
      await file.truncate(size);
      await file.write(text, 0, text.length, size);
      await file.datasync();
    } finally {
      await file.close();
    }
    size += text.length;
    upTo = reached;
    for (const line of fresh) note(line);
  }

  return {
    get upTo() {
      return upTo;
    },
    noised,
    take(lines, publicKey) {
      const done = last.then(() => append(lines, publicKey));
      last = done.catch(() => undefined);
      return done;
    },
  };
}

/** The round for which the line says that noise was drawn over an update of `name`; undefined of any other line. */
function noisedRound(line: string, name: string): number | undefined {
  if (!line.includes('"type":"noised"')) return undefined;
  try {
    const record = noisedSchema.safeParse(JSON.parse(line));
    return record.success && record.data.sites.includes(name) ? record.data.round : undefined;
  } catch {
    // Somebody else has written there; `tributary verify` names the line.
    return undefined;
  }
}

function lastNumber(text: string): number {
  const line = text.trimEnd().split('\n').at(-1) ?? '';
  try {
    const { seq } = JSON.parse(line) as { seq?: unknown };
    return Number.isSafeInteger(seq) ? Number(seq) : -1;
  } catch {
    // Nothing yet, or somebody else has written there: all is asked for anew, and `tributary verify` names the line.
    return -1;
  }
}
