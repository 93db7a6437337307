import { copyFile, mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { augmentationSchema, errorCode, inputSchema } from '@tributary/shared-protocol';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Batch, openShard, type ShardOptions } from '../../src/data/shard.ts';
import { forEachLimited } from '../../src/data/verify.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tributary-shard-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** A 6 x 5 grey image whose pixels tell its number. */
async function writeImage(path: string, value: number): Promise<void> {
  const file = join(dir, path);
  await mkdir(dirname(file), { recursive: true });
  const data = Uint8Array.from({ length: 30 }, (_, i) => (value * 10 + i) % 256);
  await sharp(data, { raw: { width: 6, height: 5, channels: 1 } })
    .png()
    .toFile(file);
}

async function writeClasses(root: string, counts: Record<string, number>): Promise<void> {
  for (const [name, count] of Object.entries(counts)) {
    await mkdir(join(dir, root, name), { recursive: true });
    for (let i = 0; i < count; i++) await writeImage(join(root, name, `${i}.png`), i);
  }
}

function options(changes: Partial<ShardOptions> & { augment?: object } = {}): ShardOptions {
  const { augment = {}, ...rest } = changes;
  return {
    dataDir: dir,
    classes: ['cat', 'dog'],
    input: inputSchema.parse({ height: 5, width: 6, channels: 1 }),
    augmentation: augmentationSchema.parse(augment),
    batchSize: 4,
    maxUnreadableShare: 0.1,
    ...rest,
  };
}

async function failure(changes: Partial<ShardOptions> = {}) {
  try {
    await openShard(options(changes));
  } catch (error) {
    return { code: errorCode(error), message: (error as Error).message };
  }
  throw new Error('the shard was opened');
}

/** Copies, since the memory of a batch is used again for the next. */
async function collect(batches: AsyncIterable<Batch>): Promise<Batch[]> {
  const all: Batch[] = [];
  for await (const batch of batches) all.push({ ...batch, images: batch.images.slice() });
  return all;
}

