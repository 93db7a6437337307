/**
 * What every link does alike: pairing replies with requests, time-outs, abort signals, requests that arrive before
 * there is a handler, limits on what a peer may pile up, and the one end of it all. A transport brings only the wire:
 * how a packet gets across.
 */
import { errorCode, ProtocolError, RemoteError } from '../errors.ts';
import type { Link, Packet, RequestOptions } from '../transport.ts';

/** A request that could not be answered, as it crosses the wire. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

export type Reply = { readonly packet: Packet } | { readonly failure: Failure };

/** What a transport supplies. Nothing here is called after `hangUp`. */
export interface Wire {
  /** Sends a request; `onReply` may be called once, or never. */
  request(packet: Packet, onReply: (reply: Reply) => void): void;
  notify(packet: Packet): void;
  /** Tells the other end why and lets the connection go; resolves when it is gone. */
  hangUp(reason: string): Promise<void>;
}

export interface LinkFacts {
  readonly id: string;
  readonly remoteAddress: string;
  readonly preferredChunkBytes: number;
  /** Bytes of a head, and of a body; a larger one is refused before it is sent. */
  readonly maxPayloadBytes: number;
}

export interface LinkCore {
  readonly link: Link;
  /** To be called for each request that came in. Always resolves: a handler's error becomes a failure. */
  receiveRequest(packet: Packet): Promise<Reply>;
  receiveNotify(packet: Packet): void;
  /** The connection is gone. Rejects what is pending; later calls do nothing. */
  gone(reason: string): void;
}

/** Requests of one peer that may be unanswered at once; a blob takes its window of them, 8 by default. */
export const MAX_CONCURRENT_REQUESTS = 256;

/** Waits longer than this can't be timed by Node; they are as good as none. */
const MAX_TIMER_MS = 2 ** 31 - 1;

interface Pending {
  settle(outcome: Reply | Error): void;
}

/** Returns a link over `wire`, and the calls by which the wire hands over what arrives. */
export function createLinkCore(facts: LinkFacts, wire: Wire): LinkCore {
  const pending = new Set<Pending>();
  const closed = deferred<string>();
  const early: Packet[] = [];
  let gone: string | undefined;
  let answering = 0;
  let handler = deferred<(packet: Packet) => Promise<Packet>>();
  let hasHandler = false;
  let onNotify: ((packet: Packet) => void) | undefined;
  let hangingUp: Promise<void> | undefined;

  const closedError = (): ProtocolError =>
    new ProtocolError('FED_TRANSPORT_CLOSED', `the link to ${facts.remoteAddress} is closed: ${gone}`);

  function end(reason: string): void {
    if (gone !== undefined) return;
    gone = reason;
    early.length = 0;
    for (const one of [...pending]) one.settle(closedError());
    closed.resolve(reason);
  }

  function tooLarge(packet: Packet): ProtocolError | undefined {
    for (const [part, bytes] of [
      ['head', packet.head.byteLength],
      ['body', packet.body?.byteLength ?? 0],
    ] as const) {
      if (bytes <= facts.maxPayloadBytes) continue;
      return new ProtocolError(
        'FED_PROTOCOL_LIMIT',
        `packet: a ${part} of ${bytes} bytes is more than this link carries (${facts.maxPayloadBytes}); send large data as a blob`,
      );
    }
    return undefined;
  }

  function request(packet: Packet, options: RequestOptions = {}): Promise<Packet> {
    const { signal, timeoutMs = 30_000 } = options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    const refusal = tooLarge(packet) ?? (gone === undefined ? undefined : closedError());
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () =>
          one.settle(
            new ProtocolError(
              'FED_TRANSPORT_TIMEOUT',
              `no reply from ${facts.remoteAddress} in ${timeoutMs} ms`,
            ),
          ),
        Math.min(timeoutMs, MAX_TIMER_MS),
      );
      const onAbort = (): void => {
        release();
        reject(signal?.reason);
      };
      const release = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        pending.delete(one);
      };
      const one: Pending = {
        settle(outcome) {
          if (!pending.has(one)) return;
          release();
          if (outcome instanceof Error) reject(outcome);
          else if ('packet' in outcome) resolve(outcome.packet);
          else reject(remoteError(outcome.failure));
        },
      };
      pending.add(one);
      signal?.addEventListener('abort', onAbort, { once: true });
      wire.request(packet, (reply) => one.settle(reply));
    });
  }

  async function answer(packet: Packet): Promise<Reply> {
    try {
      const handle = await handler.promise;
      const reply = await handle(packet);
      const refusal = tooLarge(reply);
      return refusal === undefined ? { packet: reply } : { failure: failureOf(refusal) };
    } catch (error) {
      return { failure: failureOf(error) };
    }
  }

  const link: Link = {
    id: facts.id,
    remoteAddress: facts.remoteAddress,
    preferredChunkBytes: facts.preferredChunkBytes,
    closed: closed.promise,
    request,
    notify(packet) {
      const refusal = tooLarge(packet);
      if (refusal !== undefined) throw refusal;
      if (gone === undefined) wire.notify(packet);
    },
    onRequest(next) {
      if (hasHandler) handler = deferred();
      hasHandler = true;
      handler.resolve(next);
    },
    onNotify(next) {
      onNotify = next;
      for (const packet of early.splice(0)) next(packet);
    },
    close(reason = 'closed on purpose') {
      if (gone === undefined) {
        end(reason);
        hangingUp = wire.hangUp(reason);
      }
      return hangingUp ?? Promise.resolve();
    },
  };

  return {
    link,
    async receiveRequest(packet) {
      if (answering >= MAX_CONCURRENT_REQUESTS) {
        return {
          failure: {
            code: 'FED_PROTOCOL_LIMIT',
            message: `more than ${MAX_CONCURRENT_REQUESTS} requests of this link are unanswered`,
            retryable: true,
          },
        };
      }
      answering += 1;
      try {
        return await answer(packet);
      } finally {
        answering -= 1;
      }
    },
    receiveNotify(packet) {
      if (gone !== undefined) return;
      if (onNotify !== undefined) onNotify(packet);
      else if (early.length < MAX_CONCURRENT_REQUESTS) early.push(packet);
    },
    gone: end,
  };
}

/**
 * An error as the peer may see it. Only errors of ours (FED_…) are told in full: the message of any other may hold
 * paths or data of this machine, which do not concern the other end.
 */
export function failureOf(error: unknown): Failure {
  const code = errorCode(error);
  if (code === undefined || !code.startsWith('FED_')) {
    return { code: 'FED_INTERNAL', message: 'the other end failed; its log says why', retryable: false };
  }
  const { message, retryable } = error as { message?: unknown; retryable?: unknown };
  return { code, message: typeof message === 'string' ? message : code, retryable: retryable === true };
}

function remoteError({ code, message, retryable }: Failure): RemoteError {
  return new RemoteError(code, message, retryable);
}

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
