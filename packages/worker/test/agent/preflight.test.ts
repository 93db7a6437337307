import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PreflightStep } from '../../src/agent/events.ts';
import { clockStep, preflight } from '../../src/agent/preflight.ts';
import { federationView } from './scripted-coordinator.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-preflight-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function image(path: string, size = 8): Promise<string> {
  const full = join(root, path);
  await mkdir(join(full, '..'), { recursive: true });
  await sharp({ create: { width: size, height: size, channels: 3, background: '#fa0' } }).toFile(full);
  return full;
}

async function steps(overrides: Parameters<typeof federationView>[0] = {}): Promise<PreflightStep[]> {
  const found: PreflightStep[] = [];
  for await (const step of preflight({
    federation: federationView(overrides),
    dataDir: root,
    stateDir: root,
  })) {
    found.push(step);
  }
  return found;
}

describe('preflight', () => {
  test('passes a folder that agrees with the federation', async () => {
    await image('train/cross/a.png');
    await image('train/ring/b.jpg');
    expect((await steps()).map(({ name, state }) => `${name} ${state}`)).toEqual([
      'disk ok',
      'data ok',
      'images ok',
    ]);
  });

  test('takes a folder of classes without train/ too', async () => {
    await image('cross/a.png');
    await image('ring/b.webp');
    expect((await steps()).map(({ state }) => state)).toEqual(['ok', 'ok', 'ok']);
  });

  test('names the folder that is no class of the federation, and the one that is missing', async () => {
    await image('train/cross/a.png');
    await image('train/Ring/b.png');
    const last = (await steps()).at(-1);
    expect(last).toMatchObject({ name: 'data', state: 'fail' });
    expect(last?.detail).toContain("missing: 'ring'; unexpected: 'Ring'");
  });

  test('refuses an empty class folder, unless the site says that it has no such images', async () => {
    await image('train/cross/a.png');
    await mkdir(join(root, 'train/ring'));
    expect((await steps()).at(-1)).toMatchObject({ name: 'data', state: 'fail' });
    await writeFile(join(root, 'train/ring/.none'), '');
    expect((await steps()).at(-1)).toMatchObject({ name: 'images', state: 'ok' });
  });

  test('says where it looked when the folder is not there', async () => {
    const found: PreflightStep[] = [];
    const dataDir = join(root, 'nowhere');
    for await (const step of preflight({ federation: federationView(), dataDir, stateDir: root })) {
      found.push(step);
    }
    expect(found.at(-1)).toMatchObject({ name: 'data', state: 'fail' });
    expect(found.at(-1)?.detail).toContain(dataDir);
  });

  test('names a text file called .png and a truncated JPEG, and goes on without them', async () => {
    await image('train/cross/a.png');
    await writeFile(join(root, 'train/cross/notes.png'), 'these are words');
    const jpeg = await image('train/ring/cut.jpg', 200);
    await truncate(jpeg, 300);
    const last = (await steps()).at(-1);
    expect(last).toMatchObject({ name: 'images', state: 'warn' });
    expect(last?.detail).toContain('2 of a batch of 3 images');
    expect(last?.detail).toContain('notes.png');
    expect(last?.detail).toContain('cut.jpg');
  });

  test('refuses a site none of whose first images can be read', async () => {
    for (const path of ['train/cross/a.png', 'train/ring/b.png']) {
      await mkdir(join(root, path, '..'), { recursive: true });
      await writeFile(join(root, path), 'these are words');
    }
    expect((await steps()).at(-1)).toMatchObject({ name: 'images', state: 'fail' });
  });

  test('refuses a disk without room for three models', async () => {
    await image('train/cross/a.png');
    // A petabyte three times over fits on no test machine.
    const found = await steps({ modelBytes: 2 ** 50 });
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ name: 'disk', state: 'fail' });
    expect(found[0]?.detail).toContain('3,221,225,472 MiB needed');
  });
});

describe('clock', () => {
  test('passes a second, warns of a minute, refuses an hour', () => {
    expect(clockStep(900).state).toBe('ok');
    expect(clockStep(60_000)).toMatchObject({ state: 'warn', detail: '60.0 s behind the coordinator’s' });
    expect(clockStep(-3_600_000)).toMatchObject({
      state: 'fail',
      detail: '3600.0 s ahead of the coordinator’s',
    });
  });

  test('refuses at more than five minutes, not at five', () => {
    expect(clockStep(300_000).state).toBe('warn');
    expect(clockStep(300_001).state).toBe('fail');
  });
});
