/**
 * Blobs: bytes known by their SHA-256, pulled chunk by chunk by whoever wants them. The receiver sets the pace (a
 * window of requests in flight, none before the sink took the last chunk) and remembers what it has, so back-pressure
 * and resumption are the same over every transport (docs/adr/0002-pulled-blobs.md).
 */

import type { BlobSink } from './blob-sinks.ts';
import type { Channel } from './channel.ts';
import { ProtocolError } from './errors.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import type { BlobRef } from './messages.ts';

/** Chunks of one blob; bounds the requests that a ref of tiny chunks would cost. */
export const MAX_CHUNKS = 1_048_576;

/** What a line carries in this time may be on its way. */
const IN_FLIGHT_MS = 2000;
/** Chunks on their way before the line's speed is known. */
const FIRST_WINDOW = 4;

export interface FetchBlobOptions {
  /** Rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /**
   * The most chunks that are asked for but not yet written, so memory is `window * chunkBytes`. On a slow line there are
   * fewer, two at least: about what it carries in two seconds, because whatever else is sent waits behind them. @default 8
   */
  readonly window?: number;
  /** Called after each chunk that the sink took, with the bytes it has in all. */
  readonly onProgress?: (bytes: number) => void;
  /** Rejects with FED_TRANSPORT_TIMEOUT when the sink waits and no chunk comes for this long. @default 30_000 millis */
  readonly idleTimeoutMs?: number;
  /** @default DEFAULT_LIMITS */
  readonly limits?: Limits;
}

/**
 * Resolves once the sink has all of the blob and found its digest right. Chunks reach the sink in order, starting at
 * `sink.resumeAtChunk`; the sink is closed, keeping what it can resume from, when anything fails.
 *
 * Rejects with FED_PROTOCOL_LIMIT for a ref beyond the limits (before anything is asked for), FED_PROTOCOL_CHUNK for a
 * chunk that is not the one asked for or not of the right length, FED_PROTOCOL_BLOB_DIGEST when the whole is wrong
 * (fetched afresh once if its beginning came from an earlier attempt), RemoteError when the peer refuses
 * (FED_PROTOCOL_BLOB_UNKNOWN), FED_TRANSPORT_CLOSED, FED_TRANSPORT_TIMEOUT.
 */
export async function fetchBlob(
  channel: Channel,
  ref: BlobRef,
  sink: BlobSink,
  options: FetchBlobOptions = {},
): Promise<void> {
  try {
    options.signal?.throwIfAborted();
    checkRef(ref, options.limits);
    const resumed = sink.resumeAtChunk > 0;
    await fetchChunks(channel, ref, sink, options);
    try {
      await sink.finish(ref.digest);
    } catch (error) {
      if (!resumed || !isDigestError(error) || sink.restart === undefined) throw error;
      // What was there before may have been the beginning of other bytes; the peer is to blame only for its own.
      await sink.restart();
      await fetchChunks(channel, ref, sink, options);
      await sink.finish(ref.digest);
    }
  } catch (error) {
    await sink.close?.();
    throw error;
  }
}

/** Throws FED_PROTOCOL_LIMIT when a blob as declared is more than `limits` allow. Call it before allocating. */
export function checkRef(ref: BlobRef, limits: Limits = DEFAULT_LIMITS): void {
  const refuse = (problem: string): never => {
    throw new ProtocolError('FED_PROTOCOL_LIMIT', `blob ${shortDigest(ref.digest)}: ${problem}`);
  };
  if (!Number.isSafeInteger(ref.bytes) || ref.bytes < 0) refuse(`${ref.bytes} bytes is no length`);
  if (!Number.isSafeInteger(ref.chunkBytes) || ref.chunkBytes < 1) {
    refuse(`chunks of ${ref.chunkBytes} bytes are no chunks`);
  }
  if (ref.bytes > limits.maxBlobBytes)
    refuse(`${ref.bytes} bytes, more than the limit of ${limits.maxBlobBytes}`);
  if (ref.chunkBytes > limits.maxChunkBytes) {
    refuse(`chunks of ${ref.chunkBytes} bytes, more than the limit of ${limits.maxChunkBytes}`);
  }
  if (chunkCount(ref) > MAX_CHUNKS) refuse(`${chunkCount(ref)} chunks, more than the limit of ${MAX_CHUNKS}`);
}

