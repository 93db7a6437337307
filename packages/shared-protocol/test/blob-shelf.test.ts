import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createBlobShelf, sha256 } from '@tributary/shared-protocol';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

// 25 bytes in chunks of 10: two whole ones and one of 5.
const BYTES = Buffer.from('abcdefghijklmnopqrstuvwxy');

describe('createBlobShelf', () => {
  let folder = '';
  let path = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tributary-shelf-'));
    path = join(folder, 'blob');
    await writeFile(path, BYTES);
  });
  afterEach(() => rm(folder, { recursive: true }));

  test('addFile and addBytes: describe the same bytes alike', async () => {
    const shelf = createBlobShelf();
    expect(await shelf.addFile(path, 10)).toEqual({ digest: sha256(BYTES), bytes: 25, chunkBytes: 10 });
    expect(await shelf.addBytes(BYTES, 10)).toEqual(await shelf.addFile(path, 10));
  });

  test('answer: serves each chunk, the last one short, and nothing past it', async () => {
    const shelf = createBlobShelf();
    const { digest } = await shelf.addFile(path, 10);
    const chunks: string[] = [];
    for (const index of [0, 1, 2]) {
      const { message, body } = await shelf.answer({ type: 'chunk', digest, index });
      expect(message).toEqual({ type: 'chunk-data', digest, index });
      chunks.push(Buffer.from(body).toString());
    }
    expect(chunks).toEqual(['abcdefghij', 'klmnopqrst', 'uvwxy']);
    await expect(shelf.answer({ type: 'chunk', digest, index: 3 })).rejects.toMatchObject({
      code: 'FED_PROTOCOL_CHUNK',
    });
  });

  test('addBytes: serves views, not copies', async () => {
    const shelf = createBlobShelf();
    const { digest } = await shelf.addBytes(BYTES, 10);
    const { body } = await shelf.answer({ type: 'chunk', digest, index: 1 });
    expect(body.buffer).toBe(BYTES.buffer);
  });

  test('remove: what was taken off is FED_PROTOCOL_BLOB_UNKNOWN', async () => {
    const shelf = createBlobShelf();
    const { digest } = await shelf.addBytes(BYTES, 10);
    shelf.remove(digest);
    shelf.remove(digest);
    await expect(shelf.answer({ type: 'chunk', digest, index: 0 })).rejects.toMatchObject({
      code: 'FED_PROTOCOL_BLOB_UNKNOWN',
    });
  });

  test('answer: a file that has become shorter is FED_PROTOCOL_CHUNK, not padding', async () => {
    const shelf = createBlobShelf();
    const { digest } = await shelf.addFile(path, 10);
    await truncate(path, 15);
    await expect(shelf.answer({ type: 'chunk', digest, index: 1 })).rejects.toMatchObject({
      code: 'FED_PROTOCOL_CHUNK',
    });
  });
});
