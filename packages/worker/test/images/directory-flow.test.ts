import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { errorCode } from '@tributary/shared-protocol';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ImageDataGenerator } from '../../src/images/image-data-generator.ts';
import { byCodePoint, listImages, takeSubset } from '../../src/images/listing.ts';

let dir: string;
/** Each image is one colour, which tells the file. */
const COLOURS: Record<string, number> = {
  'a/1.png': 10,
  'a/2.png': 20,
  'a/sub/3.png': 30,
  'b/4.png': 40,
  'b/5.PNG': 50,
};

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tributary-flow-'));
  for (const [path, value] of Object.entries(COLOURS)) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    const data = new Uint8Array(4 * 4 * 3).fill(value);
    await sharp(data, { raw: { width: 4, height: 4, channels: 3 } })
      .png()
      .toFile(join(dir, path));
  }
  await writeFile(join(dir, 'b', 'notes.txt'), 'not listed');
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const options = { targetSize: [2, 2], batchSize: 3, shuffle: false } as const;

describe('flowFromDirectory', () => {
  it('gives images in the order of the files, with one-hot labels', async () => {
    const flow = await new ImageDataGenerator().flowFromDirectory(dir, options);
    expect(flow.filenames).toEqual(Object.keys(COLOURS));
    expect([flow.length, flow.classNames]).toEqual([2, ['a', 'b']]);
    const first = await flow.next();
    const second = await flow.next();
    expect(first.images.shape).toEqual([3, 2, 2, 3]);
    expect([first.images.data[0], first.images.data[12], first.images.data[24]]).toEqual([10, 20, 30]);
    expect([...first.labels!]).toEqual([1, 0, 1, 0, 1, 0]);
    expect([...second.labels!]).toEqual([0, 1, 0, 1]);
  });

  it('labels by class mode', async () => {
    const labels = async (classMode: 'binary' | 'sparse' | 'input' | null) => {
      const flow = await new ImageDataGenerator({ rescale: 0.5 }).flowFromDirectory(dir, {
        ...options,
        classMode,
      });
      return (await flow.get(1)).labels;
    };
    expect([...(await labels('binary'))!]).toEqual([1, 1]);
    expect([...(await labels('sparse'))!]).toEqual([1, 1]);
    // The standardised images: 40 · 0.5
    expect((await labels('input'))![0]).toBe(20);
    expect(await labels(null)).toBeUndefined();
  });

  it('gives planes in channels_first, and one channel in grayscale', async () => {
    const first = new ImageDataGenerator({ dataFormat: 'channels_first' });
    expect((await (await first.flowFromDirectory(dir, options)).next()).images.shape).toEqual([3, 3, 2, 2]);
    const grey = await new ImageDataGenerator().flowFromDirectory(dir, {
      ...options,
      colorMode: 'grayscale',
    });
    expect((await grey.next()).images.shape).toEqual([3, 2, 2, 1]);
  });

  it('repeats seeded epochs, augmentation and all', async () => {
    const generator = new ImageDataGenerator({ channelShiftRange: 50, brightnessRange: [0.5, 1.5] });
    const read = async () => {
      const flow = await generator.flowFromDirectory(dir, { ...options, shuffle: true, seed: 9 });
      const batches: number[][] = [];
      for await (const batch of flow) {
        batches.push([...batch.indices, ...batch.images.data]);
        if (batches.length === 4) break;
      }
      return batches;
    };
    expect(await read()).toEqual(await read());
  });

  it('keeps the order of the classes that are asked for, and names one that is not there', async () => {
    const flow = await new ImageDataGenerator().flowFromDirectory(dir, { ...options, classes: ['b', 'a'] });
    expect(flow.classIndices).toEqual({ b: 0, a: 1 });
    const missing = new ImageDataGenerator().flowFromDirectory(dir, { ...options, classes: ['c'] });
    await expect(missing.catch((error) => errorCode(error))).resolves.toBe('FED_DATA_FOLDER_MISSING');
  });
});

describe('listing', () => {
  it('sorts by code point, not by UTF-16 unit', () => {
    // U+FFFD comes before U+1F600, whose first UTF-16 unit is 0xD83D.
    expect(['\u{1f600}', '\ufffd', 'a', 'B', '10', '2'].sort(byCodePoint)).toEqual([
      '10',
      '2',
      'B',
      'a',
      '\ufffd',
      '\u{1f600}',
    ]);
  });

  it('follows links to folders only when asked, and no link in a circle', async () => {
    const root = await mkdtemp(join(tmpdir(), 'tributary-links-'));
    await mkdir(join(root, 'c'));
    await mkdir(join(root, 'elsewhere'));
    await writeFile(join(root, 'elsewhere', 'x.png'), '');
    await symlink(join(root, 'elsewhere'), join(root, 'c', 'link'));
    await symlink(join(root, 'c'), join(root, 'c', 'circle'));
    expect(await listImages(root, 'c')).toEqual([]);
    expect(await listImages(root, 'c', { followLinks: true })).toEqual(['c/link/x.png']);
    await rm(root, { recursive: true });
  });

  it('splits so that no file is in both subsets or in none', () => {
    const files = ['1', '2', '3', '4', '5', '6', '7'];
    for (const share of [0.1, 0.3, 0.5, 0.99]) {
      const both = [...takeSubset(files, share, 'validation'), ...takeSubset(files, share, 'training')];
      expect(both).toEqual(files);
    }
  });
});
