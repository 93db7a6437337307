/**
 * The transport over a NATS server: coordinator and workers both dial it, so that no site opens a port, and each may
 * publish and read only under its own name (the server's permissions see to that). Under a prefix, `tributary`:
 * `hello.NODE` asks the coordinator for a link, `up.NODE.LINK` and `down.NODE.LINK` carry its frames.
 */
import { randomBytes } from 'node:crypto';
import { errors, headers, type Msg, type NatsConnection } from '@nats-io/nats-core';
import { createUser } from '@nats-io/nkeys';
import { ProtocolError } from '../errors.ts';
import { fingerprintOf } from '../tls.ts';
import type { ConnectOptions, Link, Listener, Transport } from '../transport.ts';
import { unreachable } from './dial.ts';
import {
  inOurWords,
  type NatsAddress,
  type NatsCredentials,
  nodeOf,
  openNatsConnection,
  parseNatsAddress,
} from './nats-connection.ts';
import {
  byeFrame,
  createNatsLink,
  FRAME_OVERHEAD_BYTES,
  type Frame,
  isBye,
  type NatsLink,
} from './nats-link.ts';

export type { NatsCredentials } from './nats-connection.ts';
export { seedOf } from './nats-connection.ts';

export interface NatsTransportOptions {
  /**
   * The server that `listen` dials: `tls://host:4222/prefix`, or `nats://` without TLS; of a cluster several, with commas:
   * `tls://a:4222,b:4222/prefix`. Not needed to connect.
   */
  readonly url?: string;
  /** Who this node is to the server. @default nobody, for a server that lets everyone in */
  readonly credentials?: NatsCredentials;
  /** PEM of the authority of the server's certificate; `listen` puts its fingerprint into invites. */
  readonly ca?: string;
  /** Bytes of one head, and of one body. @default 8 MiB */
  readonly maxPayloadBytes?: number;
  /** Body bytes of a blob's chunk; never more than fits one NATS message. @default 1 MiB */
  readonly preferredChunkBytes?: number;
  /**
   * Whether this node may speak and listen at the moment. A coordinator that may have been replaced keeps silent until it
   * knows. @default always
   */
  readonly mayAct?: () => boolean;
  /** Whether `listen` refuses a prefix that another coordinator has; false where a store decides who leads. @default true */
  readonly exclusive?: boolean;
  /** Both ends of a link send a sign of life this often. @default 10_000 millis */
  readonly pingIntervalMs?: number;
  /** A link without one for this long, beyond the interval, is closed. @default 30_000 millis */
  readonly pingTimeoutMs?: number;
}

const MIB = 1024 * 1024;
/** The NATS header that says what a frame is. */
const FRAME_HEADER = 'Frame';
const UNKNOWN_LINK = 'the coordinator does not know this link (any more)';

/**
 * Returns a transport over NATS. Errors of `listen` and `connect`: FED_TRANSPORT_UNREACHABLE (no server, or no
 * coordinator behind it), FED_TRANSPORT_FORBIDDEN (unknown node, or a subject that is not its own),
 * FED_TRANSPORT_FINGERPRINT, FED_TRANSPORT_UNSUPPORTED; of `listen` also FED_TRANSPORT_ADDRESS_IN_USE when another
 * coordinator has the prefix.
 */
