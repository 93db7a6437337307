/**
 * A link over one socket.io socket; both ends use it. Events: `request` (head, body?) with an acknowledgement
 * (head, body?) or ({ code, message, retryable }); `notify` (head, body?); `bye` (reason) asks the
 * other end to hang up, so that all that was sent before it is read.
 */
import type { Duplex } from 'node:stream';
import type { Link, Packet } from '../transport.ts';
import { createLinkCore, type Failure, type LinkFacts, type Reply } from './link-core.ts';

export type LinkSettings = Pick<LinkFacts, 'maxPayloadBytes' | 'preferredChunkBytes'>;

export interface SocketioLinkOptions extends LinkFacts {
  /** The TCP or TLS connection underneath. */
  readonly stream: Duplex;
  /** The engine.io socket: says when it has handed everything to the stream. */
  readonly engine: { on(event: 'drain', listener: () => void): unknown };
}

/** The part of socket.io's server and client sockets that a link needs. */
export interface SocketLike {
  // biome-ignore lint/suspicious/noExplicitAny: socket.io types the arguments of events by hand-written maps
  on(event: string, listener: (...args: any[]) => void): unknown;
  emit(event: string, ...args: unknown[]): unknown;
  disconnect(close?: boolean): unknown;
}

/** A peer that lets this much wait to be read is cut off, for it would fill our memory. */
export const MAX_UNSENT_BYTES = 128 * 1024 * 1024;

/** How long a wanted end may take to reach the other side before the connection is dropped. */
const GOODBYE_MS = 1000;

const MAX_REASON_CHARACTERS = 300;

/** Returns the link over a connected `socket`. Call it before the socket's first event can arrive. */
export function createSocketioLink(socket: SocketLike, options: SocketioLinkOptions): Link {
  const { stream, engine } = options;
  /** Bytes given to engine.io that it has not yet given to the stream. */
  let queuedBytes = 0;
  engine.on('drain', () => {
    queuedBytes = 0;
  });

  function count({ head, body }: Packet): void {
    queuedBytes += head.byteLength + (body?.byteLength ?? 0);
    if (queuedBytes + stream.writableLength <= MAX_UNSENT_BYTES) return;
    drop('the other end reads too slowly');
  }

  function drop(reason: string): void {
    core.gone(reason);
    stream.destroy();
  }

  const core = createLinkCore(options, {
    request(packet, onReply) {
      count(packet);
      socket.emit('request', ...partsOf(packet), (...args: unknown[]) => {
        const reply = replyOf(args);
        if (reply === undefined) drop('the other end sent a reply that is none');
        else onReply(reply);
      });
    },
    notify(packet) {
      count(packet);
      socket.emit('notify', ...partsOf(packet));
    },
    hangUp(reason) {
      return new Promise((resolve) => {
        if (stream.closed) return resolve();
        // The other end hangs up once it has read this and all before it. A dead one can't.
        const timer = setTimeout(() => stream.destroy(), GOODBYE_MS);
        stream.once('close', () => {
          clearTimeout(timer);
          resolve();
        });
        socket.emit('bye', reason.slice(0, MAX_REASON_CHARACTERS));
      });
    },
  });

  socket.on('request', async (...args: unknown[]) => {
    const acknowledge = args.pop();
    const packet = packetOf(args);
    if (packet === undefined || typeof acknowledge !== 'function') {
      return drop('the other end sent a request that is none');
    }
    const reply = await core.receiveRequest(packet);
    if ('failure' in reply) return acknowledge(reply.failure);
    count(reply.packet);
    acknowledge(...partsOf(reply.packet));
  });
  socket.on('notify', (...args: unknown[]) => {
    const packet = packetOf(args);
    if (packet === undefined) drop('the other end sent a notification that is none');
    else core.receiveNotify(packet);
  });
  socket.on('bye', (reason: unknown) => {
    core.gone(typeof reason === 'string' ? reason.slice(0, MAX_REASON_CHARACTERS) : 'the other end hung up');
    socket.disconnect(true);
  });
  socket.on('disconnect', (reason: unknown) => {
    core.gone(inWords(String(reason)));
    // Else the WebSocket would wait another half minute for a dead peer to agree.
    if (reason === 'ping timeout') stream.destroy();
  });
  return core.link;
}

function partsOf({ head, body }: Packet): Uint8Array[] {
  return body === undefined ? [head] : [head, body];
}

/** What arrived, or undefined when it is no packet. The bytes are views of what was received. */
function packetOf(args: readonly unknown[]): Packet | undefined {
  const [head, body] = args;
  if (!(head instanceof Uint8Array) || args.length > 2) return undefined;
  if (body === undefined || body === null) return { head };
  return body instanceof Uint8Array ? { head, body } : undefined;
}

function replyOf(args: readonly unknown[]): Reply | undefined {
  const packet = packetOf(args);
  if (packet !== undefined) return { packet };
  const failure = args[0] as Partial<Failure> | null | undefined;
  if (typeof failure?.code !== 'string' || typeof failure.message !== 'string') return undefined;
  const { code, message, retryable } = failure;
  return { failure: { code, message, retryable: retryable === true } };
}

function inWords(reason: string): string {
  switch (reason) {
    case 'ping timeout':
      return 'no sign of life from the other end';
    case 'io server disconnect':
    case 'io client disconnect':
    case 'client namespace disconnect':
    case 'server namespace disconnect':
      return 'the other end hung up';
    case 'transport close':
      return 'the connection was lost';
    case 'transport error':
      return 'the connection failed';
    default:
      return reason;
  }
}
