/**
 * Where the log ends. A chain of hashes shows no missing tail, so `log.head` beside it says, signed, up to which record
 * the log was on the disk for certain. It has two slots of one sector each, written in turn after each durable append:
 * a crash in the middle of one leaves the other. A head behind the log is what a crash leaves; a log behind its head
 * has lost records.
 */
import { closeSync, existsSync, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs';
import { isSignedBy, type SigningKey } from '@tributary/shared-protocol';
import { storageError, writeFileAtomic } from './atomic-file.ts';

/** The last record that was durable, -1 and 64 zeros before the first. */
export interface LogHead {
  readonly seq: number;
  readonly hash: string;
  readonly at: number;
}

export interface HeadFile {
  /** Durable when it returns. */
  write(head: LogHead): void;
  close(): void;
}

const SLOT_BYTES = 512;
const PURPOSE = 'tributary/log-head';

/** The bytes of a head file; undefined when there is none. */
export function headBytes(path: string): Uint8Array | undefined {
  return existsSync(path) ? readFileSync(path) : undefined;
}

/** What a head file's bytes say: the newest of its signed slots, `damaged` when there is none. */
export function readHead(bytes: Uint8Array | undefined, publicKey: string): LogHead | 'damaged' | undefined {
  return bytes && (newest(bytes, publicKey)?.head ?? 'damaged');
}

/**
 * Opens the head file, or makes one that says `start`.
 *
 * @throws CoordinatorError FED_RUN_STORAGE
 */
export async function openHead(path: string, key: SigningKey, start: LogHead): Promise<HeadFile> {
  if (newest(headBytes(path), key.publicKey) === undefined)
    await writeFileAtomic(path, [slotOf(start, key), Buffer.from(`${' '.repeat(SLOT_BYTES - 1)}\n`)]);
  let slot = newest(headBytes(path), key.publicKey)?.slot ?? 0;
  const fd = openSync(path, 'r+');
  return {
    write(head) {
      slot = 1 - slot;
      try {
        writeSync(fd, slotOf(head, key), 0, SLOT_BYTES, slot * SLOT_BYTES);
        fdatasyncSync(fd);
      } catch (error) {
        throw storageError(path, error);
      }
    },
    close: () => closeSync(fd),
  };
}

function slotOf(head: LogHead, key: SigningKey): Buffer {
  const sig = key.sign({ purpose: PURPOSE, ...head });
  return Buffer.from(`${JSON.stringify({ ...head, sig }).padEnd(SLOT_BYTES - 1)}\n`);
}

function newest(
  bytes: Uint8Array | undefined,
  publicKey: string,
): { head: LogHead; slot: number } | undefined {
  if (bytes === undefined) return undefined;
  const found = [0, 1].flatMap((slot) => {
    const text = Buffer.from(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES)).toString('utf8');
    const head = parseSlot(text, publicKey);
    return head === undefined ? [] : [{ head, slot }];
  });
  return found.sort((a, b) => b.head.seq - a.head.seq)[0];
}

function parseSlot(text: string, publicKey: string): LogHead | undefined {
  try {
    const { seq, hash, at, sig } = JSON.parse(text) as LogHead & { sig: string };
    const head = { seq, hash, at };
    return isSignedBy(publicKey, { purpose: PURPOSE, ...head }, String(sig)) ? head : undefined;
  } catch {
    // Spaces, or what a crash left of a write: the other slot counts.
    return undefined;
  }
}
