/** A transport that tells of what travels over it: how long heartbeats take, which chunks are asked for and arrive. */
import { decodeMessage, type Link, type Transport } from '@tributary/shared-protocol';

export type TransportEvent =
  /** A heartbeat was answered. */
  | { readonly type: 'round-trip'; readonly ms: number }
  /** The other end wants a chunk of ours. */
  | { readonly type: 'chunk-asked'; readonly link: string; readonly digest: string; readonly index: number }
  /** A chunk that we asked for is here. */
  | { readonly type: 'chunk-here'; readonly link: string; readonly digest: string; readonly index: number };

/** The same transport, whose links report to `report`. */
export function watchedTransport(transport: Transport, report: (event: TransportEvent) => void): Transport {
  const watched = (link: Link): Link => ({
    ...link,
    async request(packet, options) {
      const message = decodeMessage(packet.head);
      const sentAt = performance.now();
      const reply = await link.request(packet, options);
      if (message.type === 'heartbeat') report({ type: 'round-trip', ms: performance.now() - sentAt });
      if (message.type === 'chunk' && reply.body !== undefined) {
        report({ type: 'chunk-here', link: link.id, digest: message.digest, index: message.index });
      }
      return reply;
    },
    onRequest: (handler) =>
      link.onRequest((packet) => {
        const message = decodeMessage(packet.head);
        if (message.type === 'chunk') {
          report({ type: 'chunk-asked', link: link.id, digest: message.digest, index: message.index });
        }
        return handler(packet);
      }),
  });
  return {
    ...transport,
    connect: async (url, options) => watched(await transport.connect(url, options)),
    listen: (onLink) => transport.listen((link) => onLink(watched(link))),
  };
}
