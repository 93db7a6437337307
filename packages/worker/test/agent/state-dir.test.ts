import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createBackoff } from '../../src/agent/backoff.ts';
import { openSpool } from '../../src/agent/spool.ts';
import { findStateDir, openStateDir, siteStateDir, stateHome } from '../../src/agent/state-dir.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-agent-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const BASE = 'ab'.repeat(32);
const OTHER = 'cd'.repeat(32);

describe('backoff', () => {
  test('doubles the ceiling up to the cap and draws below it', () => {
    const backoff = createBackoff({ baseMs: 500, capMs: 3000, random: () => 0.5 });
    // ceilings 500, 1000, 2000, 3000 (capped from 4000), 3000; half of each
    expect(Array.from({ length: 5 }, () => backoff.next())).toEqual([250, 500, 1000, 1500, 1500]);
    expect(backoff.attempt).toBe(5);
    backoff.reset();
    expect(backoff.next()).toBe(250);
  });

  test('stays below 30 seconds however many dials failed', () => {
    const backoff = createBackoff({ random: () => 0.999_999 });
    const delays = Array.from({ length: 2000 }, () => backoff.next());
    expect(Math.max(...delays)).toBe(29_999);
  });
});

describe('state folder', () => {
  test('is TRIBUTARY_HOME when that is set, else in the user state folder', () => {
    expect(stateHome({ TRIBUTARY_HOME: root })).toBe(root);
    expect(stateHome({})).toMatch(/tributary$/);
  });

  test('keeps names apart that a file system would not', () => {
    const paths = ['..', 'a/b', 'a_b', '*'].map((name) => siteStateDir(root, 'run', name));
    expect(new Set(paths).size).toBe(4);
    for (const path of paths) expect(path.startsWith(join(root, 'sites', 'run', ''))).toBe(true);
    for (const path of paths) expect(path.slice(join(root, 'sites', 'run').length + 1)).not.toContain('/');
  });

  test('keeps the credential where only its owner can read it', async () => {
    const state = await openStateDir(join(root, 's'));
    expect(await state.readCredential()).toBeUndefined();
    const credential = {
      version: 2 as const,
      url: 'https://127.0.0.1:1',
      runId: 'run',
      name: 'a',
      publicKey: 'K'.repeat(43),
      confirmed: false,
    };
    await state.writeCredential(credential);
    expect(await state.readCredential()).toEqual(credential);
    expect((await stat(join(root, 's', 'credential.json'))).mode & 0o777).toBe(0o600);
    await state.release();
  });

  test('says so when the credential file is something else', async () => {
    const state = await openStateDir(join(root, 's'));
    await writeFile(join(root, 's', 'credential.json'), '{"version":1}');
    await expect(state.readCredential()).rejects.toMatchObject({ code: 'FED_WORKER_STATE_UNUSABLE' });
    await state.release();
  });

  test('makes a key once, keeps it where only its owner can read it, and knows it again', async () => {
    const state = await openStateDir(join(root, 's'));
    const made = await state.openKey({ create: true });
    expect(made).toMatchObject({ made: true, path: join(root, 's', 'node.key') });
    expect((await stat(made.path)).mode & 0o777).toBe(0o600);
    expect(await readFile(made.path, 'utf8')).toMatch(/^-----BEGIN PRIVATE KEY-----/);
    const again = await state.openKey({ create: true });
    expect(again).toMatchObject({ made: false, key: { publicKey: made.key.publicKey } });
    await state.release();
  });

  test('makes no second key for a site that has joined, and says so when the file is no key', async () => {
    const state = await openStateDir(join(root, 's'));
    await expect(state.openKey({ create: false })).rejects.toMatchObject({
      code: 'FED_WORKER_KEY',
      message: expect.stringContaining('is gone'),
    });
    await writeFile(join(root, 's', 'node.key'), 'not a key');
    await expect(state.openKey({ create: true })).rejects.toMatchObject({ code: 'FED_WORKER_KEY' });
    await state.release();
  });

  test('refuses a second agent and lets one in after release', async () => {
    const first = await openStateDir(join(root, 's'));
    await expect(openStateDir(join(root, 's'))).rejects.toMatchObject({ code: 'FED_WORKER_STATE_LOCKED' });
    await first.release();
    await (await openStateDir(join(root, 's'))).release();
    expect((await readdir(join(root, 's'))).filter((file) => file.startsWith('lock'))).toEqual(['lock.2']);
  });

  test('refuses while another living process holds it, and takes over from one that was killed', async () => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
    await once(child, 'spawn');
    const lock = JSON.stringify({ pid: child.pid, born: '', token: 'theirs' });
    await mkdir(join(root, 's'), { recursive: true });
    await writeFile(join(root, 's', 'lock.1'), lock);
    await expect(openStateDir(join(root, 's'))).rejects.toThrow(`process ${child.pid}`);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await (await openStateDir(join(root, 's'))).release();
  });

  test('takes over a lock that bears its own process number from a former life', async () => {
    await mkdir(join(root, 's'), { recursive: true });
    await writeFile(
      join(root, 's', 'lock.1'),
      JSON.stringify({ pid: process.pid, born: '1', token: 'before the restart of a container' }),
    );
    await (await openStateDir(join(root, 's'))).release();
  });

  test('lets exactly one of many in when all find a stale lock', async () => {
    await mkdir(join(root, 's'), { recursive: true });
    await writeFile(join(root, 's', 'lock.1'), 'not a lock at all');
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => openStateDir(join(root, 's'))));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  test('sweeps away what agents left that were killed while they took the lock or wrote the credential', async () => {
    const dir = join(root, 's');
    await mkdir(dir, { recursive: true });
    // As a full disk leaves it, and as SIGKILL does: no process has the number 2^22 + 1 (PID_MAX_LIMIT is 2^22).
    await writeFile(join(dir, 'lock-draft.empty'), '');
    const dead = { pid: 2 ** 22 + 1, born: '1', token: 't' };
    await writeFile(join(dir, 'lock-draft.dead'), JSON.stringify(dead));
    await writeFile(join(dir, 'credential.json.4711.tmp'), '{"ver');
    const living = { pid: process.ppid, born: '', token: 'u' };
    await writeFile(join(dir, 'lock-draft.living'), JSON.stringify(living));
    const state = await openStateDir(dir);
    const files = (await readdir(dir)).filter((file) => /draft|tmp/.test(file));
    expect(files).toEqual(['lock-draft.living']);
    await state.release();
  });

  test('leaves no draft of a lock behind on a full disk, when it is taken or given back', async ({
    skip,
  }) => {
    const dir = join(root, 'disk');
    await mkdir(dir);
    const mount = (...args: string[]) => spawnSync('mount', args).status === 0;
    if (!mount('-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', dir)) {
      return skip('this user may not mount a small file system');
    }
    try {
      const state = await openStateDir(dir);
      await writeFile(join(dir, 'balloon'), Buffer.alloc(256 * 1024)).catch(() => undefined);
      await state.release();
      await expect(openStateDir(dir)).rejects.toMatchObject({ code: 'FED_WORKER_STATE_UNUSABLE' });
      expect((await readdir(dir)).filter((file) => file.startsWith('lock-draft'))).toEqual([]);
      await rm(join(dir, 'balloon'));
      await (await openStateDir(dir)).release();
    } finally {
      spawnSync('umount', ['-l', dir]);
    }
  });

  test('is found again by name alone, and asks when several runs fit', async () => {
    await expect(findStateDir(root, 'a')).rejects.toMatchObject({ code: 'FED_WORKER_NO_CREDENTIAL' });
    await mkdir(siteStateDir(root, 'run-1', 'a'), { recursive: true });
    expect(await findStateDir(root, 'a')).toBe(siteStateDir(root, 'run-1', 'a'));
    expect(await findStateDir(root)).toBe(siteStateDir(root, 'run-1', 'a'));
    await mkdir(siteStateDir(root, 'run-2', 'a'), { recursive: true });
    await expect(findStateDir(root, 'a')).rejects.toThrow('2 runs');
  });

  test('says what to do when the folder cannot be made', async () => {
    await writeFile(join(root, 'file'), '');
    await expect(openStateDir(join(root, 'file', 's'))).rejects.toMatchObject({
      code: 'FED_WORKER_STATE_UNUSABLE',
      message: expect.stringContaining('TRIBUTARY_HOME'),
    });
  });
});

