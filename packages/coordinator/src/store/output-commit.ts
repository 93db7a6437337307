/**
 * A transport whose packets leave only once the store has what they may tell of: every line of the log that was written
 * before them. So nobody ever knows more of the run than a coordinator that takes over. (Output commit: Strom and Yemini,
 * Optimistic Recovery in Distributed Systems, 1985.)
 */
import type { Link, Packet, Transport } from '@tributary/shared-protocol';
import type { Leadership } from './store.ts';

/** `transport` as a leader listens with it. */
export function heldBack(transport: Transport, store: Pick<Leadership, 'busy' | 'settled'>): Transport {
  const held = (link: Link): Link => ({
    ...link,
    request(packet, options) {
      return store.busy
        ? store.settled().then(() => link.request(packet, options))
        : link.request(packet, options);
    },
    notify(packet) {
      if (!store.busy) return link.notify(packet);
      // A store that breaks off ends the run, and tells why there.
      store.settled().then(
        () => link.notify(packet),
        () => undefined,
      );
    },
    onRequest: (handler) =>
      link.onRequest(async (packet) => {
        let answer: { readonly packet: Packet } | { readonly error: unknown };
        try {
          answer = { packet: await handler(packet) };
        } catch (error) {
          answer = { error };
        }
        // A refusal tells of a line of the log as well.
        if (store.busy) await store.settled();
        if ('error' in answer) throw answer.error;
        return answer.packet;
      }),
  });
  return { ...transport, listen: (onLink) => transport.listen((link) => onLink(held(link))) };
}
