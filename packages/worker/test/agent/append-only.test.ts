import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { openSignedSums } from '../../src/agent/masking.ts';

const limits = spawnSync('prlimit', ['--version']).error === undefined;
const missing = limits ? '' : ' (prlimit is not installed: Debian has it in util-linux)';

test.skipIf(!limits)(
  `a line for which there is no room is none, and those after it are whole${missing}`,
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tributary-append-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, 'signed-sums.jsonl');
    const child = spawn(
      process.execPath,
      [
        '--conditions=@tributary/source',
        '--import',
        import.meta.resolve('tsx'),
        join(import.meta.dirname, 'append-only-process.ts'),
        path,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    const ended = once(child, 'exit');
    // In the middle of a line, which is not a multiple of that.
    prlimit(child.pid!, 1000);
    child.stdin.write('fill');
    const [code] = (await once(child.stdout, 'data')) as [Buffer];
    expect(String(code)).toBe('FED_WORKER_STATE_UNUSABLE');
    expect(readFileSync(path, 'utf8')).toHaveLength(1000);
    prlimit(child.pid!, 'unlimited');
    child.stdin.end('go on');
    expect(await ended).toEqual([0, null]);
    const rounds = openSignedSums(path).entries.map(({ round }) => round);
    expect(rounds.at(-1)).toBe(1000);
    expect(rounds.slice(0, -1)).toEqual(rounds.slice(0, -1).map((_, i) => i + 1));
    expect(rounds.length).toBeGreaterThan(3);
  },
);

function prlimit(pid: number, bytes: number | string): void {
  expect(spawnSync('prlimit', ['--pid', String(pid), `--fsize=${bytes}:unlimited`]).status).toBe(0);
}