describe('openShard', () => {
  it('counts train and test folders, and gives test images in order', async () => {
    await writeClasses('train', { cat: 3, dog: 2 });
    await writeClasses('test', { cat: 1, dog: 2 });
    const shard = await openShard(options({ augment: { rescale: 0.5 } }));
    expect(shard.report).toEqual({
      trainExamples: 5,
      testExamples: 3,
      trainExamplesByClass: [3, 2],
      unreadable: [],
    });
    const [batch, ...more] = await collect(shard.testBatches());
    expect([more.length, batch!.shape, [...batch!.labels]]).toEqual([0, [3, 5, 6, 1], [0, 1, 1]]);
    // Image 0's first pixels are 0, 1, 2; times 0.5.
    expect([...batch!.images.subarray(0, 3)]).toEqual([0, 0.5, 1]);
    await shard.close();
  });

  it("holds out each class's first share of a single folder", async () => {
    await writeClasses('.', { cat: 5, dog: 4 });
    const shard = await openShard(options({ validationSplit: 0.25 }));
    // int(5 · 0.25) = 1 and int(4 · 0.25) = 1
    expect(shard.report).toMatchObject({ trainExamples: 7, testExamples: 2, trainExamplesByClass: [4, 3] });
    await shard.close();
  });

  it('repeats the same augmented batches for a seed, with and without decoded images at hand', async () => {
    await writeClasses('train', { cat: 9, dog: 8 });
    const augment = { rotationRange: 40, zoomRange: 0.3, horizontalFlip: true, fillMode: 'reflect' };
    const cached = await openShard(options({ augment }));
    const uncached = await openShard(options({ augment, maxCacheBytes: 0 }));
    const first = await collect(cached.trainBatches({ seed: 12, epochs: 2 }));
    expect(first.map((batch) => batch.labels.length)).toEqual([4, 4, 4, 4, 1, 4, 4, 4, 4, 1]);
    expect(await collect(uncached.trainBatches({ seed: 12, epochs: 2 }))).toEqual(first);
    expect(await collect(cached.trainBatches({ seed: 12, epochs: 2 }))).toEqual(first);
    expect(await collect(cached.trainBatches({ seed: 13, epochs: 2 }))).not.toEqual(first);
    await cached.close();
    await uncached.close();
  });

  it('gives the same bits with no image thread, one, and three, with room in the cache for some', async () => {
    await writeClasses('train', { cat: 9, dog: 8 });
    const augment = { rotationRange: 40, shearRange: 3, horizontalFlip: true, samplewiseCenter: true };
    const made = [];
    for (const imageThreads of [0, 1, 3]) {
      // 30 bytes an image: five of the seventeen are kept.
      const shard = await openShard(options({ augment, imageThreads, maxCacheBytes: 150 }));
      made.push(await collect(shard.trainBatches({ seed: 5, epochs: 2 })));
      await shard.close();
    }
    expect(made[0]).toHaveLength(10);
    expect(made[1]).toEqual(made[0]);
    expect(made[2]).toEqual(made[0]);
  });

  it.each(['exact', 'batched'] as const)('gives Poisson batches in parts, path %s', async (path) => {
    await writeClasses('train', { cat: 6, dog: 6 });
    if (path === 'batched') await tf.setBackend('cpu');
    for (const imageThreads of [0, 2]) {
      const shard = await openShard(options({ augment: { path, horizontalFlip: true }, imageThreads }));
      const sizes: number[] = [];
      let size = 0;
      for await (const part of shard.poissonBatches({ samplingRate: 0.3, steps: 60, tf })) {
        const n = part.labels.length;
        expect(part.shape).toEqual([n, 5, 6, 1]);
        expect(part.images.length).toBe(n * 30);
        expect(n).toBeLessThanOrEqual(4);
        size += n;
        if (!part.endsBatch) continue;
        sizes.push(size);
        size = 0;
      }
      await shard.close();
      expect(sizes).toHaveLength(60);
      // Binomial of 720 at 0.3: 216, standard deviation 12.3. All of one size: never, and one above 4 surely.
      expect(Math.abs(sizes.reduce((a, b) => a + b) - 216)).toBeLessThan(6 * 12.3);
      expect(new Set(sizes).size).toBeGreaterThan(2);
      expect(Math.max(...sizes)).toBeGreaterThan(4);
    }
  });

  it('gives empty Poisson batches too', async () => {
    await writeClasses('train', { cat: 1, dog: 1 });
    const shard = await openShard(options());
    const sizes: number[] = [];
    for await (const part of shard.poissonBatches({ samplingRate: 1e-12, steps: 3 })) {
      expect(part).toMatchObject({ shape: [0, 5, 6, 1], endsBatch: true });
      sizes.push(part.labels.length);
    }
    expect(sizes).toEqual([0, 0, 0]);
    await shard.close();
  });

  it('fails the batch of an image that was damaged after the check, and names it', async () => {
    await writeClasses('train', { cat: 3, dog: 3 });
    const shard = await openShard(options({ maxCacheBytes: 0 }));
    await writeFile(join(dir, 'train', 'dog', '1.png'), 'no pixels any more');
    await expect(collect(shard.trainBatches({ seed: 1 }))).rejects.toMatchObject({
      code: 'FED_IMAGE_UNREADABLE',
      message: expect.stringContaining('1.png'),
    });
    // The others are as they were.
    await writeImage('train/dog/1.png', 1);
    expect(await collect(shard.trainBatches({ seed: 1 }))).toHaveLength(2);
    await shard.close();
  });

  it('gives as many batches as steps ask for, over epochs', async () => {
    await writeClasses('train', { cat: 3, dog: 3 });
    const shard = await openShard(options());
    const batches = await collect(shard.trainBatches({ seed: 1, steps: 5 }));
    expect(batches.map((batch) => batch.labels.length)).toEqual([4, 2, 4, 2, 4]);
    await shard.close();
  });

  it('gives the batched path within 1e-3 of the exact one', async () => {
    await tf.setBackend('cpu');
    await writeClasses('train', { cat: 4, dog: 4 });
    const augment = {
      rotationRange: 40,
      shearRange: 10,
      zoomRange: 0.3,
      horizontalFlip: true,
      rescale: 1 / 255,
    };
    const exact = await openShard(options({ augment }));
    const batched = await openShard(options({ augment: { ...augment, path: 'batched' } }));
    const one = await collect(exact.trainBatches({ seed: 4 }));
    const other = await collect(batched.trainBatches({ seed: 4, tf }));
    expect(other.map(({ labels }) => labels)).toEqual(one.map(({ labels }) => labels));
    other.forEach(({ images }, b) => {
      images.forEach((value, i) => {
        expect(Math.abs(value - one[b]!.images[i]!)).toBeLessThan(1e-3);
      });
    });
    await exact.close();
    await batched.close();
  });

  it("fits featurewise statistics on the site's training images", async () => {
    await writeClasses('train', { cat: 4, dog: 3 });
    const shard = await openShard(options({ batchSize: 7, augment: { featurewiseStdNormalization: true } }));
    const [batch] = await collect(shard.trainBatches({ seed: 1 }));
    const mean = batch!.images.reduce((sum, value) => sum + value, 0) / batch!.images.length;
    const square = batch!.images.reduce((sum, value) => sum + value * value, 0) / batch!.images.length;
    // All training images and no transform: mean 0, variance 1.
    expect(mean).toBeCloseTo(0, 5);
    expect(square).toBeCloseTo(1, 5);
    await shard.close();
  });

  it('ends quietly when the loop is left early or the shard is closed', async () => {
    await writeClasses('train', { cat: 9, dog: 9 });
    const shard = await openShard(options({ maxCacheBytes: 0 }));
    for await (const batch of shard.trainBatches({ seed: 1, epochs: 100 })) {
      expect(batch.labels.length).toBe(4);
      break;
    }
    const iterator = shard.trainBatches({ seed: 1, epochs: 100 })[Symbol.asyncIterator]();
    await iterator.next();
    await shard.close();
    await expect(iterator.next()).rejects.toMatchObject({ name: 'AbortError' });
  });

  it("passes an abort's reason through", async () => {
    await writeClasses('train', { cat: 2, dog: 2 });
    const reason = new Error('enough');
    await expect(openShard(options({ signal: AbortSignal.abort(reason) }))).rejects.toBe(reason);
    const shard = await openShard(options());
    await expect(collect(shard.trainBatches({ seed: 1, signal: AbortSignal.abort(reason) }))).rejects.toBe(
      reason,
    );
    await shard.close();
  });
});

