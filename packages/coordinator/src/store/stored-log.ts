/**
 * The log's lines in a stream, each written with the sequence number that the stream must have at that moment. So a
 * stream has one writer: who takes over writes a line of its own first, a mark that is not part of the log, and from then
 * on what a former leader still sends is refused by the server.
 */
import {
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
} from '@nats-io/jetstream';
import { errorCode } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { StoreNames } from './names.ts';
import { isPassing, pause } from './patience.ts';

export interface StoredLog {
  /** The lines that were there when this writer took over. */
  readonly lines: readonly Uint8Array[];
  /**
   * Resolves once the line is in the stream, however often the server has to be asked. Rejects with
   * FED_STORE_LEASE_LOST when another writer has taken over, FED_STORE_DAMAGED when the stream has lost lines,
   * FED_STORE_UNAVAILABLE when the server refuses it for good, or the signal's reason.
   */
  append(line: Uint8Array, signal: AbortSignal): Promise<void>;
}

const WRONG_SEQUENCE: ReadonlySet<number> = new Set([
  JetStreamApiCodes.StreamWrongLastSequence,
  JetStreamApiCodes.StreamWrongLastSequenceUnknown,
]);
/** Of a mark; a line of the log is never empty. */
const EMPTY = new Uint8Array(0);
const RETRY_MS = 250;
const PAUSE_MS = 500;
const MAX_ATTEMPTS = 30;

/** Reads the stream to its end and makes this process its only writer. */
export async function takeStoredLog(
  js: JetStreamClient,
  jsm: JetStreamManager,
  { stream, subject }: StoreNames,
): Promise<StoredLog> {
  const lines: Uint8Array[] = [];
  let at = 0;
  for (let attempt = 1; ; attempt++) {
    try {
      const { state } = await jsm.streams.info(stream);
      if (state.messages !== state.last_seq) throw lacking(stream, state.messages, state.last_seq);
      const added = await readFrom(js, stream, at + 1, state.last_seq);
      lines.push(...added.filter((data) => data.byteLength > 0));
      at = state.last_seq;
      at = (await js.publish(subject, EMPTY, { expect: { lastSequence: at } })).seq;
      break;
    } catch (error) {
      // A former leader has added something meanwhile; or an answer was lost, and then our mark is read like any other.
      if (errorCode(error) === 'FED_STORE_DAMAGED' || attempt === MAX_ATTEMPTS) throw error;
    }
    await pause(PAUSE_MS);
  }
  return { lines, append };

  async function append(line: Uint8Array, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      try {
        at = (await js.publish(subject, line, { expect: { lastSequence: at } })).seq;
        return;
      } catch (error) {
        const found = await whatIsThere(line);
        if (found === 'ours') {
          at++;
          return;
        }
        if (found === 'another') throw fenced(isWrongSequence(error) ? error : undefined);
        if (found === 'less') throw lacking(stream, undefined, at);
        if (found === 'nothing' && !isPassing(error) && !isWrongSequence(error))
          throw refused(stream, line, error);
      }
      await pause(RETRY_MS);
    }
  }

  /** What follows what this writer wrote last: an answer may have been lost, not the line. */
  async function whatIsThere(line: Uint8Array): Promise<'nothing' | 'ours' | 'another' | 'less' | 'unknown'> {
    try {
      const { state } = await jsm.streams.info(stream);
      if (state.last_seq < at) return 'less';
      if (state.last_seq === at) return 'nothing';
      const next = await jsm.streams.getMessage(stream, { seq: at + 1 });
      const isOurs = state.last_seq === at + 1 && next !== null && Buffer.from(next.data).equals(line);
      return isOurs ? 'ours' : 'another';
    } catch {
      return 'unknown';
    }
  }
}

/** The data of the messages with numbers from `first` to `last`. */
export async function readFrom(
  js: JetStreamClient,
  stream: string,
  first: number,
  last: number,
): Promise<Uint8Array[]> {
  const found: Uint8Array[] = [];
  if (first > last) return found;
  const consumer = await js.consumers.get(stream, {
    opt_start_seq: first,
    deliver_policy: 'by_start_sequence',
  });
  while (found.length < last - first + 1) {
    const batch = await consumer.fetch({
      max_messages: Math.min(1000, last - first + 1 - found.length),
      expires: 5000,
    });
    const before = found.length;
    for await (const message of batch) found.push(message.data);
    if (found.length === before) throw lacking(stream, found.length, last - first + 1);
  }
  await consumer.delete();
  return found;
}

function isWrongSequence(error: unknown): boolean {
  return error instanceof JetStreamApiError && WRONG_SEQUENCE.has(error.code);
}

function refused(stream: string, line: Uint8Array, error: unknown): CoordinatorError {
  return new CoordinatorError(
    'FED_STORE_UNAVAILABLE',
    `the NATS server refuses a line of the log of ${line.byteLength} bytes (${(error as Error).message}); look at the limits of ${stream} and at max_payload in its configuration. Nothing that was committed is lost: the same command goes on`,
    { cause: error },
  );
}

function fenced(cause: unknown): CoordinatorError {
  return new CoordinatorError(
    'FED_STORE_LEASE_LOST',
    'this coordinator does not lead any more: another has written to the log in the store. Nothing that was committed is lost, and the run goes on there; the same command, started again, stands by',
    { cause },
  );
}

function lacking(stream: string, has: number | undefined, wanted: number): CoordinatorError {
  return new CoordinatorError(
    'FED_STORE_DAMAGED',
    `the stream ${stream} has lost lines of the log${has === undefined ? '' : `: it holds ${has} of ${wanted}`}. Start the coordinator on the machine whose run directory is the newest; when the stream itself is damaged, remove it first (nats stream rm ${stream}), and it is written anew from there`,
  );
}
