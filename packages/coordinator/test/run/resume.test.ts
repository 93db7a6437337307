import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sha256 } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import type { RunSummary } from '../../src/index.ts';
import { adds, artifact, startRun, temporaryDir } from '../federation.ts';

const child = fileURLToPath(new URL('crash-child.ts', import.meta.url));

function play(runDir: string, crashAt?: string) {
  const { TRIBUTARY_CRASH_AT: _none, ...env } = process.env;
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ['--conditions=@tributary/source', '--import', 'tsx', child, runDir],
    { encoding: 'utf8', env: crashAt === undefined ? env : { ...env, TRIBUTARY_CRASH_AT: crashAt } },
  );
  return { status, signal, stdout, stderr };
}

function weightsOf(runDir: string): string {
  return sha256(readFileSync(join(runDir, 'checkpoints/round-0003.safetensors')));
}

describe('a run that is killed', () => {
  const undisturbed = temporaryOnce();

  it.each([
    'coordinator:checkpoint-written',
    'coordinator:after-join-record#2',
    'coordinator:after-round-record#2',
    'coordinator:after-plan-sent#4',
    'coordinator:update-chunk#5',
    'coordinator:after-update-spooled#5',
    'coordinator:after-accept-record#5',
    'coordinator:before-aggregate#2',
    'coordinator:checkpoint-renamed#3',
    'coordinator:evaluation-received#4',
    'coordinator:after-commit#2',
    'coordinator:after-finish-record',
  ])('at %s goes on where it was, to the same bytes', (point) => {
    const runDir = temporaryDir();
    expect(play(runDir, point)).toMatchObject({ signal: 'SIGKILL' });
    const again = play(runDir);
    expect(again.stderr).toBe('');
    expect(JSON.parse(again.stdout) as RunSummary).toMatchObject({ reason: 'rounds', rounds: 3 });
    expect(weightsOf(runDir)).toBe(undisturbed());
    expect(readdirSync(join(runDir, 'spool'))).toEqual([]);
  });
});

function temporaryOnce(): () => string {
  let digest: string | undefined;
  return () => {
    if (digest === undefined) {
      const runDir = temporaryDir();
      expect(play(runDir).status).toBe(0);
      digest = weightsOf(runDir);
    }
    return digest;
  };
}

/** Makes the next write of this checkpoint meet a device that is always full. */
function fillDisk(runDir: string, round: number): void {
  const folder = join(runDir, 'checkpoints');
  mkdirSync(folder, { recursive: true });
  symlinkSync('/dev/full', join(folder, `round-000${round}.safetensors.tmp`));
}

describe.skipIf(!existsSync('/dev/full'))('a full disk', () => {
  it('while a checkpoint is written ends the call clearly, and the same call goes on later', async () => {
    const runDir = temporaryDir();
    fillDisk(runDir, 0);
    await expect(startRun({ evaluation: { sites: false } }, { runDir, artifact })).rejects.toMatchObject({
      code: 'FED_RUN_STORAGE',
      message: expect.stringContaining('the disk is full'),
    });

    const config = { rounds: 1, evaluation: { sites: false } };
    const otherDir = temporaryDir();
    const full = await startRun(config, { runDir: otherDir });
    fillDisk(otherDir, 1);
    const credentials = [
      (await full.join('a', { train: adds(1) })).credential,
      (await full.join('b', { train: adds(1) })).credential,
    ];
    await expect(full.coordinator.run()).rejects.toMatchObject({ code: 'FED_RUN_STORAGE' });
    await full.coordinator.close();

    const later = await startRun(config, { runDir: otherDir });
    await later.join('a', { credential: credentials[0]! });
    await later.join('b', { credential: credentials[1]! });
    expect(await later.coordinator.run()).toMatchObject({ reason: 'rounds', rounds: 1 });
  });
});

describe('a run directory', () => {
  it('is refused to a second coordinator, and to another configuration', async () => {
    const run = await startRun();
    await expect(startRun({}, { runDir: run.runDir })).rejects.toMatchObject({ code: 'FED_RUN_LOCKED' });
    await run.coordinator.close();
    await expect(startRun({ seed: 9 }, { runDir: run.runDir })).rejects.toMatchObject({
      code: 'FED_RUN_CONFIG_CHANGED',
      message: expect.stringContaining('(seed differ)'),
    });
  });
});