describe('openShard with bad input', () => {
  it('says that a folder is missing', async () => {
    const { code, message } = await failure({ dataDir: join(dir, 'nowhere') });
    expect(code).toBe('FED_DATA_FOLDER_MISSING');
    expect(message).toContain('nowhere');
  });

  it('says what to make when there are no class folders', async () => {
    expect((await failure()).code).toBe('FED_DATA_LAYOUT');
  });

  it('names missing and unexpected classes, and a close spelling', async () => {
    await writeClasses('train', { cta: 1, dog: 1, horse: 1 });
    const { code, message } = await failure({ classes: ['cat', 'dog', 'zebra'] });
    expect(code).toBe('FED_DATA_CLASSES_DIFFER');
    expect(message).toMatch(/missing: 'cat', 'zebra'/);
    expect(message).toMatch(/unexpected: 'cta', 'horse'/);
    expect(message).toMatch(/rename 'cta' to 'cat'\?/);
  });

  it('names a class of the test folder that the federation does not have', async () => {
    await writeClasses('train', { cat: 1, dog: 1 });
    await writeClasses('test', { Dog: 1 });
    const { code, message } = await failure();
    expect([code, message.includes("'Dog' to 'dog'")]).toEqual(['FED_DATA_CLASSES_DIFFER', true]);
  });

  it('names an empty class folder, unless a .none file says that it is meant', async () => {
    await writeClasses('train', { cat: 2, dog: 0 });
    const { code, message } = await failure();
    expect(code).toBe('FED_DATA_CLASS_EMPTY');
    expect(message).toContain("'dog'");
    await writeFile(join(dir, 'train', 'dog', '.none'), '');
    const shard = await openShard(options());
    expect(shard.report.trainExamplesByClass).toEqual([2, 0]);
    await shard.close();
  });

  it('sets unreadable images aside by name and reason', async () => {
    await writeClasses('train', { cat: 4, dog: 4 });
    await writeFile(join(dir, 'train', 'cat', 'notes.png'), 'no pixels here');
    await writeFile(join(dir, 'train', 'dog', 'zero.jpg'), '');
    const shard = await openShard(options({ maxUnreadableShare: 0.2 }));
    expect(shard.report).toMatchObject({ trainExamples: 8, trainExamplesByClass: [4, 4] });
    expect(shard.report.unreadable).toEqual([
      { file: join(dir, 'train', 'cat', 'notes.png'), reason: expect.stringContaining('not an image') },
      { file: join(dir, 'train', 'dog', 'zero.jpg'), reason: 'the file is empty' },
    ]);
    expect(
      (await collect(shard.trainBatches({ seed: 1 }))).flatMap(({ labels }) => [...labels]),
    ).toHaveLength(8);
    await shard.close();
  });

  it('refuses a shard with too many unreadable images, naming the first', async () => {
    await writeClasses('train', { cat: 1, dog: 1 });
    for (let i = 0; i < 7; i++) await writeFile(join(dir, 'train', 'cat', `bad${i}.png`), 'x');
    const { code, message } = await failure({ maxUnreadableShare: 0.5 });
    expect(code).toBe('FED_DATA_TOO_MANY_UNREADABLE');
    // 7 of 9 are 77.8%
    expect(message).toMatch(/7 of 9 images \(77\.8%\).*allows 50%/s);
    expect(message).toContain('bad0.png');
    expect(message).toContain('and 2 more');
  });

  it('refuses a shard of which nothing can be read, whatever the share', async () => {
    await writeClasses('train', { cat: 0, dog: 0 });
    for (const name of ['cat', 'dog']) await writeFile(join(dir, 'train', name, 'bad.png'), 'x');
    expect((await failure({ maxUnreadableShare: 1 })).code).toBe('FED_DATA_TOO_MANY_UNREADABLE');
  });
});

