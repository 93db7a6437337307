import { describe, expect, it } from 'vitest';
import { createPixelCache, type PixelCache, type Rank } from '../../src/pipeline/pixel-cache.ts';

/** Uses a file as a job would that makes it; returns whether it was found, kept, or neither. */
function visit(cache: PixelCache, file: string, rank: Rank = 'train'): 'found' | 'kept' | 'neither' {
  const use = cache.use(file, rank);
  use.end(true);
  return use.cached ? 'found' : use.keep ? 'kept' : 'neither';
}

describe('createPixelCache', () => {
  it('keeps what fits into its bound, gives it back, and replaces nothing', () => {
    const cache = createPixelCache(100, 250);
    expect(['a', 'b', 'c'].map((file) => visit(cache, file))).toEqual(['kept', 'kept', 'neither']);
    expect(['a', 'b', 'c'].map((file) => visit(cache, file))).toEqual(['found', 'found', 'neither']);
    expect(cache.bytes).toBe(200);
  });

  it('gives each image a place of its own, in pieces of 16 MiB', () => {
    const imageBytes = 5 * 2 ** 20;
    const cache = createPixelCache(imageBytes, 64 * 2 ** 20);
    const places = Array.from({ length: 12 }, (_, i) => cache.use(String(i), 'train').keep!);
    // 12 images fit into 64 MiB, three a piece.
    expect(new Set(places.map(({ slab }) => slab)).size).toBe(4);
    const spans = places.map(({ slab, offset }) => `${places.findIndex((p) => p.slab === slab)}:${offset}`);
    expect(new Set(spans).size).toBe(12);
    for (const { slab, offset } of places) expect(offset + imageBytes).toBeLessThanOrEqual(slab.byteLength);
  });

  it('takes back the place of an image that could not be made', () => {
    const cache = createPixelCache(100, 100);
    cache.use('bad', 'train').end(false);
    expect(visit(cache, 'good')).toBe('kept');
  });

  it('lets only one fill an image; another that wants it meanwhile does without', () => {
    const cache = createPixelCache(100, 1000);
    const first = cache.use('a', 'train');
    const second = cache.use('a', 'train');
    expect([first.keep !== undefined, second.keep, second.cached]).toEqual([true, undefined, undefined]);
    second.end(true);
    first.end(true);
    expect(visit(cache, 'a')).toBe('found');
  });

  it('lets test images give way to training images, but not while they are read', () => {
    const cache = createPixelCache(100, 200);
    expect([visit(cache, 't1', 'test'), visit(cache, 't2', 'test')]).toEqual(['kept', 'kept']);
    const reading = cache.use('t2', 'test');
    expect(reading.cached).toBeDefined();
    expect(visit(cache, 'a')).toBe('kept');
    expect(visit(cache, 't1', 'test')).toBe('neither');
    expect(visit(cache, 'b')).toBe('neither');
    reading.end(true);
    expect(visit(cache, 'b')).toBe('kept');
    expect(['a', 'b'].map((file) => visit(cache, file))).toEqual(['found', 'found']);
    expect(visit(cache, 't3', 'test')).toBe('neither');
  });

  it('keeps nothing when not even one image fits', () => {
    const cache = createPixelCache(100, 99);
    expect([visit(cache, 'a'), visit(cache, 'a'), cache.bytes]).toEqual(['neither', 'neither', 0]);
  });
});
