/**
 * A line between a site and the coordinator that can be made worse: a TCP proxy that holds bytes back. What a
 * network does below TCP (lost packets, a pulled cable) is shown as TCP shows it to a program: as silence, as a
 * stall for a retransmission, as a reset.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Draw } from './random.ts';

export interface LineShape {
  /** One way. */
  readonly delayMs: number;
  /** Up to this much more, anew for each piece; order is kept. */
  readonly jitterMs: number;
  /** Each way; Infinity is no limit. */
  readonly bytesPerSecond: number;
  /** Share of the segments that are lost and have to be sent again, in [0, 1). */
  readonly lossRate: number;
  /** Nothing passes, in either direction, and nobody is told. */
  readonly blocked: boolean;
}

export interface Line {
  /** Where the site dials. */
  readonly port: number;
  /** Bytes that have passed from the site to the coordinator, and back. */
  readonly passed: { readonly up: number; readonly down: number };
  /** Changes the line, for what is under way too. */
  shape(change: Partial<LineShape>): void;
  /** Resets every connection; new ones are fine. */
  cut(): void;
  close(): Promise<void>;
}

export const PERFECT: LineShape = {
  delayMs: 0,
  jitterMs: 0,
  bytesPerSecond: Number.POSITIVE_INFINITY,
  lossRate: 0,
  blocked: false,
};

/** As much as the buffers of two sockets would hold; then the sender has to wait. */
const HELD_BYTES = 512 * 1024;
/** What is let through at a time on a slow line: a twentieth of a second, at least a segment. */
const SLICE_SECONDS = 0.05;
const SEGMENT_BYTES = 1460;
/** Linux's least time-out before a lost segment is sent again. */
const RETRANSMIT_MS = 200;

/** Returns a line to `target` on this machine, listening at a free port. */
export async function openLine(target: number, random: Draw): Promise<Line> {
  let shape = PERFECT;
  const passed = { up: 0, down: 0 };
  const pumps = new Set<() => void>();
  const sockets = new Set<Socket>();

  const server: Server = createServer({ allowHalfOpen: true }, (site) => {
    const far = connect({ host: '127.0.0.1', port: target, allowHalfOpen: true });
    for (const socket of [site, far]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.once('close', () => sockets.delete(socket));
    }
    carry(site, far, (bytes) => {
      passed.up += bytes;
    });
    carry(far, site, (bytes) => {
      passed.down += bytes;
    });
  });

  /** Takes bytes from one socket to the other, when the line lets them. */
  function carry(from: Socket, to: Socket, count: (bytes: number) => void): void {
    const queue: { bytes: Buffer | 'end' | 'reset'; dueAt: number }[] = [];
    let held = 0;
    let busyUntil = 0;
    let lastDueAt = 0;
    let timer: NodeJS.Timeout | undefined;

    const add = (bytes: Buffer | 'end' | 'reset') => {
      const late = shape.delayMs + random.number(0, shape.jitterMs);
      lastDueAt = Math.max(lastDueAt, performance.now() + late);
      queue.push({ bytes, dueAt: lastDueAt });
      pump();
    };
    const pump = () => {
      clearTimeout(timer);
      timer = undefined;
      while (queue.length > 0 && !shape.blocked) {
        const head = queue[0]!;
        const now = performance.now();
        const waitMs = Math.max(head.dueAt, busyUntil) - now;
        if (waitMs > 0) {
          timer = setTimeout(pump, waitMs);
          return;
        }
        if (typeof head.bytes === 'string') {
          queue.shift();
          if (head.bytes === 'end') to.end();
          else to.resetAndDestroy();
          continue;
        }
        const atOnce = Math.max(SEGMENT_BYTES, Math.floor(shape.bytesPerSecond * SLICE_SECONDS));
        const slice = head.bytes.subarray(0, atOnce);
        if (slice.length === head.bytes.length) queue.shift();
        else head.bytes = head.bytes.subarray(slice.length);
        held -= slice.length;
        busyUntil = now + (1000 * slice.length) / shape.bytesPerSecond + stallMs(slice.length);
        count(slice.length);
        if (!to.destroyed) to.write(slice);
        if (held < HELD_BYTES) from.resume();
      }
    };
    /** A lost segment holds up all that comes behind it until it was sent again. */
    const stallMs = (bytes: number): number => {
      if (shape.lossRate === 0) return 0;
      const segments = Math.ceil(bytes / SEGMENT_BYTES);
      if (random.number(0, 1) >= 1 - (1 - shape.lossRate) ** segments) return 0;
      let waitMs = Math.max(RETRANSMIT_MS, 2 * shape.delayMs);
      let total = waitMs;
      // The repetition may be lost as well, and each waits twice as long.
      while (random.number(0, 1) < shape.lossRate) {
        waitMs *= 2;
        total += waitMs;
      }
      return total;
    };

    from.on('data', (bytes: Buffer) => {
      held += bytes.length;
      add(bytes);
      if (held >= HELD_BYTES) from.pause();
    });
    from.on('end', () => add('end'));
    from.on('error', () => add('reset'));
    from.on('close', (failed) => {
      if (!failed) add('end');
    });
    pumps.add(pump);
    to.once('close', () => {
      pumps.delete(pump);
      clearTimeout(timer);
      queue.length = 0;
    });
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    passed,
    shape(change) {
      shape = { ...shape, ...change };
      for (const pump of pumps) pump();
    },
    cut() {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
