/** Blobs over a transport: pulled in order, at the sink's pace, resumable, and believed only when proven. */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type BlobRef,
  type BlobSink,
  type Channel,
  createBlobShelf,
  createChannel,
  fetchBlob,
  type Message,
  type MessageOf,
  openFileSink,
  openMemorySink,
} from '@tributary/shared-protocol';
import { afterEach, describe, expect, test } from 'vitest';
import { once, withCode } from './matchers.ts';
import type { Bench } from './transport-suite.ts';

const CHUNK_BYTES = 10_000;
/** Seven whole chunks and one of 1,234 bytes. */
const BLOB = Buffer.alloc(7 * CHUNK_BYTES + 1234, 'a stream is pulled, not pushed; ');
const CHUNKS = 8;

type ChunkAnswer = { message: MessageOf<'chunk-data'>; body: Uint8Array };

/** Declares the blob tests; `bench` opens a listener whose links are closed after each test. */
export function describeBlobs(bench: () => Promise<Bench>): void {
  describe('blobs', () => {
    const folders: string[] = [];
    afterEach(async () => {
      for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
    });
    async function newPath(): Promise<string> {
      const folder = await mkdtemp(join(tmpdir(), 'tributary-blob-'));
      folders.push(folder);
      return join(folder, 'blob');
    }

    /** A fetching channel whose peer serves BLOB, as `twist` has it. */
    async function served(
      twist: (answer: () => Promise<ChunkAnswer>, index: number) => Promise<Message | ChunkAnswer> = (
        answer,
      ) => answer(),
      on?: Bench,
    ): Promise<{ channel: Channel; server: Channel; ref: BlobRef; asked: number[] }> {
      const { near, far } = await (on ?? (await bench())).dial();
      const shelf = createBlobShelf();
      const ref = await shelf.addBytes(BLOB, CHUNK_BYTES);
      const asked: number[] = [];
      const server = createChannel(far);
      server.handle(async (message) => {
        if (message.type !== 'chunk') return { type: 'ok' };
        asked.push(message.index);
        return twist(() => shelf.answer(message), message.index);
      });
      return { channel: createChannel(near), server, ref, asked };
    }

    test('fetchBlob: brings the bytes, asking for each chunk once and telling how far it is', async () => {
      const { channel, ref, asked } = await served();
      const sink = openMemorySink(ref);
      const progress: number[] = [];
      await fetchBlob(channel, ref, sink, { onProgress: (bytes) => progress.push(bytes) });
      expect(Buffer.compare(sink.bytes, BLOB)).toBe(0);
      expect(asked).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      expect(progress).toEqual([10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 71_234]);
    });

    test('fetchBlob: an empty blob needs no chunk', async () => {
      const { near } = await (await bench()).dial();
      const ref = await createBlobShelf().addBytes(new Uint8Array(0), CHUNK_BYTES);
      await fetchBlob(createChannel(near), ref, openMemorySink(ref));
    });

    test('fetchBlob: from a file to a file, which appears only when it is whole', async () => {
      const { near, far } = await (await bench()).dial();
      const source = await newPath();
      const target = await newPath();
      await writeFile(source, BLOB);
      const shelf = createBlobShelf();
      const ref = await shelf.addFile(source, CHUNK_BYTES);
      createChannel(far).handle(async (message) => shelf.answer(message as MessageOf<'chunk'>));
      const sink = await openFileSink(target, ref, { fsync: true });
      await expect(stat(target)).rejects.toMatchObject(withCode('ENOENT'));
      await fetchBlob(createChannel(near), ref, sink);
      expect(Buffer.compare(await readFile(target), BLOB)).toBe(0);
      await expect(stat(`${target}.part`)).rejects.toMatchObject(withCode('ENOENT'));
    });

    test('fetchBlob: a slow sink holds the requests back to the window', async () => {
      const { channel, ref, asked } = await served();
      const writes: (() => void)[] = [];
      let onWrite: () => void = () => {};
      const nextWrite = (): Promise<void> =>
        once((resolve) => {
          onWrite = resolve;
        });
      const sink: BlobSink = {
        resumeAtChunk: 0,
        write: () =>
          new Promise((resolve) => {
            writes.push(resolve);
            onWrite();
          }),
        finish: async () => {},
      };
      let writing = nextWrite();
      const fetching = fetchBlob(channel, ref, sink, { window: 3 });
      for (let taken = 0; taken < CHUNKS; taken++) {
        await writing;
        // Packets keep their order, so after this reply the peer has seen every chunk that was asked for.
        await channel.call({ type: 'get-status' }, 'ok');
        expect(asked.length).toBe(Math.min(CHUNKS, taken + 3));
        writing = nextWrite();
        writes[taken]?.();
      }
      await fetching;
    });

    for (const cut of ['serving', 'fetching'] as const) {
      test(`fetchBlob: a link cut by the ${cut} end is resumed on the next one at the first missing chunk`, async () => {
        const b = await bench();
        const path = await newPath();
        const first = await served(async (answer, index) => {
          if (index !== 5) return answer();
          if (cut === 'serving') await first.server.close('cut');
          else await first.channel.close('cut');
          return answer();
        }, b);
        await expect(
          fetchBlob(first.channel, first.ref, await openFileSink(path, first.ref), { window: 1 }),
        ).rejects.toMatchObject(withCode('FED_TRANSPORT_CLOSED'));
        const second = await served(undefined, b);
        const sink = await openFileSink(path, second.ref);
        expect(sink.resumeAtChunk).toBe(5);
        await fetchBlob(second.channel, second.ref, sink);
        expect(second.asked).toEqual([5, 6, 7]);
        expect(Buffer.compare(await readFile(path), BLOB)).toBe(0);
      });
    }

    const wrong: [string, (right: ChunkAnswer, earlier: ChunkAnswer) => ChunkAnswer][] = [
      ['of another blob', ({ message, body }) => ({ message: { ...message, digest: 'f'.repeat(64) }, body })],
      ['out of order', ({ message, body }) => ({ message: { ...message, index: message.index + 1 }, body })],
      ['that came before', (_, earlier) => earlier],
      ['that is short', ({ message, body }) => ({ message, body: body.subarray(1) })],
      ['that is long', ({ message, body }) => ({ message, body: Buffer.concat([body, Buffer.alloc(1)]) })],
      ['that is empty', ({ message }) => ({ message, body: new Uint8Array(0) })],
    ];
    for (const [what, spoil] of wrong) {
      test(`fetchBlob: a chunk ${what} is refused before the sink sees it`, async () => {
        let earlier: ChunkAnswer | undefined;
        const { channel, ref } = await served(async (answer, index) => {
          const right = await answer();
          earlier ??= right;
          return index === 2 ? spoil(right, earlier) : right;
        });
        const offsets: number[] = [];
        const sink: BlobSink = {
          resumeAtChunk: 0,
          write: (_, offset) => void offsets.push(offset),
          finish: async () => {},
        };
        await expect(fetchBlob(channel, ref, sink)).rejects.toMatchObject(withCode('FED_PROTOCOL_CHUNK'));
        expect(offsets).toEqual([0, 10_000]);
      });
    }

    test('fetchBlob: changed bytes are found by the digest, and leave no file', async () => {
      const path = await newPath();
      const { channel, ref } = await served(async (answer, index) => {
        const { message, body } = await answer();
        const changed = Uint8Array.from(body);
        if (index === 6) changed[0] = (changed[0] ?? 0) ^ 1;
        return { message, body: changed };
      });
      await expect(fetchBlob(channel, ref, await openFileSink(path, ref))).rejects.toMatchObject(
        withCode('FED_PROTOCOL_BLOB_DIGEST'),
      );
      await expect(fetchBlob(channel, ref, openMemorySink(ref))).rejects.toMatchObject(
        withCode('FED_PROTOCOL_BLOB_DIGEST'),
      );
      await expect(stat(path)).rejects.toMatchObject(withCode('ENOENT'));
      await expect(stat(`${path}.part`)).rejects.toMatchObject(withCode('ENOENT'));
    });

    test('fetchBlob: the beginning of another blob is thrown away, not held against the peer', async () => {
      const path = await newPath();
      await writeFile(`${path}.part`, Buffer.alloc(25_000, 'other'));
      const { channel, ref, asked } = await served();
      const sink = await openFileSink(path, ref);
      // 25,000 bytes are two whole chunks.
      expect(sink.resumeAtChunk).toBe(2);
      await fetchBlob(channel, ref, sink);
      expect(asked).toEqual([2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7]);
      expect(Buffer.compare(await readFile(path), BLOB)).toBe(0);
    });

    test('fetchBlob: a blob that the peer does not have is FED_PROTOCOL_BLOB_UNKNOWN', async () => {
      const { channel, ref } = await served();
      const other = { ...ref, digest: '0'.repeat(64) };
      await expect(fetchBlob(channel, other, openMemorySink(other))).rejects.toMatchObject({
        name: 'RemoteError',
        code: 'FED_PROTOCOL_BLOB_UNKNOWN',
      });
    });

    test('fetchBlob: a peer that falls silent is given up after the idle time', async () => {
      const { channel, ref } = await served((answer, index) =>
        index < 2 ? answer() : new Promise(() => {}),
      );
      await expect(fetchBlob(channel, ref, openMemorySink(ref), { idleTimeoutMs: 50 })).rejects.toMatchObject(
        withCode('FED_TRANSPORT_TIMEOUT'),
      );
    });

    test('fetchBlob: an abort rejects with its reason and closes the sink', async () => {
      const stop = new AbortController();
      const reason = new Error('the round is over');
      const { channel, ref } = await served((answer, index) => {
        if (index === 3) stop.abort(reason);
        return index < 3 ? answer() : new Promise(() => {});
      });
      let closed = 0;
      const sink: BlobSink = {
        resumeAtChunk: 0,
        write: () => {},
        finish: async () => {},
        close: async () => void closed++,
      };
      await expect(fetchBlob(channel, ref, sink, { signal: stop.signal })).rejects.toBe(reason);
      expect(closed).toBe(1);
    });

    test('fetchBlob: a ref past the limits is refused before anything is asked for or allocated', async () => {
      const { channel, ref, asked } = await served();
      const refs: BlobRef[] = [
        { ...ref, bytes: 2 ** 50 },
        { ...ref, chunkBytes: 2 ** 40 },
        // 2^30 chunks of one byte
        { ...ref, bytes: 2 ** 30, chunkBytes: 1 },
      ];
      const path = await newPath();
      for (const lying of refs) {
        const sink: BlobSink = { resumeAtChunk: 0, write: () => {}, finish: async () => {} };
        await expect(fetchBlob(channel, lying, sink)).rejects.toMatchObject(withCode('FED_PROTOCOL_LIMIT'));
        expect(() => openMemorySink(lying)).toThrow(expect.objectContaining(withCode('FED_PROTOCOL_LIMIT')));
        await expect(openFileSink(path, lying)).rejects.toMatchObject(withCode('FED_PROTOCOL_LIMIT'));
      }
      expect(asked).toEqual([]);
      await expect(stat(`${path}.part`)).rejects.toMatchObject(withCode('ENOENT'));
    });
  });
}
