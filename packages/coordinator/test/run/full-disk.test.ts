import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunEvent } from '@tributary/shared-protocol';
import { describe, expect, it, onTestFinished } from 'vitest';
import { verifyRunLog } from '../../src/index.ts';
import { openRunLog } from '../../src/run/log.ts';
import { openMetricsFile } from '../../src/run/metrics-file.ts';
import { adds, startRun, temporaryDir } from '../federation.ts';

function mount(...args: string[]): boolean {
  return spawnSync('mount', args).status === 0;
}

/** A disk of 300 KiB, or undefined where this user may not mount one. */
function tinyDisk(): string | undefined {
  const dir = temporaryDir();
  if (!mount('-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', dir)) return undefined;
  onTestFinished(() => void spawnSync('umount', ['-l', dir]));
  return dir;
}

/** Takes all room that is left, to the last byte of the last page; returns the file that has it. */
function fill(dir: string): string {
  const balloon = join(dir, 'balloon');
  try {
    writeFileSync(balloon, Buffer.alloc(1024 * 1024));
  } catch {
    // It got as much as there was.
  }
  return balloon;
}

describe('a disk that is really full', () => {
  it('takes a record of the log whole or not at all, so that the next one follows the last whole one', async ({
    skip,
  }) => {
    const dir = tinyDisk();
    if (dir === undefined) return skip('this user may not mount a small file system');
    const [path, keyPath, headPath] = ['log.jsonl', 'log.key', 'log.head'].map((name) => join(dir, name));
    const options = { path: path!, keyPath: keyPath!, headPath: headPath!, config: 'c' };
    const log = await openRunLog(options);
    const append = (reason: string) => log.append({ type: 'left', clientId: 'c', name: 'a', reason });
    append('before');
    const balloon = fill(dir);
    // A page of 4096 bytes is begun: the beginning of a longer line finds room in it, its end does not.
    expect(() => append('x'.repeat(6000))).toThrow(expect.objectContaining({ code: 'FED_RUN_STORAGE' }));
    rmSync(balloon);
    append('after');
    log.close();
    const records = verifyRunLog(options.path, log.key.publicKey);
    expect(records).toMatchObject([{ reason: 'before' }, { reason: 'after' }]);
  });

  it('leaves events out of metrics.jsonl, says so once, and never tears a line', ({ skip }) => {
    const dir = tinyDisk();
    if (dir === undefined) return skip('this user may not mount a small file system');
    const path = join(dir, 'metrics.jsonl');
    const said: string[] = [];
    const metrics = openMetricsFile(path, (message) => said.push(message));
    const event = (round: number, padding = ''): RunEvent => ({
      at: 0,
      type: 'warning',
      message: `${round}${padding}`,
    });
    metrics.write(event(1));
    const balloon = fill(dir);
    for (const round of [2, 3]) metrics.write(event(round, 'x'.repeat(6000)));
    expect(said).toEqual([expect.stringContaining('the disk is full')]);
    rmSync(balloon);
    metrics.write(event(4));
    expect(said[1]).toBe(`${path} can be written again; 2 events are not in it`);
    const lines = readFileSync(path, 'utf8').trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as RunEvent)).toEqual([event(1), event(4)]);
  });

  it('ends the call with FED_RUN_STORAGE; with more room the same call goes on', async ({ skip }) => {
    const runDir = tinyDisk();
    if (runDir === undefined) return skip('this user may not mount a small file system');
    // 100 KiB a model: the initial checkpoint and one update fit, the second update or the next checkpoint does not.
    const data = new Float32Array(25_600);
    const model = {
      name: 'flat',
      topology: '{}',
      weights: [{ name: 'w', dtype: 'float32' as const, shape: [data.length], data }],
      frozenWeights: [],
    };
    const config = { rounds: 1, evaluation: { sites: false } };
    const run = await startRun(config, { runDir, model });
    const a = await run.join('a', { train: adds(1) });
    const b = await run.join('b', { train: adds(1) });
    await expect(run.coordinator.run()).rejects.toMatchObject({
      code: 'FED_RUN_STORAGE',
      message: expect.stringContaining('the disk is full'),
    });
    await run.coordinator.close();

    expect(mount('-o', 'remount,size=8m', runDir)).toBe(true);
    const later = await startRun(config, { runDir, model });
    await later.join('a', { credential: a.credential, train: adds(1) });
    await later.join('b', { credential: b.credential, train: adds(1) });
    expect(await later.coordinator.run()).toMatchObject({ reason: 'rounds', rounds: 1 });
  });
});
