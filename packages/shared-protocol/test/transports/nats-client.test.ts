/**
 * Whatever the pieces in which a NATS server's bytes are read, the client gets whole operations, and the same bytes; what
 * it sends arrives as it was, large or small.
 */
import { headers } from '@nats-io/nats-core';
import type { NatsConnectionImpl } from '@nats-io/nats-core/internal';
import { natsServerMissing, startNatsServer } from '@tributary/testkit/nats-server';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { connectNats, wholeMessages } from '../../src/transports/nats-client.ts';

async function passed(pieces: readonly Uint8Array[]): Promise<Buffer[]> {
  async function* reads(): AsyncGenerator<Uint8Array> {
    yield* pieces;
  }
  const out: Buffer[] = [];
  for await (const piece of wholeMessages(reads())) out.push(Buffer.from(piece));
  return out;
}

/** The bytes, cut at these places. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [0, ...places.map((place) => place % (bytes.byteLength + 1)), bytes.byteLength].sort(
    (a, b) => a - b,
  );
  return sorted.slice(1).map((end, i) => bytes.subarray(sorted[i], end));
}

const payload = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
const operation = fc.oneof(
  fc
    .constantFrom('PING\r\n', 'PONG\r\n', '+OK\r\n', "-ERR 'no'\r\n", 'INFO {"a":"HMSG a 1 5"}\r\n')
    .map(Buffer.from),
  fc
    .tuple(fc.constantFrom('MSG up.node 7', 'HMSG up.node 7 inbox.reply 12', 'MSG a.b 1 reply'), payload)
    .map(([line, data]) =>
      Buffer.concat([Buffer.from(`${line} ${data.byteLength}\r\n`), data, Buffer.from('\r\n')]),
    ),
);

describe('messages of a NATS server, read in pieces', () => {
  test('each comes out whole and once, in order, however the bytes were cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(operation, { maxLength: 12 }),
        fc.array(fc.nat(4000), { maxLength: 40 }),
        async (operations, places) => {
          const bytes = Buffer.concat(operations);
          const ends = new Set<number>();
          let at = 0;
          for (const { byteLength } of operations) {
            at += byteLength;
            ends.add(at);
          }
          const pieces = await passed(cut(bytes, places));
          expect(Buffer.concat(pieces)).toEqual(bytes);
          let end = 0;
          for (const { byteLength } of pieces) {
            end += byteLength;
            expect(ends).toContain(end);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test('what is read of several messages at once goes on without a copy', async () => {
    const read = Buffer.from('MSG a 1 2\r\nhi\r\nPING\r\n');
    async function* reads(): AsyncGenerator<Uint8Array> {
      yield read;
    }
    for await (const piece of wholeMessages(reads())) {
      expect(piece.buffer).toBe(read.buffer);
      expect(piece.byteLength).toBe(read.byteLength);
    }
  });

  test.each([
    ['a message of a gigabyte', 'MSG a 1 999999999\r\n'],
    ['a line that never ends', 'x'.repeat(70_000)],
  ])('%s is left to the client, which knows what to say', async (_, beginning) => {
    const pieces = await passed([
      Buffer.from('PING\r\n'),
      Buffer.from(beginning),
      Buffer.from('and'),
      Buffer.from('more'),
    ]);
    expect(pieces.map(String)).toEqual(['PING\r\n', beginning, 'and', 'more']);
  });
});

const missing = natsServerMissing();
if (missing !== undefined) test.skip(`messages to a NATS server: ${missing}`, () => {});

describe.skipIf(missing !== undefined)('messages to a NATS server', () => {
  test('arrive whole and in order, whatever their sizes, published in one turn or in several', async () => {
    const server = await startNatsServer();
    const [from, to] = await Promise.all(
      [0, 1].map(() => connectNats({ servers: `127.0.0.1:${server.port}`, tls: null })),
    );
    try {
      const arrived: { size: string; data: Uint8Array }[] = [];
      to!.subscribe('sizes', {
        callback: (_, { headers, data }) => {
          arrived.push({ size: headers?.get('Size') ?? '', data });
        },
      });
      await to!.flush();
      const sizes = [0, 1, 70_000, 65_535, 65_536, 65_536, 3, 1_000_000, 0, 200_000, 12];
      const payloads = [...sizes, ...sizes].map((size, i) => new Uint8Array(size).fill(i + 1));
      for (const [i, payload] of payloads.entries()) {
        const header = headers();
        header.set('Size', String(payload.byteLength));
        from!.publish('sizes', payload, { headers: header });
        if (i % 4 === 3) await from!.flush();
      }
      await from!.flush();
      await to!.flush();
      expect(arrived.map(({ size }) => Number(size))).toEqual([...sizes, ...sizes]);
      for (const [i, { data }] of arrived.entries())
        expect(Buffer.from(data).equals(payloads[i]!)).toBe(true);
    } finally {
      await Promise.all([from!.close(), to!.close()]);
      await server.stop();
    }
  });

  test('large ones reach the socket without a copy', async () => {
    const server = await startNatsServer();
    const connection = await connectNats({ servers: `127.0.0.1:${server.port}`, tls: null });
    try {
      const { transport } = (connection as NatsConnectionImpl).protocol;
      const sent: Uint8Array[] = [];
      const send = transport.send.bind(transport);
      transport.send = (piece) => {
        sent.push(piece);
        send(piece);
      };
      const large = new Uint8Array(100_000);
      const small = new Uint8Array(100);
      connection.publish('sizes', small);
      connection.publish('sizes', large);
      await connection.flush();
      expect(sent.filter(({ buffer }) => buffer === large.buffer)).toHaveLength(1);
      expect(sent.some(({ buffer }) => buffer === small.buffer)).toBe(false);
    } finally {
      await connection.close();
      await server.stop();
    }
  });
});
