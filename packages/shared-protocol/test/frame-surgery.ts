/** Frames that lie: a valid one with another header, sealed with a right digest so that the lie is what is met. */
import { createHash } from 'node:crypto';
import { readFrameHeader } from '@tributary/shared-protocol';
import { Packr } from 'msgpackr';

const PREAMBLE_BYTES = 48;
const packr = new Packr({ useRecords: false, variableMapSize: true });

/** The frame with `header` (packed, or raw bytes) in place of its own, and its data unchanged. */
export function reseal(frame: Uint8Array, header: object | Uint8Array): Uint8Array {
  const { headerBytes } = readFrameHeader(frame, frame.byteLength)!;
  const packed = header instanceof Uint8Array ? header : packr.pack(header);
  const dataStart = Math.ceil((PREAMBLE_BYTES + packed.byteLength) / 64) * 64;
  const out = new Uint8Array(dataStart + frame.byteLength - headerBytes);
  out.set(frame.subarray(0, PREAMBLE_BYTES));
  out.set(packed, PREAMBLE_BYTES);
  out.set(frame.subarray(headerBytes), dataStart);
  seal(out, packed.byteLength);
  return out;
}

/** Writes the header's length and digest into the preamble, in place. */
export function seal(frame: Uint8Array, headerLength: number): void {
  new DataView(frame.buffer, frame.byteOffset).setUint32(12, headerLength, true);
  const header = frame.subarray(PREAMBLE_BYTES, PREAMBLE_BYTES + headerLength);
  frame.set(createHash('sha256').update(header).digest(), 16);
}

/** The header's own bytes. */
export function rawHeader(frame: Uint8Array): Uint8Array {
  const length = new DataView(frame.buffer, frame.byteOffset).getUint32(12, true);
  return frame.slice(PREAMBLE_BYTES, PREAMBLE_BYTES + length);
}
