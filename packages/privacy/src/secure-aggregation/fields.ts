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
  const parts: Uint8Array[] = [];
  append([PROTOCOL, purpose, ...values], parts);
  return Buffer.concat(parts);
}

/** SHA-256 of `fieldBytes`. */
export function fieldDigest(purpose: string, ...values: readonly Field[]): Uint8Array {
  return createHash('sha256')
    .update(fieldBytes(purpose, ...values))
    .digest();
}

/** Appends the parts of a value, its length in front, and returns their bytes in all. */
function append(value: Field, parts: Uint8Array[]): number {
  const head = Buffer.allocUnsafe(5);
  parts.push(head);
  let length = 0;
  if (value instanceof Uint8Array) {
    head.writeUInt8(1);
    parts.push(value);
    length = value.length;
  } else if (typeof value === 'object') {
    head.writeUInt8(2);
    for (const entry of value) length += append(entry, parts);
  } else {
    head.writeUInt8(typeof value === 'string' ? 3 : 4);
    const text = Buffer.from(String(value), 'utf8');
    parts.push(text);
    length = text.length;
  }
  head.writeUInt32LE(length, 1);
  return length + head.length;
}