export function createNatsTransport(options: NatsTransportOptions = {}): Transport {
  const { credentials, ca, pingIntervalMs = 10_000, pingTimeoutMs = 30_000 } = options;
  const { mayAct = () => true, exclusive = true } = options;
  const maxPayloadBytes = options.maxPayloadBytes ?? 8 * MIB;

  function linkOver(
    connection: NatsConnection,
    facts: { id: string; remoteAddress: string; subject: string },
  ): NatsLink {
    const maxFrameBytes = connection.info?.max_payload ?? MIB;
    return createNatsLink({
      id: facts.id,
      remoteAddress: facts.remoteAddress,
      maxPayloadBytes,
      preferredChunkBytes: Math.min(
        options.preferredChunkBytes ?? MIB,
        maxPayloadBytes,
        maxFrameBytes - FRAME_OVERHEAD_BYTES,
      ),
      maxFrameBytes,
      pingIntervalMs,
      pingTimeoutMs,
      send(frame) {
        if (!connection.isClosed() && mayAct()) publish(connection, facts.subject, frame);
      },
      flush: () => connection.flush(),
    });
  }

  return {
    name: 'nats',
    async listen(onLink) {
      if (options.url === undefined) {
        throw new TypeError('url: give the NATS server to listen at, e.g. tls://192.0.2.7:4222/tributary');
      }
      const address = parseNatsAddress(options.url);
      const { prefix } = address;
      nodeOf(credentials); // a wrong file is told before anything is dialled
      const connection = await connectNatsServer({ url: options.url, credentials, ca });
      try {
        if (exclusive) await refuseSecond(connection, address);
      } catch (error) {
        await connection.close();
        throw error;
      }
      const links = new Map<string, NatsLink>();
      void watch(connection, (reason) => {
        for (const { gone } of links.values()) gone(reason);
      });
      connection.subscribe(`${prefix}.hello.*`, {
        callback(error, message) {
          if (error !== null || message.reply === undefined || !mayAct()) return;
          const node = message.subject.split('.')[2] ?? '';
          const token = tokenIn(message);
          const key = `${node}.${token}`;
          if (token === undefined || links.has(key)) {
            message.respond('{}');
            return;
          }
          const made = linkOver(connection, {
            id: `nats-${key}`,
            remoteAddress: `${address.url}#${node}`,
            subject: `${prefix}.down.${key}`,
          });
          links.set(key, made);
          void made.link.closed.then(() => links.delete(key));
          onLink(made.link);
          message.respond(JSON.stringify({ link: token }));
        },
      });
      // Not `up.*.*`: a leaf node that may publish `up.NODE.>` would not be told that somebody reads it.
      connection.subscribe(`${prefix}.up.>`, {
        callback(error, message) {
          if (error !== null || !mayAct()) return;
          const [, , node, token, ...more] = message.subject.split('.');
          if (more.length > 0) return;
          const known = links.get(`${node}.${token}`);
          const frame = frameIn(message);
          if (known !== undefined) known.receive(frame);
          else if (!isBye(frame))
            publish(connection, `${prefix}.down.${node}.${token}`, byeFrame(UNKNOWN_LINK));
        },
      });
      await connection.flush();
      return {
        url: address.url,
        fingerprint: ca === undefined || !address.secure ? undefined : fingerprintOf(ca),
        async close() {
          await Promise.all([...links.values()].map(({ link }) => link.close('the listener was closed')));
          await connection.drain().catch(() => connection.close());
        },
      } satisfies Listener;
    },
    connect: (url, connectOptions) => dialNats(url, { ...connectOptions, ca, credentials, linkOver }),
  };
}

/** A new user for a NATS server: its public name, and the seed that proves it (keep it readable by its owner only). */
export function createNatsUser(): { readonly node: string; readonly seed: string } {
  const pair = createUser();
  return { node: pair.getPublicKey(), seed: new TextDecoder().decode(pair.getSeed()) };
}

export interface NatsServerOptions {
  /** `tls://host:4222/prefix` */
  readonly url: string;
  readonly credentials?: NatsCredentials | undefined;
  readonly ca?: string | undefined;
}

/** A connection of its own to the server of a federation, as its coordinator has one. Errors as those of `listen`. */
export async function connectNatsServer({
  url,
  credentials,
  ca,
}: NatsServerOptions): Promise<NatsConnection> {
  const address = parseNatsAddress(url);
  const inboxPrefix = `${address.prefix}.inbox`;
  return await openNatsConnection({
    address,
    credentials,
    ca,
    inboxPrefix,
    reconnect: true,
    timeoutMs: 10_000,
  });
}

/** The federation's prefix in the address of a NATS server. */
export function natsPrefix(url: string): string {
  return parseNatsAddress(url).prefix;
}

interface DialNats extends ConnectOptions {
  readonly ca: string | undefined;
  readonly credentials: NatsCredentials | undefined;
  readonly linkOver: (
    connection: NatsConnection,
    facts: { id: string; remoteAddress: string; subject: string },
  ) => NatsLink;
}

