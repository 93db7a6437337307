import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { augmentationSchema, inputSchema } from '@tributary/shared-protocol';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ImageDataGenerator } from '../../src/images/image-data-generator.ts';
import { createImagePool, type ImagePool } from '../../src/pipeline/image-pool.ts';
import { cancel, type ImageJob, type ImageTask, newClaims, stateOf } from '../../src/pipeline/job.ts';

const [HEIGHT, WIDTH] = [6, 8];
const LENGTH = HEIGHT * WIDTH * 3;
const input = inputSchema.parse({ height: HEIGHT, width: WIDTH, channels: 3 });
const { path: _, ...augmentation } = augmentationSchema.parse({
  rotationRange: 30,
  shearRange: 5,
  zoomRange: 0.3,
  horizontalFlip: true,
  verticalFlip: true,
  rescale: 1 / 255,
});

let dir: string;
const files: string[] = [];
const open: ImagePool[] = [];
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tributary-pool-'));
  for (let i = 0; i < 7; i++) {
    const file = join(dir, `${i}.png`);
    const data = Uint8Array.from({ length: LENGTH }, (_, k) => (i * 31 + k * 7) % 256);
    await sharp(data, { raw: { width: WIDTH, height: HEIGHT, channels: 3 } })
      .png()
      .toFile(file);
    files.push(file);
  }
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((pool) => pool.close()));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

function pool(threads: number, options: object = augmentation): ImagePool {
  const made = createImagePool({ input, augmentation: { ...augmentation, ...options } }, threads);
  open.push(made);
  return made;
}

function jobOf(tasks: readonly ImageTask[], output: ImageJob['output'] = 'floats'): ImageJob {
  const target = new SharedArrayBuffer(tasks.length * LENGTH * 4);
  return { tasks, claims: newClaims(tasks.length), target, output };
}

describe('createImagePool', () => {
  it('makes the same floats with no thread, one, and three', async () => {
    const generator = new ImageDataGenerator(augmentation);
    const tasks = files.map((file, i) => ({
      file,
      transform: generator.getRandomTransform([HEIGHT, WIDTH, 3], i),
    }));
    const made = [];
    for (const threads of [0, 1, 3]) {
      const job = jobOf(tasks);
      await pool(threads).run(job);
      made.push(new Float32Array(job.target!).slice());
    }
    expect(made[1]).toEqual(made[0]);
    expect(made[2]).toEqual(made[0]);
    // And they are what the generator makes of the same file: image 2's own bytes, moved and rescaled.
    const data = Uint8Array.from({ length: LENGTH }, (_, k) => (2 * 31 + k * 7) % 256);
    const shape = [HEIGHT, WIDTH, 3] as const;
    const alone = generator.standardize(generator.applyTransform({ data, shape }, tasks[2]!.transform));
    expect(made[0]!.subarray(2 * LENGTH, 3 * LENGTH)).toEqual(alone.data);
  });

  it('keeps decoded bytes where it is told to, and reads them back from there', async () => {
    const slab = new SharedArrayBuffer(2 * LENGTH);
    const threads = pool(1);
    await threads.run(jobOf([{ file: files[3]!, keep: { slab, offset: LENGTH } }], 'bytes'));
    expect([...new Uint8Array(slab, LENGTH, 3)]).toEqual([93, 100, 107]);
    const cached = jobOf([{ file: 'no such file', cached: { slab, offset: LENGTH } }], 'bytes');
    await threads.run(cached);
    expect([...new Uint8Array(cached.target!, 0, 3)]).toEqual([93, 100, 107]);
  });

  it('standardises with statistics that came after the threads had started', async () => {
    const options = { featurewiseCenter: true, rescale: null };
    const threads = pool(2, options);
    await threads.run(jobOf([{ file: files[0]! }], 'bytes'));
    threads.useStatistics({ mean: Float64Array.of(1, 2, 3) });
    const job = jobOf([{ file: files[0]! }]);
    await threads.run(job);
    // Pixels 0, 7, 14 less 1, 2, 3.
    expect([...new Float32Array(job.target!, 0, 3)]).toEqual([-1, 5, 11]);
  });

  for (const threads of [0, 2]) {
    it(`names the first file that failed, once the others are done (${threads} threads)`, async () => {
      const bad = join(dir, 'bad.png');
      await writeFile(bad, 'no pixels');
      const job = jobOf([files[0]!, bad, join(dir, 'gone.png'), files[1]!].map((file) => ({ file })));
      await expect(pool(threads).run(job)).rejects.toMatchObject({
        name: 'WorkerError',
        code: 'FED_IMAGE_UNREADABLE',
        message: expect.stringContaining('bad.png'),
      });
      expect([0, 1, 2, 3].map((i) => stateOf(job, i))).toEqual([-1, 0, 0, -1]);
    });

    it(`names the file of an error that nobody foresaw (${threads} threads)`, async () => {
      // A place that lies outside its slab.
      const keep = { slab: new SharedArrayBuffer(8), offset: 4 };
      const job = jobOf([{ file: files[0]! }, { file: files[4]!, keep }]);
      await expect(pool(threads).run(job)).rejects.toThrow(/4\.png: .*(length|range)/i);
    });

    it(`settles a cancelled job without making more of it (${threads} threads)`, async () => {
      const job = jobOf(files.map((file) => ({ file })));
      cancel(job);
      await pool(threads).run(job);
      expect(files.map((_, i) => stateOf(job, i))).toEqual(files.map(() => 0));
    });
  }

  it('close settles what runs, and a later job is refused', async () => {
    const threads = pool(2);
    const running = threads.run(jobOf(Array.from({ length: 500 }, (_, i) => ({ file: files[i % 7]! }))));
    await threads.close();
    await running;
    await expect(threads.run(jobOf([{ file: files[0]! }]))).rejects.toThrow('were ended');
  });
});
