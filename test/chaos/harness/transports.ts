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
    command(options: { readonly port: number }): {
      readonly file: string;
      readonly args: readonly string[];
      /** What it says on its error output once it takes connections. */
      readonly ready: string;
    };
    /** What the coordinator is told to listen at, by way of the line that begins at `port`. */
    address(port: number): string;
  };
  /** The invite of a site whose line to the server begins at `port`. */
  throughLine(invite: string, port: number): string;
}

export type TransportName = 'socketio' | 'nats';

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
  nats: {
    name: 'nats',
    broker: {
      command: ({ port }) => ({
        file: 'nats-server',
        args: ['--addr', '127.0.0.1', '--port', String(port)],
        ready: 'Server is ready',
      }),
      address: (port) => `nats://127.0.0.1:${port}/chaos`,
    },
    throughLine(text, port) {
      const invite = decodeInvite(text);
      const { protocol, hostname, pathname } = new URL(invite.url);
      return encodeInvite({ ...invite, url: `${protocol}//${hostname}:${port}${pathname}` });
    },
  },
};

/** Those that can be played here, and why another can't. */
export function findTransports(): { readonly names: readonly TransportName[]; readonly reason?: string } {
  const missing = natsServerMissing();
  return missing === undefined
    ? { names: ['socketio', 'nats'] }
    : { names: ['socketio'], reason: `none over NATS: ${missing}` };
}
