/**
 * One line of a run's log, as coordinators write it and anyone can check it: JSON that holds its number, the hash of
 * the line before it, its own hash, and the run's signature of that hash. docs/protocol.md gives the format.
 */
import { createHash } from 'node:crypto';
import { canonicalJson } from './digest.ts';
import { areSignedBy, type SigningKey } from './identity.ts';

/** What every record has beside the fields of its type. */
export interface RecordFrame {
  /** From 0. */
  readonly seq: number;
  /** Unix millis. */
  readonly at: number;
  /** Digest of the resolved configuration. */
  readonly config: string;
  /** `hash` of the record before; 64 zeros in the first. */
  readonly prev: string;
  /** SHA-256 of the canonical JSON of all other fields but `sig`. */
  readonly hash: string;
  /** The run's signature over the 32 bytes of `hash`. */
  readonly sig: string;
}
export type SignedRecord = RecordFrame & { readonly type: string };

/** `format`: not JSON as it was written; `changed`: not what its hash is of; `signature`: not signed by that key. */
export interface LineFault {
  readonly kind: 'format' | 'changed' | 'signature';
  /** A predicate: "is not JSON". */
  readonly what: string;
}

/** What the first record's `prev` is. */
export const FIRST_PREV: string = '0'.repeat(64);

/** The record of `body`, hashed and signed. */
export function signRecord<T extends Omit<SignedRecord, 'hash' | 'sig'>>(
  body: T,
  key: SigningKey,
): T & Pick<SignedRecord, 'hash' | 'sig'> {
  const hash = hashOf(body);
  return { ...body, hash: hash.toString('hex'), sig: key.signBytes(hash) };
}

/** The record in a line (without its end), checked by itself: its form, its hash, its signature. */
export function readRecordLine(
  line: Uint8Array,
  publicKey: string,
): { readonly record: SignedRecord } | { readonly fault: LineFault; readonly record?: SignedRecord } {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(line).toString('utf8'));
  } catch {
    return { fault: { kind: 'format', what: 'is not JSON' } };
  }
  if (!isFramed(value)) return { fault: { kind: 'format', what: 'is not a record: fields are missing' } };
  const record = value;
  const { hash, sig, ...body } = record;
  const actual = hashOf(body);
  if (actual.toString('hex') !== hash)
    return { fault: { kind: 'changed', what: 'does not match its own hash' }, record };
  // One spelling a record, so that no byte can change unseen: not in escapes, spaces or order either.
  if (!Buffer.from(JSON.stringify(record)).equals(line))
    return { fault: { kind: 'format', what: 'is not spelled as it was written' }, record };
  if (!areSignedBy(publicKey, actual, sig))
    return { fault: { kind: 'signature', what: 'has a signature that is not of this run' }, record };
  return { record };
}

function hashOf(body: object): Buffer {
  return createHash('sha256').update(canonicalJson(body)).digest();
}

function isFramed(value: unknown): value is SignedRecord {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const { type, seq, at, config, prev, hash, sig } = value as Record<string, unknown>;
  return (
    [type, config, prev, hash, sig].every((text) => typeof text === 'string') &&
    Number.isSafeInteger(seq) &&
    typeof at === 'number'
  );
}
