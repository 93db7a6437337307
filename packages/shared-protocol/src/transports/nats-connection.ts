/**
 * One connection to a NATS server: address, TLS with a pinned certificate, the node's key, and what the server must be
 * able to do. Everything that can be wrong with it becomes an error that says what to check.
 */
import { createHash, type X509Certificate } from 'node:crypto';
import { isIP, connect as netConnect } from 'node:net';
import { checkServerIdentity, type PeerCertificate, connect as tlsConnect } from 'node:tls';
import type { Authenticator, NatsConnection } from '@nats-io/nats-core';
import { fromSeed } from '@nats-io/nkeys';
import { credsAuthenticator, nkeyAuthenticator } from '@nats-io/transport-node';
import { serverAddresses } from '../addresses.ts';
import { errorCode, ProtocolError } from '../errors.ts';
import { unreachable } from './dial.ts';
import { connectNats } from './nats-client.ts';

/** Who a node is to the NATS server: the text of its nkey seed file or of its credentials file. */
export type NatsCredentials = { readonly nkeySeed: string } | { readonly creds: string };

export interface NatsConnectionOptions {
  readonly address: NatsAddress;
  readonly credentials?: NatsCredentials | undefined;
  /** PEM of the authority that the server's certificate must come from. @default this machine's authorities */
  readonly ca?: string | undefined;
  /** SHA-256 (lower-case hex) of one certificate in the server's chain, which then is the authority. */
  readonly fingerprint?: string | undefined;
  /** Subjects that replies come on. */
  readonly inboxPrefix: string;
  /** Whether to come back by itself when the connection is lost. */
  readonly reconnect: boolean;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** `tls://host:4222/federation`: where the servers are, and the first token of all subjects. */
export interface NatsAddress {
  readonly url: string;
  /** At least one; all of one cluster. */
  readonly servers: readonly NatsServerAddress[];
  readonly secure: boolean;
  readonly prefix: string;
}

export interface NatsServerAddress {
  readonly host: string;
  readonly port: number;
}

/** Older servers lack what we rely on: no-responders replies, and JetStream as the current client speaks it. */
const MIN_SERVER = [2, 9, 0] as const;
const DEFAULT_PORT = 4222;
const PREFIX = /^[A-Za-z0-9_-]{1,64}$/;

/** The parts of `nats://` or `tls://` `host[:port][,host[:port]…]/[prefix]`. Throws FED_TRANSPORT_UNREACHABLE, saying what is wrong. */
export function parseNatsAddress(text: string): NatsAddress {
  const [url, ...more] = serverAddresses(text).map((one) => parseUrl(text, one)) as [URL, ...URL[]];
  const secure = url.protocol === 'tls:';
  if (!secure && url.protocol !== 'nats:') {
    throw unreachable(text, 'the address of a NATS server starts with tls:// (or nats://, without TLS)');
  }
  const prefix = url.pathname.replace(/^\//, '') || 'tributary';
  if (!PREFIX.test(prefix)) {
    throw unreachable(
      text,
      `"${prefix}" can't begin a subject: letters, digits, - and _ only, without slashes`,
    );
  }
  const all = [url, ...more];
  const servers = all.map((one) => ({
    host: one.hostname.replace(/^\[|\]$/g, ''),
    port: Number(one.port) || DEFAULT_PORT,
  }));
  const hosts = all.map((one) => one.host).join(',');
  return { url: `${url.protocol}//${hosts}/${prefix}`, servers, secure, prefix };
}

function parseUrl(text: string, one: string): URL {
  try {
    return new URL(one);
  } catch (cause) {
    throw unreachable(
      text,
      'this is not an address; it should look like tls://192.0.2.7:4222/tributary, or with the servers of a cluster, tls://a:4222,b:4222/tributary',
      cause,
    );
  }
}

/** The public key of the node in `credentials`, which the server's permissions go by; undefined without any. */
export function nodeOf(credentials: NatsCredentials | undefined): string | undefined {
  return credentials && fromSeed(seedOf(credentials)).getPublicKey();
}

/** The seed of the node's key: the text of its line, as bytes. Throws FED_TRANSPORT_FORBIDDEN when there is none. */
export function seedOf(credentials: NatsCredentials): Uint8Array {
  try {
    const seed = seedIn(credentials);
    fromSeed(seed);
    return seed;
  } catch (cause) {
    throw new ProtocolError(
      'FED_TRANSPORT_FORBIDDEN',
      'the credentials for the NATS server hold no user seed (a line that starts with SU); give the file that `tributary nats-config`, nk or nsc wrote',
      { cause },
    );
  }
}

/**
 * Opens a connection. Rejects with FED_TRANSPORT_UNREACHABLE, FED_TRANSPORT_FINGERPRINT, FED_TRANSPORT_FORBIDDEN (the
 * server knows no such user), FED_TRANSPORT_UNSUPPORTED (too old a server), or the signal's reason.
 */
export async function openNatsConnection(options: NatsConnectionOptions): Promise<NatsConnection> {
  const { address, inboxPrefix, reconnect, timeoutMs, signal } = options;
  signal?.throwIfAborted();
  const tls = await tlsOptions(options);
  const connecting = connectNats({
    servers: address.servers.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`),
    inboxPrefix,
    reconnect,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 500,
    timeout: timeoutMs,
    pingInterval: 20_000,
    maxPingOut: 2,
    noEcho: true,
    ignoreAuthErrorAbort: true,
    tls,
    ...authentication(options.credentials),
  }).catch((error: unknown) => {
    throw inOurWords(address, error);
  });
  const connection = await untilAborted(connecting, signal);
  const version = connection.info?.version ?? '0.0.0';
  if (isOlder(version)) {
    await connection.close();
    throw new ProtocolError(
      'FED_TRANSPORT_UNSUPPORTED',
      `${address.url}: this NATS server is version ${version}; ${MIN_SERVER.join('.')} or later is needed`,
    );
  }
  return connection;
}

interface TlsOptions {
  readonly ca?: string;
  readonly checkServerIdentity: (host: string, certificate: PeerCertificate) => Error | undefined;
}

async function tlsOptions(options: NatsConnectionOptions): Promise<TlsOptions | null> {
  const { address, ca, fingerprint, signal, timeoutMs } = options;
  if (!address.secure) {
    if (fingerprint === undefined) return null;
    throw new ProtocolError(
      'FED_TRANSPORT_FINGERPRINT',
      `${address.url}: expected the certificate ${fingerprint}, but nats:// has none; dial the tls:// address`,
    );
  }
  const named = { checkServerIdentity: nameCheck(address) };
  if (fingerprint === undefined) return ca === undefined ? named : { ca, ...named };
  const { pem, isLeaf } = await pinnedCertificate(address, fingerprint, timeoutMs, signal);
  // A pin is stricter than a name where the server itself is pinned.
  return { ca: pem, ...(isLeaf ? { checkServerIdentity: () => undefined } : named) };
}

/**
 * Whether a certificate is for the server that was dialled. Of one that was dialled by its number, Node tells the name
 * "localhost"; its certificate must then be for one of the numbers in the address.
 */
function nameCheck({ servers }: NatsAddress): TlsOptions['checkServerIdentity'] {
  const hosts = servers.map(({ host }) => host);
  const numbers = hosts.filter((host) => isIP(host) !== 0);
  return (host, certificate) => {
    if (host !== 'localhost' || hosts.includes(host) || numbers.length === 0)
      return checkServerIdentity(host, certificate);
    const problems = numbers.map((number) => checkServerIdentity(number, certificate));
    return problems.includes(undefined) ? undefined : problems[0];
  };
}

/** The pinned certificate, as the first server that answers shows it. */
async function pinnedCertificate(
  address: NatsAddress,
  fingerprint: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<PinnedCertificate> {
  let problem: unknown;
  for (const server of address.servers) {
    try {
      return await certificateShownBy(server, address, fingerprint, timeoutMs, signal);
    } catch (error) {
      if (signal?.aborted || errorCode(error) !== 'FED_TRANSPORT_UNREACHABLE') throw error;
      problem = error;
    }
  }
  throw problem;
}

interface PinnedCertificate {
  readonly pem: string;
  /** Whether it is the server's own, and not its authority's. */
  readonly isLeaf: boolean;
}

/** The certificate with that SHA-256 in the chain which the server shows; its digest is what makes it trustworthy. */
function certificateShownBy(
  server: NatsServerAddress,
  address: NatsAddress,
  fingerprint: string,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<PinnedCertificate> {
  return new Promise((resolve, reject) => {
    const socket = netConnect(server);
    const done = (outcome: () => void): void => {
      signal?.removeEventListener('abort', onAbort);
      socket.removeAllListeners();
      socket.on('error', () => {});
      socket.destroy();
      outcome();
    };
    const fail = (error: Error): void => done(() => reject(inOurWords(address, error)));
    const onAbort = (): void => done(() => reject(signal?.reason));
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.setTimeout(timeoutMs, () => fail(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })));
    socket.once('error', fail);
    socket.once('close', () =>
      fail(Object.assign(new Error('the connection was cut'), { code: 'ECONNRESET' })),
    );
    // The server speaks first, in clear: INFO and a line's end. Then TLS begins.
    socket.once('data', () => {
      const secured = tlsConnect({ socket, rejectUnauthorized: false }, () => {
        let certificate = secured.getPeerX509Certificate();
        const seen: string[] = [];
        for (let depth = 0; certificate !== undefined && depth < 8; depth++) {
          const digest = createHash('sha256').update(certificate.raw).digest('hex');
          seen.push(digest);
          if (digest === fingerprint) {
            const pem = certificate.toString();
            return done(() => resolve({ pem, isLeaf: depth === 0 }));
          }
          certificate = issuerOf(certificate);
        }
        done(() =>
          reject(
            new ProtocolError(
              'FED_TRANSPORT_FINGERPRINT',
              `${address.url}: expected a certificate with the SHA-256 ${fingerprint}, but saw ${seen.join(', ') || 'none'}. Nothing was sent. Either this is not your federation's NATS server, or it has a new certificate: ask for a new invite`,
            ),
          ),
        );
      });
      secured.once('error', fail);
    });
  });
}

function issuerOf(certificate: X509Certificate): X509Certificate | undefined {
  const issuer = certificate.issuerCertificate;
  return issuer === undefined || issuer.fingerprint256 === certificate.fingerprint256 ? undefined : issuer;
}

function authentication(credentials: NatsCredentials | undefined): { authenticator?: Authenticator } {
  if (credentials === undefined) return {};
  const bytes = new TextEncoder();
  return 'creds' in credentials
    ? { authenticator: credsAuthenticator(bytes.encode(credentials.creds)) }
    : { authenticator: nkeyAuthenticator(seedIn(credentials)) };
}

/** The line with a user's seed, also among comments and the armour of a credentials file. */
function seedIn(credentials: NatsCredentials): Uint8Array {
  const text = 'creds' in credentials ? credentials.creds : credentials.nkeySeed;
  const seed = /^\s*(SU[A-Z2-7]{56})\s*$/m.exec(text)?.[1];
  if (seed === undefined) throw new TypeError('no user seed');
  return new TextEncoder().encode(seed);
}

function isOlder(version: string): boolean {
  const parts = version.split('.').map((part) => Number.parseInt(part, 10) || 0);
  for (const [index, least] of MIN_SERVER.entries()) {
    const actual = parts[index] ?? 0;
    if (actual !== least) return actual < least;
  }
  return false;
}

async function untilAborted(
  connecting: Promise<NatsConnection>,
  signal: AbortSignal | undefined,
): Promise<NatsConnection> {
  if (signal === undefined) return connecting;
  let onAbort = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([connecting, aborted]);
  } catch (error) {
    if (signal.aborted) connecting.then((late) => late.close()).catch(() => undefined);
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** What the client or the system said, with what to check. */
export function inOurWords(address: NatsAddress, error: unknown): ProtocolError {
  if (error instanceof ProtocolError) return error;
  const { name = '', message = String(error) } = error as Partial<Error>;
  const cause = (error as { cause?: unknown }).cause ?? error;
  const code = (error as { code?: string }).code ?? (cause as { code?: string }).code ?? '';
  if (/authorization|authentication/i.test(`${name} ${message}`)) {
    return new ProtocolError(
      'FED_TRANSPORT_FORBIDDEN',
      `${address.url}: the NATS server does not let this node in (${message}); give the key or credentials file that was made for it, and check that the server's configuration names it`,
      { cause: error },
    );
  }
  if (/CERT|SELF_SIGNED|ERR_TLS|ERR_SSL|UNABLE_TO/.test(code) || /certificate/i.test(message)) {
    return unreachable(
      address.url,
      `no trusted TLS connection (${code || message}); give the authority of the server's certificate, or use an invite that pins it`,
      error,
    );
  }
  const advice =
    code === 'ECONNREFUSED' || /refused/.test(message)
      ? 'nobody listens there; check that the NATS server runs, and that host and port are right'
      : code === 'ENOTFOUND' || code === 'EAI_AGAIN'
        ? 'this host name is not known here; check its spelling and the DNS of this machine'
        : `no NATS server answers there (${message}${code === '' ? '' : `, ${code}`}); check the address, the network and the firewalls in between`;
  return unreachable(address.url, advice, error);
}
