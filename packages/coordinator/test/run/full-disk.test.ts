import { spawnSync } from 'node:child_process';
import { describe, expect, it, onTestFinished } from 'vitest';
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

describe('a disk that is really full', () => {
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
