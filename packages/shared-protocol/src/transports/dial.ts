/**
 * Opens the TCP or TLS connection under a WebSocket, and checks the pinned certificate before a single byte of HTTP
 * is written: a stranger at the address learns nothing, not even that a worker called.
 */
import { isIP, connect as netConnect, type Socket } from 'node:net';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import { ProtocolError } from '../errors.ts';
import { fingerprintOf } from '../tls.ts';

export interface DialOptions {
  /** SHA-256 of the certificate in lower-case hex. Without it, https is checked against this machine's authorities. */
  readonly fingerprint?: string | undefined;
  readonly signal: AbortSignal;
}

/**
 * Resolves with an open, verified connection to the host of `url` (http or https). The caller owns it.
 *
 * Rejects with FED_TRANSPORT_FINGERPRINT, FED_TRANSPORT_UNREACHABLE, or the signal's reason.
 */
export function dial(url: URL, { fingerprint, signal }: DialOptions): Promise<Socket> {
  const secure = url.protocol === 'https:';
  if (!secure && url.protocol !== 'http:') {
    return Promise.reject(unreachable(url.href, 'the address must start with https:// (or http://)'));
  }
  if (!secure && fingerprint !== undefined) {
    return Promise.reject(
      new ProtocolError(
        'FED_TRANSPORT_FINGERPRINT',
        `${url.origin}: expected the certificate ${fingerprint}, but http:// has none; dial the https:// address`,
      ),
    );
  }
  if (signal.aborted) return Promise.reject(signal.reason);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port) || (secure ? 443 : 80);
  const socket = secure
    ? tlsConnect({
        host,
        port,
        minVersion: 'TLSv1.3',
        // A pin is stricter than any authority: it is checked below, before the connection is handed out.
        rejectUnauthorized: fingerprint === undefined,
        ...(isIP(host) === 0 ? { servername: host } : {}),
      })
    : netConnect({ host, port });
  socket.setNoDelay(true);

  return new Promise((resolve, reject) => {
    const release = (): void => {
      signal.removeEventListener('abort', onAbort);
      socket.off('error', onError);
      socket.off('close', onClose);
    };
    const fail = (error: unknown): void => {
      release();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const onAbort = (): void => fail(signal.reason);
    const onError = (error: NodeJS.ErrnoException): void =>
      fail(unreachable(url.origin, adviceFor(error, secure), error));
    const onClose = (): void => fail(unreachable(url.origin, adviceFor({ code: 'ECONNRESET' }, secure)));
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('error', onError);
    socket.once('close', onClose);
    socket.once(secure ? 'secureConnect' : 'connect', () => {
      // The handshake is over, so the other end has proved that it holds this certificate's key.
      const seen = fingerprint === undefined ? undefined : seenFingerprint(socket as TLSSocket);
      if (seen !== fingerprint) {
        fail(
          new ProtocolError(
            'FED_TRANSPORT_FINGERPRINT',
            `${url.origin}: expected the certificate with the SHA-256 ${fingerprint}, but saw ${seen ?? 'none'}. ` +
              'Nothing was sent. Either this is not your coordinator, or it has a new certificate: ask for a new invite',
            { fingerprint: seen },
          ),
        );
        return;
      }
      release();
      // Until its next owner listens, an error must not bring the process down.
      socket.on('error', () => {});
      resolve(socket);
    });
  });
}

/** The error of an address that can't be reached: what was tried, what happened, what to check. */
export function unreachable(address: string, problem: string, cause?: unknown): ProtocolError {
  return new ProtocolError(
    'FED_TRANSPORT_UNREACHABLE',
    `${address}: ${problem}`,
    cause === undefined ? undefined : { cause },
  );
}

function seenFingerprint(socket: TLSSocket): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  return certificate === undefined ? undefined : fingerprintOf(certificate.raw);
}

function adviceFor(
  { code, message }: { code?: string | undefined; message?: string },
  secure: boolean,
): string {
  switch (code) {
    case 'ECONNREFUSED':
      return 'nobody listens there; check that the coordinator runs, and that host and port are right';
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'this host name is not known here; check its spelling and the DNS of this machine';
    case 'ETIMEDOUT':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return 'there is no way to this address; check the network, the VPN and the firewalls in between';
    case 'ECONNRESET':
    case 'EPIPE':
      return `the connection was cut at once; check that it is a coordinator${secure ? ' with TLS on' : ' with TLS off (else use https://)'}`;
    default:
      if (code?.startsWith('ERR_SSL') || code?.startsWith('ERR_TLS') || code === 'EPROTO') {
        return `no TLS connection (${code}); check that the coordinator has TLS on (else use http://)`;
      }
      return `${message ?? 'no connection'}${code === undefined ? '' : ` (${code})`}; without an invite's fingerprint the certificate must be from an authority this machine trusts`;
  }
}
