import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Digits, openDigits, writeDigits } from '../../src/demo/digits.ts';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'tributary-digits-'));
let digits: Digits;

beforeAll(async () => {
  digits = await openDigits([root]);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('digits', () => {
  test('openDigits: ten thousand real digits, every one with ink on it', () => {
    expect(digits.counts.length).toBe(10);
    expect(digits.counts.reduce((a, b) => a + b, 0)).toBe(10_000);
    for (let digit = 0; digit < 10; digit++)
      expect(Math.max(...digits.pixels(digit, 0))).toBeGreaterThan(200);
  });

  test('openDigits: says how to install them where they are missing', async () => {
    await expect(openDigits([dir])).rejects.toMatchObject({ code: 'FED_CLI_DEMO_DIGITS_MISSING' });
  });

  test('writeDigits: the PNG holds exactly the pixels, grey or RGB, and is written once', async () => {
    const files = [{ digit: 7, sample: 3, path: 'train/7/0003.png' }];
    for (const channels of [1, 3] as const) {
      const target = join(dir, `data-${channels}`);
      const options = { dir: target, files, digits: async () => digits, channels };
      expect(await writeDigits(options)).toBe(true);
      expect(await writeDigits(options)).toBe(false);
      const file = join(target, files[0]!.path);
      expect(await sharp(file).metadata()).toMatchObject({ width: 28, height: 28, channels });
      const data = await sharp(file)
        .toColourspace(channels === 1 ? 'b-w' : 'srgb')
        .raw()
        .toBuffer();
      const first = Uint8Array.from({ length: 784 }, (_, i) => data[i * channels]!);
      expect(first).toEqual(digits.pixels(7, 3));
    }
  });

  test('writeDigits: another list replaces what is there', async () => {
    const target = join(dir, 'again');
    await writeDigits({
      dir: target,
      files: [{ digit: 1, sample: 0, path: 'a/1.png' }],
      digits: async () => digits,
    });
    expect(
      await writeDigits({
        dir: target,
        files: [{ digit: 1, sample: 0, path: 'b/1.png' }],
        digits: async () => digits,
      }),
    ).toBe(true);
    expect(() => statSync(join(target, 'a/1.png'))).toThrow();
  });
});
