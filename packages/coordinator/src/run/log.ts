/**
 * The run's record: one JSON object a line, append-only. Every line holds the SHA-256 of the line before it and is
 * signed with the run's Ed25519 key, so that a line changed, dropped or put in later shows; a signed head beside it
 * shows lines cut off at the end. A torn last line (a crash while it was written) is cut off; damage anywhere else is
 * an error.
 */
import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import {
  createSigningKey,
  FIRST_PREV,
  type RecordFrame,
  readSigningKey,
  type SigningKey,
  signRecord,
} from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import { storageError, syncDirectory, writeFileAtomic } from './atomic-file.ts';
import { type Chain, type ChainFault, checkChain, checkHead } from './chain.ts';
import { type HeadFile, headBytes, openHead, readHead } from './head.ts';
import type { LogEntry } from './records.ts';

/** A line as it is on disk. */
export type LogRecord = LogEntry & RecordFrame;

export interface RunLog {
  /** What was there when the log was opened. */
  readonly records: readonly LogRecord[];
  /** Bytes of a torn last line that were cut off; 0 when the log was whole. */
  readonly repairedBytes: number;
  /** The run's key; base64url of its public half is what invites pin. */
  readonly key: SigningKey;
  /**
   * Written whole when this returns, and not at all when it throws FED_RUN_STORAGE; on the disk itself only with
   * `durable` (fdatasync, then the head), which covers all lines before too.
   */
  append(entry: LogEntry, options?: { readonly durable?: boolean }): LogRecord;
  close(): void;
}

/**
 * Opens or starts the log at `path`; its key is at `keyPath` (mode 0600) and made when absent, its head at `headPath`.
 *
 * @throws CoordinatorError FED_RUN_LOG_BROKEN, naming the line, when the chain, a signature or the head does not hold
 */
export async function openRunLog(options: {
  path: string;
  keyPath: string;
  headPath: string;
  config: string;
  now?: () => number;
}): Promise<RunLog> {
  const { path, keyPath, headPath, config, now = Date.now } = options;
  const isNew = !existsSync(path);
  const key = await openKey(keyPath, isNew);
  const fd = openSync(path, 'a+', 0o644);
  let chain: Chain;
  let head: HeadFile;
  try {
    chain = checkChain(readFileSync(path), key.publicKey);
    if (chain.fault) throw broken(path, chain.fault);
    checkAgainstHead(path, headPath, chain.records, key.publicKey);
    if (chain.tornBytes > 0) ftruncateSync(fd, chain.wholeBytes);
    if (isNew) syncDirectory(dirname(path));
    // A head that is made now must not be ahead of what the disk has.
    fdatasyncSync(fd);
    head = await openHead(headPath, key, headOf(chain.records));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const { records } = chain;
  let seq = records.length;
  let size = fstatSync(fd).size;
  let prev = records.at(-1)?.hash ?? FIRST_PREV;

  return {
    records,
    repairedBytes: chain.tornBytes,
    key,
    append(entry, { durable = false } = {}) {
      const record = signRecord({ ...entry, seq, at: now(), config, prev }, key);
      try {
        const bytes = Buffer.from(`${JSON.stringify(record)}\n`);
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes.subarray(at));
        if (durable) fdatasyncSync(fd);
        size += bytes.length;
      } catch (error) {
        // Half a line must not stay: the next record, for which there may be room again, would follow it.
        ftruncateSync(fd, size);
        throw storageError(path, error);
      }
      seq++;
      prev = record.hash;
      if (durable) head.write({ seq: record.seq, hash: record.hash, at: record.at });
      return record;
    },
    close() {
      closeSync(fd);
      head.close();
    },
  };
}

/**
 * The records of a log file, verified line by line against the public key (base64url, raw).
 *
 * @throws CoordinatorError FED_RUN_LOG_BROKEN, naming the first line that does not hold
 */
export function verifyRunLog(path: string, publicKey: string): LogRecord[] {
  const { records, fault } = checkChain(readFileSync(path), publicKey);
  if (fault) throw broken(path, fault);
  return [...records];
}

/** Whether the log is one that was begun with a head beside it. */
export function hasHead(records: readonly LogRecord[]): boolean {
  return records.some((record) => record.type === 'run-started' && record.head === true);
}

function checkAgainstHead(
  path: string,
  headPath: string,
  records: readonly LogRecord[],
  publicKey: string,
): void {
  const head = readHead(headBytes(headPath), publicKey);
  if (head === undefined || head === 'damaged') {
    // A log from before there were heads gets one now; one that had a head must not lose it unseen.
    if (!hasHead(records)) return;
    throw new CoordinatorError(
      'FED_RUN_LOG_BROKEN',
      `${headPath} is ${head ?? 'missing'}: without it nobody can tell whether the log's last lines are there. Restore log and head from one copy, or start a new run in another runDir`,
    );
  }
  const fault = checkHead(records, head);
  if (fault) throw broken(path, fault);
}

function headOf(records: readonly LogRecord[]) {
  const last = records.at(-1);
  return { seq: last?.seq ?? -1, hash: last?.hash ?? FIRST_PREV, at: last?.at ?? 0 };
}

function broken(path: string, { line, what, meaning }: ChainFault): CoordinatorError {
  return new CoordinatorError(
    'FED_RUN_LOG_BROKEN',
    `${path}, line ${line}: ${what}; ${meaning}. The record of this run was changed or damaged; restore the file from a copy, or start a new run in another runDir`,
  );
}

async function openKey(path: string, create: boolean): Promise<SigningKey> {
  if (existsSync(path)) return readSigningKey(readFileSync(path));
  if (!create)
    throw new CoordinatorError(
      'FED_RUN_LOG_BROKEN',
      `${path} is missing: without its key the run's log can't go on`,
    );
  const key = createSigningKey();
  await writeFileAtomic(path, [Buffer.from(key.pem)], { mode: 0o600 });
  return key;
}