/** Chunks in the blob; 0 for an empty one. Each has `chunkBytes`, the last one what is left. */
export function chunkCount({ bytes, chunkBytes }: BlobRef): number {
  return Math.ceil(bytes / chunkBytes);
}

export function chunkLength({ bytes, chunkBytes }: BlobRef, index: number): number {
  return Math.min(chunkBytes, bytes - index * chunkBytes);
}

/** Enough of a digest for a person to tell blobs apart. */
export function shortDigest(digest: string): string {
  return digest.slice(0, 12);
}

async function fetchChunks(
  channel: Channel,
  ref: BlobRef,
  sink: BlobSink,
  { signal, window = 8, onProgress, idleTimeoutMs = 30_000 }: FetchBlobOptions,
): Promise<void> {
  if (!Number.isSafeInteger(window) || window < 1) throw new RangeError(`window: ${window} is not 1 or more`);
  const count = chunkCount(ref);
  const stop = new AbortController();
  const onAbort = (): void => stop.abort(signal?.reason);
  signal?.addEventListener('abort', onAbort, { once: true });
  const inFlight: Promise<Uint8Array>[] = [];
  let nextIndex = sink.resumeAtChunk;
  let waiting: NodeJS.Timeout | undefined;
  let allowed = Math.min(window, FIRST_WINDOW);
  let chunkMs: number | undefined;
  let lastChunkAt: number | undefined;

  /** One more chunk is here: how many may be on their way goes by how long chunks have been taking. */
  const pace = (): void => {
    const now = performance.now();
    if (lastChunkAt !== undefined) {
      const ms = now - lastChunkAt;
      chunkMs = chunkMs === undefined ? ms : 0.75 * chunkMs + 0.25 * ms;
      allowed = Math.min(window, Math.max(2, Math.floor(IN_FLIGHT_MS / chunkMs)));
    }
    lastChunkAt = now;
  };
  const ask = async (index: number): Promise<Uint8Array> => {
    const { message, body } = await channel.callWithBody(
      { type: 'chunk', digest: ref.digest, index },
      'chunk-data',
      // Several chunks share the line: only the idle time-out below knows whether it moves.
      { signal: stop.signal, timeoutMs: Number.POSITIVE_INFINITY },
    );
    waiting?.refresh();
    checkChunk(ref, index, message, body);
    return body;
  };
  const onIdle = (): void =>
    stop.abort(
      new ProtocolError(
        'FED_TRANSPORT_TIMEOUT',
        `blob ${shortDigest(ref.digest)}: no chunk from ${channel.link.remoteAddress} in ${idleTimeoutMs} ms`,
      ),
    );

  try {
    for (let index = sink.resumeAtChunk; index < count; index++) {
      while (nextIndex < count && inFlight.length < allowed) {
        const chunk = ask(nextIndex++);
        // Awaited below in order; until then a failure must not count as unhandled.
        chunk.catch(() => {});
        inFlight.push(chunk);
      }
      waiting = setTimeout(onIdle, Math.min(idleTimeoutMs, 2 ** 31 - 1));
      const bytes = await (inFlight.shift() as Promise<Uint8Array>);
      clearTimeout(waiting);
      waiting = undefined;
      pace();
      await sink.write(bytes, index * ref.chunkBytes);
      stop.signal.throwIfAborted();
      onProgress?.(index * ref.chunkBytes + bytes.byteLength);
    }
  } finally {
    clearTimeout(waiting);
    signal?.removeEventListener('abort', onAbort);
    stop.abort();
  }
}

function checkChunk(
  ref: BlobRef,
  index: number,
  answer: { digest: string; index: number },
  body: Uint8Array,
): void {
  const refuse = (problem: string): never => {
    throw new ProtocolError(
      'FED_PROTOCOL_CHUNK',
      `blob ${shortDigest(ref.digest)}, chunk ${index} of ${chunkCount(ref)}: ${problem}`,
    );
  };
  if (answer.digest !== ref.digest) refuse(`a chunk of blob ${shortDigest(answer.digest)} came instead`);
  if (answer.index !== index) refuse(`chunk ${answer.index} came instead`);
  const expected = chunkLength(ref, index);
  if (body.byteLength !== expected) refuse(`${body.byteLength} bytes came instead of ${expected}`);
}

function isDigestError(error: unknown): boolean {
  return error instanceof ProtocolError && error.code === 'FED_PROTOCOL_BLOB_DIGEST';
}
