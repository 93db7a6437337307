/**
 * A transport whose every packet is counted, head and body, in both directions. A reply with a body that there are no
 * bytes left for is not given.
 */
import type { Link, Packet, Transport } from '@tributary/shared-protocol';

export interface Meter {
  /** Counts what is moved; throws where it can't be counted. */
  count(bytes: number): void;
  /** Throws when so many more may not be sent. */
  admit(bytes: number): void;
}

/** Returns `transport` with its outgoing connections metered. */
export function meteredTransport(transport: Transport, meter: Meter): Transport {
  return {
    ...transport,
    async connect(url, options) {
      return metered(await transport.connect(url, options), meter);
    },
  };
}

function metered(link: Link, meter: Meter): Link {
  return {
    ...link,
    async request(packet, options) {
      meter.count(sizeOf(packet));
      const reply = await link.request(packet, options);
      meter.count(sizeOf(reply));
      return reply;
    },
    notify(packet) {
      meter.count(sizeOf(packet));
      link.notify(packet);
    },
    onRequest(handler) {
      link.onRequest(async (packet) => {
        meter.count(sizeOf(packet));
        const reply = await handler(packet);
        if (reply.body !== undefined) meter.admit(sizeOf(reply));
        meter.count(sizeOf(reply));
        return reply;
      });
    },
    onNotify(handler) {
      link.onNotify((packet) => {
        meter.count(sizeOf(packet));
        handler(packet);
      });
    },
  };
}

function sizeOf({ head, body }: Packet): number {
  return head.byteLength + (body?.byteLength ?? 0);
}
