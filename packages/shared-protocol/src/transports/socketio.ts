/**
 * The embedded transport: the coordinator is a socket.io server, each worker one WebSocket. Heads and bodies travel as
 * binary attachments, replies as acknowledgements; docs/protocol.md has the events. socket.io's own reconnection and
 * state recovery are off: a link ends once, and the agent dials again.
 */
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { Server } from 'socket.io';
import { ProtocolError } from '../errors.ts';
import { fingerprintOf } from '../tls.ts';
import type { Link, Transport } from '../transport.ts';
import { connectSocketio } from './socketio-client.ts';
import { createSocketioLink, type LinkSettings } from './socketio-link.ts';

export interface SocketioTransportOptions {
  /** Address to listen on; `0.0.0.0` for all. Not needed to connect. @default '127.0.0.1' */
  readonly host?: string;
  /** Port to listen on; 0 takes a free one. @default 0 */
  readonly port?: number;
  /** Host in `Listener.url`, for machines behind another name. @default host, or this machine's first address */
  readonly publicHost?: string;
  /** PEM texts to listen with; `false` asks for plain HTTP. Not needed to connect. */
  readonly tls?: { readonly key: string; readonly cert: string } | false;
  /** Bytes of one head, and of one body; a peer that sends more is cut off. @default 8 MiB */
  readonly maxPayloadBytes?: number;
  /** Body bytes of a blob's chunk. @default 1 MiB */
  readonly preferredChunkBytes?: number;
  /** The listener asks for a sign of life this often. @default 10_000 millis */
  readonly pingIntervalMs?: number;
  /** A link without one for this long after being asked is closed. @default 30_000 millis */
  readonly pingTimeoutMs?: number;
}

/** Where the WebSocket lives on the server; also to be routed by a reverse proxy. */
export const SOCKETIO_PATH = '/tributary/';

/** Answers 200 to whoever asks whether the listener is up; says nothing of the run. */
const HEALTH_PATH = '/health';

const MIB = 1024 * 1024;
/** Time to get from TCP to a link. */
const HANDSHAKE_MS = 10_000;

/**
 * Returns a transport over socket.io.
 *
 * `listen` throws TypeError when `tls` was left out, FED_TRANSPORT_ADDRESS_IN_USE, and what the system says about other
 * addresses. `connect` takes https:// and http:// URLs and throws FED_TRANSPORT_UNREACHABLE or
 * FED_TRANSPORT_FINGERPRINT; it sends nothing before a pinned certificate is verified.
 */
export function createSocketioTransport(options: SocketioTransportOptions = {}): Transport {
  const { host = '127.0.0.1', port = 0, tls, pingIntervalMs = 10_000, pingTimeoutMs = 30_000 } = options;
  const settings: LinkSettings = {
    maxPayloadBytes: options.maxPayloadBytes ?? 8 * MIB,
    preferredChunkBytes: Math.min(options.preferredChunkBytes ?? MIB, options.maxPayloadBytes ?? 8 * MIB),
  };

  return {
    name: 'socketio',
    connect: (url, connectOptions) =>
      connectSocketio(url, { ...connectOptions, path: SOCKETIO_PATH, settings }),
    async listen(onLink) {
      if (tls === undefined) {
        throw new TypeError('tls: give { key, cert } to listen, or false to ask for plain HTTP');
      }
      const https = tls === false ? undefined : createHttpsServer({ ...tls, minVersion: 'TLSv1.3' });
      const http = https ?? createHttpServer();
      let fingerprint = tls === false ? undefined : fingerprintOf(tls.cert);
      http.on('request', (request, response) => {
        if (request.url === HEALTH_PATH && (request.method === 'GET' || request.method === 'HEAD')) {
          // Answered by the loop that carries the links: while that is stuck, so is this.
          response.writeHead(200, { 'content-type': 'text/plain', 'cache-control': 'no-store' });
          response.end('ok\n');
          return;
        }
        response.writeHead(404, { 'content-type': 'text/plain' });
        response.end('A Tributary coordinator listens here, for workers only.\n');
      });
      // Also those that have upgraded but not joined, which no other list has.
      const streams = new Set<Socket>();
      http.on('connection', (stream) => {
        streams.add(stream);
        stream.once('close', () => streams.delete(stream));
      });
      await listenOn(http, host, port);
      const io = new Server(http, {
        path: SOCKETIO_PATH,
        transports: ['websocket'],
        allowUpgrades: false,
        perMessageDeflate: false,
        httpCompression: false,
        serveClient: false,
        connectTimeout: HANDSHAKE_MS,
        pingInterval: pingIntervalMs,
        pingTimeout: pingTimeoutMs,
        maxHttpBufferSize: settings.maxPayloadBytes,
      });
      const links = new Set<Link>();
      io.on('connection', (socket) => {
        const { remoteAddress = 'unknown', remotePort } = socket.request.socket;
        const link = createSocketioLink(socket, {
          ...settings,
          id: `socketio-${socket.id}`,
          remoteAddress: `${remoteAddress}:${remotePort}`,
          stream: socket.request.socket,
          engine: socket.conn,
        });
        links.add(link);
        void link.closed.then(() => links.delete(link));
        onLink(link);
      });
      const { port: boundPort } = http.address() as AddressInfo;
      const scheme = tls === false ? 'http' : 'https';
      return {
        url: `${scheme}://${hostInUrl(options.publicHost ?? dialableHost(host))}:${boundPort}`,
        get fingerprint() {
          return fingerprint;
        },
        ...(https === undefined
          ? {}
          : {
              renew(next: { readonly key: string; readonly cert: string }) {
                https.setSecureContext({ ...next, minVersion: 'TLSv1.3' });
                fingerprint = fingerprintOf(next.cert);
              },
            }),
        async close() {
          await Promise.all([...links].map((link) => link.close('the listener was closed')));
          const closed = io.close();
          for (const stream of streams) stream.destroy();
          await closed;
        },
      };
    },
  };
}

function listenOn(http: HttpServer, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    http.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EADDRINUSE') return reject(error);
      reject(
        new ProtocolError(
          'FED_TRANSPORT_ADDRESS_IN_USE',
          `${hostInUrl(host)}:${port} is in use by another program; stop it, or choose another port (0 takes a free one)`,
          { cause: error },
        ),
      );
    });
    http.listen(port, host, resolve);
  });
}

/** "All addresses" can be listened on but not dialled. */
function dialableHost(host: string): string {
  if (host !== '0.0.0.0' && host !== '::') return host;
  const addresses = Object.values(networkInterfaces()).flatMap((one) => one ?? []);
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
}

function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
