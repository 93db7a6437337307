/**
 * Brings the log in a run directory to what the store has. Where the two go different ways, the store is right: a line
 * that is not in it never left the process that wrote it. A folder that only has more lines keeps them; they are its own.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { readSigningKey } from '@tributary/shared-protocol';
import type { ResolvedFederation } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import { writeFileAtomic } from '../run/atomic-file.ts';
import { checkChain } from '../run/chain.ts';
import type { RunPaths } from '../run/directory.ts';
import { openHead } from '../run/head.ts';
import type { LogRecord } from '../run/log.ts';

export interface RestoredLog {
  readonly records: readonly LogRecord[];
  /** What a person should know. */
  readonly told: string[];
  /** Lines, from the first, that the folder had already. */
  readonly common: number;
}

/**
 * `pem` is the run's key as the store has it.
 *
 * @throws CoordinatorError FED_STORE_OTHER_RUN, FED_STORE_DAMAGED, FED_RUN_CONFIG_CHANGED, FED_RUN_STORAGE
 */
export async function restoreLog(
  paths: RunPaths,
  federation: ResolvedFederation,
  lines: readonly Uint8Array[],
  pem: string | undefined,
  store: string,
): Promise<RestoredLog> {
  if (lines.length === 0) return { records: [], told: [], common: 0 };
  if (pem === undefined)
    throw new CoordinatorError('FED_STORE_DAMAGED', `${store}: the store has a log, but not the run's key`);
  const stored = Buffer.concat(lines.flatMap((line) => [line, NEWLINE]));
  const key = readSigningKey(pem);
  const { records, fault, tornBytes } = checkChain(stored, key.publicKey);
  if (fault !== undefined || tornBytes > 0) {
    throw new CoordinatorError(
      'FED_STORE_DAMAGED',
      `${store}: line ${fault?.line ?? lines.length} of the log in the store ${fault?.what ?? 'is not whole'}; nothing of it was taken over`,
    );
  }
  if (records[0]?.config !== federation.digest) {
    throw new CoordinatorError(
      'FED_RUN_CONFIG_CHANGED',
      `the run in the store at ${store} was started with another configuration; give this coordinator the same one, or end the address with another prefix for a run of its own`,
    );
  }
  const local = existsSync(paths.log) ? readFileSync(paths.log) : EMPTY;
  const common = commonLines(local, lines);
  if (local.includes(10) && common === 0) {
    throw new CoordinatorError(
      'FED_STORE_OTHER_RUN',
      `${paths.root} holds another run than the store at ${store}; choose another runDir for this one, or end the address with another prefix`,
    );
  }
  if (common === lines.length) return { records, told: [], common };
  await writeFileAtomic(paths.key, [Buffer.from(pem)], { mode: 0o600 });
  // The head goes first and comes last: without one, a crash in between is seen.
  rmSync(paths.head, { force: true });
  await writeFileAtomic(paths.log, [stored]);
  const last = records.at(-1)!;
  const head = await openHead(paths.head, key, { seq: last.seq, hash: last.hash, at: last.at });
  head.close();
  const own = local.subarray(0, local.lastIndexOf(10) + 1).filter((byte) => byte === 10).byteLength - common;
  const told =
    own === 0
      ? []
      : [
          `${own} ${own === 1 ? 'line' : 'lines'} at the end of ${paths.log} had not reached the store when another coordinator took over, so nobody had heard of them; the log now is the store's`,
        ];
  return { records, told, common };
}

const EMPTY = Buffer.alloc(0);
const NEWLINE = Buffer.from('\n');

/** How many lines the file begins with that are the store's. */
function commonLines(file: Buffer, lines: readonly Uint8Array[]): number {
  let at = 0;
  for (const [index, line] of lines.entries()) {
    const end = at + line.byteLength;
    if (file[end] !== 10 || !file.subarray(at, end).equals(line)) return index;
    at = end + 1;
  }
  return lines.length;
}
