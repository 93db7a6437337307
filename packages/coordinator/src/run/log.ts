/**
 * The run's record: one JSON object a line, append-only. Every line holds the SHA-256 of the line before it and is
 * signed with the run's Ed25519 key, so that a line changed, dropped or put in later shows. A torn last line (a crash
 * while it was written) is cut off; damage anywhere else is an error.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
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
import { canonicalJson } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import { storageError, syncDirectory, writeFileAtomic } from './atomic-file.ts';
import type { LogEntry } from './records.ts';

/** A line as it is on disk. `hash` is over the canonical JSON of all other fields but `sig`; `sig` signs `hash`. */
export type LogRecord = LogEntry & {
  readonly seq: number;
  readonly at: number;
  /** Digest of the resolved configuration. */
  readonly config: string;
  /** `hash` of the record before; 64 zeros in the first. */
  readonly prev: string;
  readonly hash: string;
  readonly sig: string;
};

export interface RunLog {
  /** What was there when the log was opened. */
  readonly records: readonly LogRecord[];
  /** Bytes of a torn last line that were cut off; 0 when the log was whole. */
  readonly repairedBytes: number;
  /** Base64url of the raw Ed25519 public key. */
  readonly publicKey: string;
  /** Written whole when this returns, and not at all when it throws FED_RUN_STORAGE; on the disk itself only with `durable` (fdatasync), which covers all lines before too. */
  append(entry: LogEntry, options?: { readonly durable?: boolean }): void;
  close(): void;
}

const FIRST_PREV = '0'.repeat(64);

/**
 * Opens or starts the log at `path`; its key is at `keyPath` (mode 0600) and made when absent.
 *
 * @throws CoordinatorError FED_RUN_LOG_BROKEN, naming the line, when the chain or a signature does not hold
 */
export async function openRunLog(options: {
  path: string;
  keyPath: string;
  config: string;
  now?: () => number;
}): Promise<RunLog> {
  const { path, keyPath, config, now = Date.now } = options;
  const isNew = !existsSync(path);
  const privateKey = await openKey(keyPath, isNew);
  const publicKey = createPublicKey(privateKey);
  const fd = openSync(path, 'a+', 0o644);
  let records: LogRecord[];
  let repairedBytes = 0;
  try {
    const bytes = readFileSync(path);
    const whole = wholeLines(bytes);
    records = parseLog(bytes.subarray(0, whole), path, publicKey);
    if (whole < bytes.length) {
      repairedBytes = bytes.length - whole;
      ftruncateSync(fd, whole);
    }
    if (isNew) syncDirectory(dirname(path));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let seq = records.length;
  let size = fstatSync(fd).size;
  let prev = records.at(-1)?.hash ?? FIRST_PREV;

  return {
    records,
    repairedBytes,
    publicKey: rawPublicKey(publicKey),
    append(entry, { durable = false } = {}) {
      const body = { ...entry, seq, at: now(), config, prev };
      const hash = createHash('sha256').update(canonicalJson(body)).digest();
      const line = `${JSON.stringify({ ...body, hash: hash.toString('hex'), sig: sign(null, hash, privateKey).toString('base64url') })}\n`;
      try {
        const bytes = Buffer.from(line);
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes.subarray(at));
        if (durable) fdatasyncSync(fd);
        size += bytes.length;
      } catch (error) {
        // Half a line must not stay: the next record, for which there may be room again, would follow it.
        ftruncateSync(fd, size);
        throw storageError(path, error);
      }
      seq++;
      prev = hash.toString('hex');
    },
    close: () => closeSync(fd),
  };
}

/** The records of a log file, verified line by line against the public key (base64url, raw). */
export function verifyRunLog(path: string, publicKey: string): LogRecord[] {
  const bytes = readFileSync(path);
  return parseLog(bytes.subarray(0, wholeLines(bytes)), path, publicKeyFromRaw(publicKey));
}

/** Length up to and with the last line that is whole: ends with a newline and is JSON. */
function wholeLines(bytes: Buffer): number {
  const end = bytes.lastIndexOf(10) + 1;
  if (end === 0) return 0;
  const start = end < 2 ? 0 : bytes.lastIndexOf(10, end - 2) + 1;
  try {
    JSON.parse(bytes.toString('utf8', start, end));
    return end;
  } catch {
    return start;
  }
}

function parseLog(bytes: Uint8Array, path: string, publicKey: KeyObject): LogRecord[] {
  const lines = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    .toString('utf8')
    .split('\n')
    .slice(0, -1);
  let prev = FIRST_PREV;
  return lines.map((line, index) => {
    const record = check(line, prev, index, publicKey);
    if (typeof record === 'string') {
      throw new CoordinatorError(
        'FED_RUN_LOG_BROKEN',
        `${path}, line ${index + 1}: ${record}. The record of this run was changed or damaged; restore the file from a copy, or start a new run in another runDir`,
      );
    }
    prev = record.hash;
    return record;
  });
}

function check(line: string, prev: string, seq: number, publicKey: KeyObject): LogRecord | string {
  let record: LogRecord;
  try {
    record = JSON.parse(line) as LogRecord;
  } catch {
    return 'is not JSON';
  }
  const { hash, sig, ...body } = record;
  if (body.seq !== seq) return `has number ${body.seq} where ${seq} belongs`;
  if (body.prev !== prev) return 'does not follow from the line before it';
  const actual = createHash('sha256').update(canonicalJson(body)).digest();
  if (actual.toString('hex') !== hash) return 'does not match its own hash';
  if (!verify(null, actual, publicKey, Buffer.from(String(sig), 'base64url')))
    return 'has a signature that is not of this run';
  return record;
}

async function openKey(path: string, create: boolean): Promise<KeyObject> {
  if (existsSync(path)) return createPrivateKey(readFileSync(path));
  if (!create)
    throw new CoordinatorError(
      'FED_RUN_LOG_BROKEN',
      `${path} is missing: without its key the run's log can't go on`,
    );
  const { privateKey } = generateKeyPairSync('ed25519');
  await writeFileAtomic(path, [Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' }))], {
    mode: 0o600,
  });
  return privateKey;
}

function rawPublicKey(key: KeyObject): string {
  return key.export({ format: 'jwk' })['x'] ?? '';
}

function publicKeyFromRaw(raw: string): KeyObject {
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: raw }, format: 'jwk' });
}
