/**
 * Reading a log file without trusting it: line after line, each by itself and in its place, up to the first one that
 * does not hold. What comes after that one proves nothing and is not looked at.
 */
import { FIRST_PREV, readRecordLine } from '@tributary/shared-protocol';
import type { LogHead } from './head.ts';
import type { LogRecord } from './log.ts';

export interface ChainFault {
  /** From 1. */
  readonly line: number;
  readonly kind: 'format' | 'changed' | 'signature' | 'order' | 'missing' | 'fork';
  /** A predicate of the line: "does not match its own hash". */
  readonly what: string;
  /** What that tells, in a sentence. */
  readonly meaning: string;
}

export interface Chain {
  /** Those before the first fault. */
  readonly records: readonly LogRecord[];
  readonly fault: ChainFault | undefined;
  /** Bytes of whole lines. */
  readonly wholeBytes: number;
  /** Bytes after them: what a crash leaves of a line that was being written. */
  readonly tornBytes: number;
}

/** Checks the bytes of a log against its run's key. */
export function checkChain(bytes: Uint8Array, publicKey: string): Chain {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wholeBytes = wholeLines(buffer);
  const lines = linesOf(buffer.subarray(0, wholeBytes));
  const records: LogRecord[] = [];
  let fault: ChainFault | undefined;
  for (const [index, line] of lines.entries()) {
    const read = readRecordLine(line, publicKey);
    fault =
      'fault' in read
        ? { line: index + 1, ...read.fault, meaning: MEANING[read.fault.kind] }
        : misplaced(lines, index, read.record as LogRecord, records.at(-1)?.hash ?? FIRST_PREV, publicKey);
    if (fault !== undefined || 'fault' in read) break;
    records.push(read.record as LogRecord);
  }
  return { records, fault, wholeBytes, tornBytes: bytes.byteLength - wholeBytes };
}

/** What is wrong between a chain that holds and the signed head beside it; undefined when they agree. */
export function checkHead(records: readonly LogRecord[], head: LogHead): ChainFault | undefined {
  if (head.seq >= records.length) {
    const missing = head.seq + 1 - records.length;
    return {
      line: records.length + 1,
      kind: 'missing',
      what: `is where the log ends, and its signed head says that line ${head.seq + 1} was written`,
      meaning: `the last ${missing === 1 ? 'line was' : `${missing} lines were`} cut off: a crash leaves a log that is longer than its head, never a shorter one`,
    };
  }
  if (head.seq >= 0 && records[head.seq]?.hash !== head.hash) {
    return {
      line: head.seq + 1,
      kind: 'fork',
      what: 'is another record than the one that the signed head names',
      meaning: 'the log was written anew with the run’s own key, or log and head come from different copies',
    };
  }
  return undefined;
}

const MEANING: Readonly<Record<'format' | 'changed' | 'signature', string>> = {
  format: 'the line was changed or damaged after it was written',
  changed: 'at least one byte of it was changed after it was written',
  signature:
    'somebody without the run’s key wrote it or changed its signature; or the log is checked with the key of another run',
};

function misplaced(
  lines: readonly Uint8Array[],
  index: number,
  record: LogRecord,
  prev: string,
  publicKey: string,
): ChainFault | undefined {
  const line = index + 1;
  if (record.seq === index) {
    if (record.prev === prev) return undefined;
    return {
      line,
      kind: 'fork',
      what: 'does not follow from the line before it',
      meaning:
        'the line before it, or this one, comes from another history that was signed with the same key',
    };
  }
  const what = `has number ${record.seq} where ${index} belongs`;
  if (record.seq < index) {
    const meaning = `it is a copy of line ${record.seq + 1}, or was moved here from there`;
    return { line, kind: 'order', what, meaning };
  }
  const elsewhere = lines.findIndex((other, i) => {
    if (i <= index) return false;
    const read = readRecordLine(other, publicKey);
    return !('fault' in read) && read.record.seq === index;
  });
  if (elsewhere >= 0) {
    const meaning = `the lines were swapped: number ${index} is on line ${elsewhere + 1}`;
    return { line, kind: 'order', what, meaning };
  }
  const missing = record.seq - index;
  const meaning = `${missing === 1 ? `line ${line} was` : `lines ${line} to ${record.seq} were`} taken out before it`;
  return { line, kind: 'missing', what, meaning };
}

function linesOf(bytes: Buffer): Uint8Array[] {
  const lines: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(10, at);
    lines.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return lines;
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