async function dialNats(url: string, options: DialNats): Promise<Link> {
  const { ca, credentials, fingerprint, signal, timeoutMs = 10_000, linkOver } = options;
  signal?.throwIfAborted();
  const address = parseNatsAddress(url);
  const { prefix } = address;
  const node = nodeOf(credentials) ?? `anonymous-${randomBytes(8).toString('hex')}`;
  const token = randomBytes(12).toString('hex');
  const own = `${prefix}.down.${node}`;
  const connection = await openNatsConnection({
    address,
    credentials,
    ca,
    fingerprint,
    inboxPrefix: `${own}.inbox`,
    reconnect: false,
    timeoutMs,
    signal,
  });
  const { link, receive, gone } = linkOver(connection, {
    id: `nats-out-${token}`,
    remoteAddress: address.url,
    subject: `${prefix}.up.${node}.${token}`,
  });
  let denied: ((error: Error) => void) | undefined;
  const forbidden = new Promise<never>((_, reject) => {
    denied = reject;
  });
  forbidden.catch(() => undefined);
  void watch(connection, gone, (error) => {
    const complaint = subjectsDenied(address, node, error);
    denied?.(complaint);
    gone(complaint.message);
  });
  void connection
    .closed()
    .then((error) => gone(error?.message ?? 'the connection to the NATS server was closed'));
  connection.subscribe(`${own}.${token}`, {
    callback: (error, message) => {
      if (error === null) receive(frameIn(message));
    },
  });
  void link.closed.then(async () => {
    // What was said last must still get out.
    await connection.flush().catch(() => undefined);
    await connection.close();
  });
  try {
    const asked = connection.request(`${prefix}.hello.${node}`, JSON.stringify({ link: token }), {
      timeout: timeoutMs,
    });
    asked.catch(() => undefined);
    const answer = await Promise.race([asked, forbidden, abortOf(signal)]);
    if (tokenIn(answer) !== token)
      throw unreachable(address.url, 'the coordinator refused the link; dial again');
  } catch (error) {
    void link.close('never opened');
    if (signal?.aborted) throw signal.reason;
    if (isNoResponders(error)) {
      throw unreachable(
        address.url,
        `the NATS server is there, but no coordinator listens on "${prefix}"; check that it runs and uses this server and prefix`,
        error,
      );
    }
    throw isDenied(error) ? subjectsDenied(address, node, error) : inOurWords(address, error);
  }
  return link;
}

/** Two coordinators on one prefix would both answer every site. */
async function refuseSecond(connection: NatsConnection, address: NatsAddress): Promise<void> {
  try {
    await connection.request(`${address.prefix}.hello.coordinator`, '{}', { timeout: 2000 });
  } catch (error) {
    if (isNoResponders(error)) return;
    throw inOurWords(address, error);
  }
  throw new ProtocolError(
    'FED_TRANSPORT_ADDRESS_IN_USE',
    `${address.url}: another coordinator listens on "${address.prefix}" already; stop it, or end the address with another prefix`,
  );
}

/** Tells of each loss of the connection, and of each subject that the server keeps from this node. */
async function watch(
  connection: NatsConnection,
  onLost: (reason: string) => void,
  onDenied: (error: Error) => void = () => undefined,
): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === 'disconnect' || status.type === 'staleConnection') {
      onLost('the connection to the NATS server was lost');
    } else if (status.type === 'error' && isDenied(status.error)) {
      onDenied(status.error);
    }
  }
}

function publish(connection: NatsConnection, subject: string, { label, data }: Frame): void {
  const header = headers();
  header.set(FRAME_HEADER, label);
  connection.publish(subject, data, { headers: header });
}

/** A message as a frame; without our header, as one that the link refuses. */
function frameIn(message: Msg): Frame {
  return { label: message.headers?.get(FRAME_HEADER) ?? '', data: message.data };
}

function tokenIn(message: Msg): string | undefined {
  try {
    const { link } = message.json<{ link?: unknown }>();
    return typeof link === 'string' && /^[0-9a-f]{24}$/.test(link) ? link : undefined;
  } catch {
    return undefined;
  }
}

function subjectsDenied(address: NatsAddress, node: string, cause: unknown): ProtocolError {
  return new ProtocolError(
    'FED_TRANSPORT_FORBIDDEN',
    `${address.url}: the NATS server keeps this node from its subjects (${(cause as Error).message}); its configuration must give ${node} what \`tributary nats-config\` writes`,
    { cause },
  );
}

function isDenied(error: unknown): boolean {
  return [error, (error as { cause?: unknown }).cause].some(
    (one) => one instanceof errors.PermissionViolationError,
  );
}

function isNoResponders(error: unknown): boolean {
  return error instanceof errors.RequestError && error.isNoResponders();
}

function abortOf(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}