describe('the index of looked-at images', () => {
  it('is trusted while size and time are the same, and not after', async () => {
    await writeClasses('train', { cat: 2, dog: 2 });
    const cacheDir = join(dir, 'cache');
    const file = join(dir, 'train', 'cat', '0.png');
    const bad = join(dir, 'train', 'cat', 'bad.png');
    await writeFile(bad, 'x');
    const open = async () => {
      const shard = await openShard(options({ cacheDir, maxUnreadableShare: 0.5 }));
      await shard.close();
      return shard.report.unreadable.map((entry) => entry.file);
    };
    expect(await open()).toEqual([bad]);
    expect(await readdir(cacheDir)).toHaveLength(1);
    expect(await open()).toEqual([bad]);
    await copyFile(file, bad);
    expect(await open()).toEqual([]);
    // Same size and time: what the index says about it is not asked again.
    await utimes(bad, new Date(1e12), new Date(1e12));
    expect(await open()).toEqual([]);
  });

  it('is only a shortcut: a damaged one is made anew', async () => {
    await writeClasses('train', { cat: 1, dog: 1 });
    const cacheDir = join(dir, 'cache');
    const first = await openShard(options({ cacheDir }));
    await first.close();
    const [name] = await readdir(cacheDir);
    await writeFile(join(cacheDir, name!), '{"version":');
    const shard = await openShard(options({ cacheDir }));
    expect(shard.report.trainExamples).toBe(2);
    await shard.close();
  });
});

describe('forEachLimited', () => {
  it('runs no more than the limit at a time and stops at a failure', async () => {
    let running = 0;
    let most = 0;
    let started = 0;
    const run = forEachLimited(20, 3, async (i) => {
      started++;
      most = Math.max(most, ++running);
      await Promise.resolve();
      running--;
      if (i === 5) throw new Error('six');
    });
    await expect(run).rejects.toThrow('six');
    expect(most).toBe(3);
    expect(started).toBeLessThan(20);
  });
});
