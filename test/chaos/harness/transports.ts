/**
 * What a run needs to know of its transport: how the processes are told to use it, what runs beside them, and how a
 * site is made to dial its line instead of the server. One entry each; where there is a broker, faults on it are drawn
 * too, and the coordinator has a line of its own.
 */
import { decodeInvite, encodeInvite } from '@tributary/shared-protocol';
import { natsServerMissing } from '@tributary/testkit/nats-server';

export interface ChaosTransport {
  readonly name: TransportName;
  /** A server of its own that must be there first, listening at `port`; absent where the coordinator is the server. */
  readonly broker?: {
    command(options: { readonly port: number; readonly folder: string }): {
      readonly file: string;
      readonly args: readonly string[];
      /** What it says on its error output once it takes connections. */
      readonly ready: string;
    };
    /** What the coordinator is told to listen at, by way of the line that begins at `port`. */
    address(port: number): string;
  };
  /** Whether the broker keeps the run too, and a second coordinator, `standby`, has a folder of its own. */
  readonly keepsRun?: boolean;
  /** The invite of a site whose line to the server begins at `port`. */
  throughLine(invite: string, port: number): string;
}

export type TransportName = 'socketio' | 'nats' | 'jetstream';

const NATS: ChaosTransport = {
  name: 'nats',
  broker: {
    command: ({ port }) => natsServer(port),
    address: (port) => `nats://127.0.0.1:${port}/chaos`,
  },
  throughLine(text, port) {
    const invite = decodeInvite(text);
    const { protocol, hostname, pathname } = new URL(invite.url);
    return encodeInvite({ ...invite, url: `${protocol}//${hostname}:${port}${pathname}` });
  },
};

export const TRANSPORTS: Readonly<Record<TransportName, ChaosTransport>> = {
  socketio: {
    name: 'socketio',
    throughLine(text, port) {
      const invite = decodeInvite(text);
      const url = new URL(invite.url);
      url.port = String(port);
      // As it was written, without a slash at its end.
      return encodeInvite({ ...invite, url: url.origin });
    },
  },
  nats: NATS,
  jetstream: {
    ...NATS,
    name: 'jetstream',
    broker: {
      ...NATS.broker!,
      command: ({ port, folder }) => natsServer(port, ['--jetstream', '--store_dir', folder]),
    },
    keepsRun: true,
  },
};

function natsServer(port: number, more: readonly string[] = []) {
  const args = ['--addr', '127.0.0.1', '--port', String(port), ...more];
  return { file: 'nats-server', args, ready: 'Server is ready' };
}

/** Those that can be played here, and why another can't. */
export function findTransports(): { readonly names: readonly TransportName[]; readonly reason?: string } {
  const missing = natsServerMissing();
  return missing === undefined
    ? { names: ['socketio', 'nats', 'jetstream'] }
    : { names: ['socketio'], reason: `none over NATS: ${missing}` };
}
