/**
 * MessagePack as this protocol uses it: nil, booleans, numbers, UTF-8 strings, arrays and maps with string keys, and
 * nothing else. Bytes from a peer are walked once before msgpackr may read them, so that no declared length, nesting,
 * extension or record can make it allocate, recurse or build something that plain data is not.
 */
import { isUtf8 } from 'node:buffer';
import { Packr, Unpackr } from 'msgpackr';
import { ProtocolError, type ProtocolErrorCode } from './errors.ts';

/** Nested arrays and maps. A status inside a message is the deepest that we send, at 5. */
export const MAX_DEPTH = 32;

const packOptions = {
  useRecords: false,
  variableMapSize: true,
  mapsAsObjects: true,
  moreTypes: false,
  // An optional field that is undefined is a field that is not there. (msgpackr's types lack this option.)
  skipValues: [undefined],
};
const packr = new Packr(packOptions);
const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  moreTypes: false,
  int64AsType: 'number',
});

/**
 * The MessagePack bytes of plain data. Properties that are undefined are left out; integers past 32 bits travel as
 * float64, and −0 as 0. The bytes are valid until they are garbage, but may share a larger buffer: copy them before transferring.
 */
export function packPlain(value: unknown): Uint8Array {
  return packr.pack(value);
}

export interface UnpackOptions {
  /** Names the bytes in errors, e.g. `message`. */
  readonly what: string;
  /** The code of the error for bytes that are not plain MessagePack. */
  readonly code: ProtocolErrorCode;
  /** Arrays, maps, keys and scalars together; past it FED_PROTOCOL_LIMIT. */
  readonly maxValues: number;
}

/** The plain data in `bytes`, all of which it must fill. Objects never carry a key named `__proto__`. */
export function unpackPlain(bytes: Uint8Array, options: UnpackOptions): unknown {
  checkPlain(bytes, options);
  try {
    // A fresh view: msgpackr leaves a property on what it reads.
    return unpackr.unpack(bytes.subarray());
  } catch (cause) {
    throw new ProtocolError(options.code, `${options.what}: not MessagePack that can be read`, { cause });
  }
}

/** What the walk still expects inside one array or map. */
interface Open {
  remaining: number;
  /** Keys seen so far when it is a map, else undefined. */
  readonly keys: Set<string> | undefined;
}

/** Throws unless `bytes` are exactly one value of the allowed kinds. Allocates no more than the keys it has seen. */
function checkPlain(bytes: Uint8Array, { what, code, maxValues }: UnpackOptions): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stack: Open[] = [];
  let at = 0;
  let values = 0;

  const fail = (problem: string): never => {
    throw new ProtocolError(code, `${what}: ${problem} at byte ${at}`);
  };
  const need = (count: number): void => {
    if (count > bytes.length - at) fail(`${count} bytes are declared but ${bytes.length - at} are left`);
  };
  const length = (size: 1 | 2 | 4): number => {
    need(1 + size);
    const value =
      size === 1 ? view.getUint8(at + 1) : size === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1);
    at += 1 + size;
    return value;
  };
  const fixed = (count: number): void => {
    at += 1;
    need(count);
    at += count;
  };
  const text = (count: number): void => {
    need(count);
    if (!isUtf8(bytes.subarray(at, at + count))) fail('a string that is not UTF-8');
    at += count;
  };
  const open = (count: number, isMap: boolean): void => {
    // Each entry takes a byte at least, so a count past what is left is a lie.
    need(isMap ? count * 2 : count);
    if (stack.length >= MAX_DEPTH) fail(`more than ${MAX_DEPTH} levels of nesting`);
    stack.push({ remaining: count, keys: isMap ? new Set() : undefined });
  };
  const integer64 = (signed: boolean): void => {
    need(9);
    const value = signed ? view.getBigInt64(at + 1) : view.getBigUint64(at + 1);
    if (value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER) {
      fail(`the integer ${value}, past 2^53 − 1,`);
    }
    at += 9;
  };
  const key = (keys: Set<string>): void => {
    need(1);
    const token = view.getUint8(at);
    const start = at + (token < 0xc0 ? 1 : token === 0xd9 ? 2 : 3);
    if (token >= 0xa0 && token < 0xc0) {
      at += 1;
      text(token - 0xa0);
    } else if (token === 0xd9) text(length(1));
    else if (token === 0xda) text(length(2));
    else fail('a map key that is not a string');
    const name = buffer.toString('utf8', start, at);
    if (name === '__proto__') fail('the map key "__proto__", which is not allowed,');
    if (keys.has(name)) fail(`the map key ${JSON.stringify(name.slice(0, 64))} twice`);
    keys.add(name);
  };
  const value = (): void => {
    need(1);
    const token = view.getUint8(at);
    if (token < 0x80 || token >= 0xe0) at += 1;
    else if (token < 0x90) {
      at += 1;
      open(token - 0x80, true);
    } else if (token < 0xa0) {
      at += 1;
      open(token - 0x90, false);
    } else if (token < 0xc0) {
      at += 1;
      text(token - 0xa0);
    } else {
      switch (token) {
        case 0xc0:
        case 0xc2:
        case 0xc3:
          at += 1;
          break;
        case 0xcc:
        case 0xd0:
          fixed(1);
          break;
        case 0xcd:
        case 0xd1:
          fixed(2);
          break;
        case 0xca:
        case 0xce:
        case 0xd2:
          fixed(4);
          break;
        case 0xcb:
          fixed(8);
          break;
        case 0xcf:
          integer64(false);
          break;
        case 0xd3:
          integer64(true);
          break;
        case 0xd9:
          text(length(1));
          break;
        case 0xda:
          text(length(2));
          break;
        case 0xdb:
          text(length(4));
          break;
        case 0xdc:
          open(length(2), false);
          break;
        case 0xdd:
          open(length(4), false);
          break;
        case 0xde:
          open(length(2), true);
          break;
        case 0xdf:
          open(length(4), true);
          break;
        default:
          fail(`the MessagePack type 0x${token.toString(16)}, which the protocol does not use,`);
      }
    }
  };

  do {
    const top = stack.at(-1);
    if (top !== undefined) {
      if (top.remaining === 0) {
        stack.pop();
        continue;
      }
      top.remaining -= 1;
      if (top.keys !== undefined) {
        values += 1;
        key(top.keys);
      }
    }
    values += 1;
    if (values > maxValues) {
      throw new ProtocolError('FED_PROTOCOL_LIMIT', `${what}: more than ${maxValues} values`);
    }
    value();
  } while (stack.length > 0);
  if (at !== bytes.length) fail(`${bytes.length - at} bytes after the end`);
}
