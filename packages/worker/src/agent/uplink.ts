/** The link of the moment, as work sees it: there or not, and worth waiting for. Work outlives links. */
import type { Channel } from '@tributary/shared-protocol';

export interface Uplink {
  /** The channel on which this site is `ready`, or undefined between links. */
  readonly channel: Channel | undefined;
  /** Resolves with the channel as soon as there is one; rejects with the signal's reason. */
  whenUp(signal: AbortSignal): Promise<Channel>;
  /** Called by the connection loop; the channel drops out by itself when its link closes. */
  up(channel: Channel): void;
}

/** Returns an uplink that is down. */
export function createUplink(): Uplink {
  let current: Channel | undefined;
  const waiting = new Set<(channel: Channel) => void>();
  return {
    get channel() {
      return current;
    },
    whenUp(signal) {
      signal.throwIfAborted();
      if (current !== undefined) return Promise.resolve(current);
      return new Promise((resolve, reject) => {
        const onAbort = () => {
          waiting.delete(onUp);
          reject(signal.reason as Error);
        };
        const onUp = (channel: Channel) => {
          signal.removeEventListener('abort', onAbort);
          resolve(channel);
        };
        waiting.add(onUp);
        signal.addEventListener('abort', onAbort, { once: true });
      });
    },
    up(channel) {
      current = channel;
      channel.closed.then(() => {
        if (current === channel) current = undefined;
      });
      for (const onUp of waiting) onUp(channel);
      waiting.clear();
    },
  };
}
