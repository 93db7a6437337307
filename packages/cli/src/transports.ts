/**
 * Which transport a command speaks: the coordinator's own socket.io server, or a NATS server where the configuration or
 * the invite names one. Each is loaded only when it is needed.
 */
import { existsSync, readFileSync } from 'node:fs';
import type { Leadership, ResolvedFederation, RunStore } from '@tributary/coordinator';
import type { Transport } from '@tributary/shared-protocol';
import type { NatsCredentials } from '@tributary/shared-protocol/nats';
import { CliError } from './errors.ts';
import { certificateHosts, reachableHost, tlsIdentity } from './identity.ts';

/** Absolute paths of what a NATS server asks for; see `NatsTransportOptions`. */
export interface NatsFiles {
  readonly credentials?: string | undefined;
  readonly ca?: string | undefined;
  /** `tls://host:4222` to dial in place of the address's own servers: a leaf node inside this site. */
  readonly server?: string | undefined;
}

/**
 * What a coordinator listens with, by `server` of its configuration. Throws FED_CLI_FILE_MISSING for a key or an
 * authority that is not there.
 */
export async function listeningTransport(
  server: ResolvedFederation['server'],
  runDir: string,
  leadership?: Leadership,
): Promise<Transport> {
  if (server.nats !== undefined) return await natsTransport(server.nats, server.nats.url, leadership);
  const { createSocketioTransport } = await import('@tributary/shared-protocol/socketio');
  const { host, port, tls } = server;
  return createSocketioTransport({
    host,
    port,
    tls: tls ? await tlsIdentity(runDir, certificateHosts(host)) : false,
    ...(host === '0.0.0.0' ? { publicHost: reachableHost() } : {}),
  });
}

/**
 * The store in the NATS server that the coordinator listens at. Throws FED_CLI_USAGE when the configuration names no server
 * or no key, and what createJetStreamStore throws.
 */
export async function jetStreamStore({ nats }: ResolvedFederation['server']): Promise<RunStore> {
  if (nats === undefined) {
    throw new CliError('FED_CLI_USAGE', 'The run is to be kept in a NATS server, and none is named.', {
      where: '--store',
      todo: 'Add --nats tls://host:4222/prefix, or server.nats to the configuration.',
    });
  }
  if (nats.credentials === undefined) {
    throw new CliError(
      'FED_CLI_USAGE',
      'A run that is kept in a NATS server needs the coordinator’s key for it.',
      {
        where: '--store',
        todo: 'Add --nats-credentials FILE, the same on every machine that may lead: the run’s own key is sealed with it.',
      },
    );
  }
  const { createJetStreamStore } = await import('@tributary/coordinator/jetstream');
  return await createJetStreamStore({
    url: nats.url,
    credentials: credentialsIn(textOf(nats.credentials, 'key')),
    ...(nats.ca === undefined ? {} : { ca: textOf(nats.ca, 'authority') }),
  });
}

/** What dials any coordinator: over NATS where the address says so (`tls:`, `nats:`), else over socket.io. */
export function dialingTransport(files: NatsFiles = {}): Transport {
  return {
    name: 'by address',
    async connect(url, options) {
      if (/^(nats|tls):/.test(url)) return (await natsTransport(files)).connect(byWayOf(url, files), options);
      if (files.server !== undefined) {
        throw new CliError('FED_CLI_USAGE', `The coordinator listens at ${url}, and not at a NATS server.`, {
          where: '--nats',
          todo: 'Leave it out.',
        });
      }
      const { createSocketioTransport } = await import('@tributary/shared-protocol/socketio');
      return createSocketioTransport().connect(url, options);
    },
    listen: () => Promise.reject(new TypeError('this transport only dials')),
  };
}

/** The address with another server; federation and pinned certificate stay those of the invite. */
function byWayOf(url: string, { server }: NatsFiles): string {
  return server === undefined ? url : `${server.replace(/\/+$/, '')}/${url.split('/')[3] ?? ''}`;
}

async function natsTransport(
  { credentials, ca }: NatsFiles,
  url?: string,
  leadership?: Leadership,
): Promise<Transport> {
  const { createNatsTransport } = await import('@tributary/shared-protocol/nats');
  return createNatsTransport({
    ...(url === undefined ? {} : { url }),
    ...(credentials === undefined ? {} : { credentials: credentialsIn(textOf(credentials, 'key')) }),
    ...(ca === undefined ? {} : { ca: textOf(ca, 'authority') }),
    // The store says who leads: what is left of a former leader may still be at the server.
    ...(leadership === undefined ? {} : { exclusive: false, mayAct: leadership.leads }),
  });
}

function credentialsIn(text: string): NatsCredentials {
  return text.includes('BEGIN NATS USER JWT') ? { creds: text } : { nkeySeed: text };
}

function textOf(path: string, what: string): string {
  if (existsSync(path)) return readFileSync(path, 'utf8');
  throw new CliError(
    'FED_CLI_FILE_MISSING',
    `There is no file ${path} with the ${what} for the NATS server.`,
    {
      where: what === 'key' ? '--nats-credentials or server.nats.credentials' : '--nats-ca or server.nats.ca',
      todo: '`tributary nats-config` writes the keys, the certificate and the server’s configuration.',
    },
  );
}
