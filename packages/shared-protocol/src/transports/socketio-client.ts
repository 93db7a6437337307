/** The dialling side of the socket.io transport. */
import type { Socket as NetSocket } from 'node:net';
import { io, NodeWebSocket } from 'socket.io-client';
import { type ClientOptions, WebSocket } from 'ws';
import type { ConnectOptions, Link } from '../transport.ts';
import { dial, unreachable } from './dial.ts';
import { createSocketioLink, type LinkSettings } from './socketio-link.ts';

export interface ConnectSocketioOptions extends ConnectOptions {
  readonly path: string;
  readonly settings: LinkSettings;
}

let linkCount = 0;

/** Dials, verifies, upgrades to a WebSocket and joins; see `createSocketioTransport` for the errors. */
export async function connectSocketio(address: string, options: ConnectSocketioOptions): Promise<Link> {
  const { fingerprint, signal, timeoutMs = 10_000, path, settings } = options;
  signal?.throwIfAborted();
  const url = parseUrl(address);
  const stop = new AbortController();
  const onAbort = (): void => stop.abort(signal?.reason);
  const timer = setTimeout(
    () =>
      stop.abort(
        unreachable(
          url.origin,
          `no answer in ${timeoutMs} ms; check the network, the VPN and the firewalls in between`,
        ),
      ),
    timeoutMs,
  );
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const stream = await dial(url, { fingerprint, signal: stop.signal });
    try {
      return await join(url, stream, path, settings, stop.signal);
    } catch (error) {
      stream.destroy();
      throw error;
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

function join(
  url: URL,
  stream: NetSocket,
  path: string,
  settings: LinkSettings,
  signal: AbortSignal,
): Promise<Link> {
  const socket = io(url.origin, {
    path,
    transports: [webSocketOver(stream, settings.maxPayloadBytes)],
    reconnection: false,
    forceNew: true,
    autoConnect: false,
    // Time-outs are ours: one for all of dialling.
    timeout: 2 ** 31 - 1,
  });
  return new Promise((resolve, reject) => {
    let joined = false;
    const fail = (error: unknown): void => {
      if (joined) return;
      signal.removeEventListener('abort', onAbort);
      socket.disconnect();
      reject(error);
    };
    const onAbort = (): void => fail(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('connect_error', (error) => {
      fail(
        unreachable(
          url.origin,
          `no Tributary coordinator answers there (${causeOf(error)}); check host and port`,
          error,
        ),
      );
    });
    // The engine exists from the moment of `connect`, and events can come as soon as we are connected.
    socket.connect();
    linkCount += 1;
    const link = createSocketioLink(socket, {
      ...settings,
      id: `socketio-out-${linkCount}`,
      remoteAddress: url.origin,
      stream,
      engine: socket.io.engine,
    });
    socket.once('connect', () => {
      joined = true;
      signal.removeEventListener('abort', onAbort);
      resolve(link);
    });
    // A connection lost between the upgrade and the greeting.
    void link.closed.then((reason) => fail(unreachable(url.origin, reason)));
  });
}

/**
 * engine.io's WebSocket, over a connection that is already open and verified.
 *
 * Its mask is all zeros, which `ws` recognises at both ends and skips. Masks are there so that a script in a browser
 * can't choose the bytes that an old proxy sees (RFC 6455, section 10.3); this is no browser, what we send is not
 * chosen by a third party, and under TLS no proxy sees it. At 40 MB an update the exclusive-or is worth saving.
 */
function webSocketOver(stream: NetSocket, maxPayload: number): typeof NodeWebSocket {
  return class extends NodeWebSocket {
    override createSocket(
      uri: string,
      protocols: string | string[] | undefined,
      options: ClientOptions,
    ): WebSocket {
      return new WebSocket(uri, protocols, {
        ...options,
        // An agent, even `false`, would open a connection of its own and ignore ours.
        agent: undefined,
        createConnection: () => stream,
        generateMask: (mask) => mask.fill(0),
        maxPayload,
        perMessageDeflate: false,
      });
    }
  };
}

function parseUrl(address: string): URL {
  try {
    return new URL(address);
  } catch (cause) {
    throw unreachable(address, 'this is not an address; it should look like https://192.0.2.7:7700', cause);
  }
}

/** engine.io wraps what happened twice. */
function causeOf(error: Error & { description?: unknown }): string {
  const { description } = error;
  const inner = (description as { message?: unknown } | undefined)?.message;
  return typeof inner === 'string' ? inner : error.message;
}
