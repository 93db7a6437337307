/** How many chunks a fetch has on their way. What it brings is tested over each transport, in the testkit's suite. */
import { afterEach, expect, test, vi } from 'vitest';
import { type BlobSink, createBlobShelf, createChannel, fetchBlob } from '../src/index.ts';
import { createMemoryTransport } from '../src/transports/memory.ts';

const CHUNKS = 40;

afterEach(() => {
  vi.restoreAllMocks();
});

/** Chunks asked for and not yet written, after each write of a blob whose chunks take that long. */
async function inFlight(chunkMs: number): Promise<number[]> {
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => now);
  const transport = createMemoryTransport();
  const shelf = createBlobShelf();
  const ref = await shelf.addBytes(new Uint8Array(CHUNKS * 100), 100);
  let asked = 0;
  const listener = await transport.listen((link) => {
    createChannel(link).handle(async (message) => {
      if (message.type !== 'chunk') return { type: 'ok' };
      asked += 1;
      return shelf.answer(message);
    });
  });
  const channel = createChannel(await transport.connect(listener.url));
  const counts: number[] = [];
  let written = 0;
  const sink: BlobSink = {
    resumeAtChunk: 0,
    async write() {
      // Packets keep their order: after this reply the peer has seen every chunk that was asked for.
      await channel.call({ type: 'get-status' }, 'ok');
      counts.push(asked - written);
      written += 1;
      now += chunkMs;
    },
    finish: async () => {},
  };
  await fetchBlob(channel, ref, sink);
  await listener.close();
  return counts;
}

test('on a fast line: four at first, then eight', async () => {
  const counts = await inFlight(10);
  expect(counts[0]).toBe(4);
  expect(counts.slice(4, CHUNKS - 8)).toEqual(Array(CHUNKS - 12).fill(8));
});

test('on a slow line: what it carries in two seconds, and two at least', async () => {
  expect((await inFlight(500)).slice(4, CHUNKS - 8)).toEqual(Array(CHUNKS - 12).fill(4));
  vi.restoreAllMocks();
  expect((await inFlight(8000)).slice(4, CHUNKS - 8)).toEqual(Array(CHUNKS - 12).fill(2));
});
