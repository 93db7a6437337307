/**
 * Bytes to sign, to hash and to derive keys from: a list of fields, each behind its length, so that no two lists have the
 * same bytes. The first field is the purpose; a signature or a key that was made for one never fits another.
 */
import { createHash } from 'node:crypto';

const PROTOCOL = 'tributary secure aggregation 1';

/** A text, a finite number (as its shortest decimal), bytes, or a list of these. */
export type Field = string | number | Uint8Array | readonly Field[];

/** Returns the bytes of `values` under `purpose`: different for every other purpose and every other list. */
export function fieldBytes(purpose: string, ...values: readonly Field[]): Buffer {
  return encode([PROTOCOL, purpose, ...values]);
}

/** SHA-256 of `fieldBytes`. */
export function fieldDigest(purpose: string, ...values: readonly Field[]): Uint8Array {
  return createHash('sha256')
    .update(fieldBytes(purpose, ...values))
    .digest();
}

function encode(value: Field): Buffer {
  if (typeof value === 'string') return tagged('s', Buffer.from(value, 'utf8'));
  if (typeof value === 'number') return tagged('n', Buffer.from(String(value), 'utf8'));
  if (value instanceof Uint8Array) return tagged('b', value);
  return tagged('l', Buffer.concat(value.map(encode)));
}

function tagged(tag: string, bytes: Uint8Array): Buffer {
  const head = Buffer.alloc(5, tag, 'latin1');
  head.writeUInt32LE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}
