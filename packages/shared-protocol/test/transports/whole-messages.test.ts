/** Whatever the pieces in which a NATS server's bytes are read, the client gets whole operations, and the same bytes. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { wholeMessages } from '../../src/transports/whole-messages.ts';

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
