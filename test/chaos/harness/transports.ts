/**
 * What a run needs to know of its transport: how the processes are told to use it, what runs beside them, and how a
 * site is made to dial its line instead of the coordinator. One entry each; a fault on `broker` is drawn where there
 * is one.
 */
import { decodeInvite, encodeInvite } from '@tributary/shared-protocol';

export interface ChaosTransport {
  readonly name: TransportName;
  /** A server of its own that must be there first, listening at `port`; absent where the coordinator is the server. */
  readonly broker?: {
    command(options: { readonly port: number; readonly folder: string }): {
      readonly file: string;
      readonly args: readonly string[];
    };
  };
  /** The invite of a site whose line to the server begins at `port`. */
  throughLine(invite: string, port: number): string;
}

export type TransportName = 'socketio';

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
};
