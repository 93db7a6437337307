/**
 * A file that tells whoever watches a worker from outside (a container's health check, a cron job) when its coordinator
 * was last heard: its modification time. A site that rests by its own policy dates it ahead, to when it means to be back.
 */
import { existsSync, mkdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Link, Transport } from '@tributary/shared-protocol';

export interface Pulse {
  /** Sets the time to now; at most once a second touches the disk. */
  beat(): void;
  /** Sets the time to `until`, a Unix time in millis. */
  excuse(until: number): void;
}

const EVERY_MS = 1000;

/**
 * A pulse in the file at `path`, whose folder is made. What an earlier process left there is removed: until the first
 * beat there is no file. Throws what the system says when it can't be written.
 */
export function openPulse(path: string): Pulse {
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true });
  let lastMs = Number.NEGATIVE_INFINITY;
  const date = (moment: Date): void => {
    try {
      if (!existsSync(path)) writeFileSync(path, '');
      utimesSync(path, moment, moment);
    } catch {
      // A file that gets old is what the watcher looks for; training goes on without it.
    }
  };
  return {
    beat() {
      const now = performance.now();
      if (now - lastMs < EVERY_MS) return;
      lastMs = now;
      date(new Date());
    },
    excuse(until) {
      date(new Date(until));
    },
  };
}

/** `transport` with a beat for every reply, request and notification that comes in over its outgoing links. */
export function withPulse(transport: Transport, pulse: Pulse): Transport {
  return {
    ...transport,
    connect: async (url, options) => watched(await transport.connect(url, options), pulse),
  };
}

function watched(link: Link, pulse: Pulse): Link {
  return {
    ...link,
    async request(packet, options) {
      const reply = await link.request(packet, options);
      pulse.beat();
      return reply;
    },
    onRequest(handler) {
      link.onRequest((packet) => {
        pulse.beat();
        return handler(packet);
      });
    },
    onNotify(handler) {
      link.onNotify((packet) => {
        pulse.beat();
        handler(packet);
      });
    },
  };
}