describe('spool', () => {
  const key = { task: 'train', round: 3, base: BASE } as const;
  const result = { numExamples: 7, metrics: { loss: 0.5 } };

  async function spoolWithUpdate(bytes = 'update') {
    const spool = await openSpool(root);
    await writeFile(spool.updatePath(key), bytes);
    await spool.addUpdate(key, result);
    return spool;
  }

  test('keeps an update over a restart, with its digest', async () => {
    await spoolWithUpdate();
    const again = await openSpool(root);
    expect(again.entries).toEqual([
      {
        version: 1,
        task: 'train',
        round: 3,
        base: BASE,
        numExamples: 7,
        metrics: { loss: 0.5 },
        // printf update | sha256sum
        update: '2937013f2181810606b2a799b05bda2849f3e369a20982a4138f0e0a55984ce4',
        bytes: 6,
      },
    ]);
    expect(again.find(key)?.numExamples).toBe(7);
    expect(again.find({ ...key, base: OTHER })).toBeUndefined();
    expect(again.find({ ...key, task: 'evaluate' })).toBeUndefined();
  });

  test('sweeps away what a killed agent left half done', async () => {
    const spool = await openSpool(root);
    await writeFile(spool.updatePath(key), 'trained, but its sidecar was never written');
    await writeFile(join(root, 'train-000001-x.update.123.tmp'), 'half');
    await writeFile(join(root, `evaluate-000001-${BASE}.json`), '{"cut o');
    expect((await openSpool(root)).entries).toEqual([]);
    expect(await readdir(root)).toEqual([]);
  });

  test('forgets an update whose file is shorter than its sidecar says', async () => {
    const spool = await spoolWithUpdate();
    await writeFile(spool.updatePath(key), 'upd');
    expect((await openSpool(root)).entries).toEqual([]);
  });

  test('lists the oldest round first, training before evaluation', async () => {
    const spool = await spoolWithUpdate();
    await spool.addEvaluation({ task: 'evaluate', round: 3, base: OTHER }, result);
    await spool.addEvaluation({ task: 'evaluate', round: 2, base: BASE }, result);
    const order = (await openSpool(root)).entries.map(({ task, round }) => `${task} ${round}`);
    expect(order).toEqual(['evaluate 2', 'train 3', 'evaluate 3']);
  });

  test('removes an entry with its file, twice without harm', async () => {
    const spool = await spoolWithUpdate();
    await spool.remove(key);
    await spool.remove(key);
    expect(spool.entries).toEqual([]);
    expect(await readdir(root)).toEqual([]);
  });

  test('writes JSON that a person can read', async () => {
    await spoolWithUpdate();
    const text = await readFile(join(root, `train-000003-${BASE}.json`), 'utf8');
    expect(JSON.parse(text)).toMatchObject({ task: 'train', round: 3 });
  });
});
