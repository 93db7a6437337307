/**
 * A transport inside one process: packets are handed over as they are, bodies included, so a receiver must not write
 * into them. For tests, simulations and as the plainest example of a transport.
 */
import { ProtocolError } from '../errors.ts';
import type { ConnectOptions, Link, Transport } from '../transport.ts';
import { createLinkCore, type LinkCore } from './link-core.ts';

export interface MemoryTransportOptions {
  /** @default 1 MiB */
  readonly preferredChunkBytes?: number;
  /** Bytes of one head, and of one body. @default 8 MiB */
  readonly maxPayloadBytes?: number;
}

const MIB = 1024 * 1024;

/**
 * Returns a transport whose listeners can be reached by `connect` of the same object, and only there.
 * `connect` throws FED_TRANSPORT_UNREACHABLE for a URL that nobody listens on.
 */
export function createMemoryTransport(options: MemoryTransportOptions = {}): Transport {
  const { preferredChunkBytes = MIB, maxPayloadBytes = 8 * MIB } = options;
  const listeners = new Map<string, (url: string) => Link>();
  let listenerCount = 0;
  let linkCount = 0;

  function connectPair(url: string): { near: Link; far: Link } {
    linkCount += 1;
    const facts = { preferredChunkBytes, maxPayloadBytes };
    const near: LinkCore = createLinkCore(
      { ...facts, id: `memory-${linkCount}-near`, remoteAddress: url },
      wireTo(() => far),
    );
    const far: LinkCore = createLinkCore(
      { ...facts, id: `memory-${linkCount}-far`, remoteAddress: `${url}#${linkCount}` },
      wireTo(() => near),
    );
    return { near: near.link, far: far.link };
  }

  return {
    name: 'memory',
    async listen(onLink) {
      listenerCount += 1;
      const url = `memory://${listenerCount}`;
      const links = new Set<Link>();
      listeners.set(url, () => {
        const { near, far } = connectPair(url);
        links.add(far);
        void far.closed.then(() => links.delete(far));
        onLink(far);
        return near;
      });
      return {
        url,
        fingerprint: undefined,
        async close() {
          listeners.delete(url);
          await Promise.all([...links].map((link) => link.close('the listener was closed')));
        },
      };
    },
    async connect(url, { signal }: ConnectOptions = {}) {
      signal?.throwIfAborted();
      const accept = listeners.get(url);
      if (accept === undefined) {
        throw new ProtocolError(
          'FED_TRANSPORT_UNREACHABLE',
          `${url}: nobody listens there; use the url of a listener of the same memory transport`,
        );
      }
      return accept(url);
    },
  };
}

/** Hands packets to the other end in a later microtask, in order, as a network would: never within the call. */
function wireTo(otherEnd: () => LinkCore): Parameters<typeof createLinkCore>[1] {
  return {
    request(packet, onReply) {
      queueMicrotask(() => void otherEnd().receiveRequest(packet).then(onReply));
    },
    notify(packet) {
      queueMicrotask(() => otherEnd().receiveNotify(packet));
    },
    async hangUp(reason) {
      await Promise.resolve();
      otherEnd().gone(reason);
    },
  };
}
