/** The command line from end to end: a coordinator and two sites as real processes over TLS, on real digits. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type CliProcess, run, start } from './support.ts';
import { writeTwoSites } from './two-sites.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-federation-'));
const runDir = join(dir, 'runs', 'pair');
const processes: CliProcess[] = [];
const begin = (...argv: string[]) => {
  const process = start(dir, ...argv);
  processes.push(process);
  return process;
};
const join_ = (name: string, invite: string, data = name) =>
  begin(
    'join',
    invite,
    '--data',
    `data/${data}`,
    '--name',
    name,
    '--state-dir',
    `state/${name}`,
    '--engine',
    'cpu',
  );
let image = '';

beforeAll(async () => {
  const files = await writeTwoSites(join(dir, 'data'), 80);
  image = join('data', files.find(({ path, digit }) => path.startsWith('test/') && digit === 0)!.path);
  const config = {
    name: 'pair',
    model: 'image-cnn-small',
    classes: ['0', '1'],
    training: { batchSize: 16 },
    rounds: 3,
    cohort: { quorum: 2 },
    deadlines: { heartbeatSeconds: 1 },
    evaluation: { testDir: 'data/test' },
    best: { metric: 'accuracy', mode: 'max' },
    server: { host: '127.0.0.1', port: 0 },
  };
  writeFileSync(join(dir, 'tributary.config.json'), JSON.stringify(config));
});
afterAll(async () => {
  for (const process of processes) process.kill('SIGKILL');
  await Promise.all(processes.map((process) => process.ended));
  rmSync(dir, { recursive: true, force: true });
});

describe('a federation from the command line', () => {
  test('an invite a site, a pause by SIGTERM, the same command goes on, and every process ends with 0', {
    timeout: 180_000,
  }, async () => {
    const coordinator = begin('coordinator');
    const first = (await coordinator.event('invite'))['invite'] as string;
    const east = join_('east', first);
    // A fresh one follows, since the first is used up and a site is missing.
    const second = (await coordinator.event('invite'))['invite'] as string;
    expect(second).not.toBe(first);

    const third = await run(dir, 'invite', '--json', '--uses', '2');
    expect(third.code).toBe(0);
    expect((JSON.parse(third.out) as { invite: string }).invite).toMatch(/^trib1\./);
    const status = await run(dir, 'status', '--json');
    expect(JSON.parse(status.out)).toMatchObject({
      running: true,
      state: 'waiting',
      clients: [{ name: 'east' }],
    });

    const used = await join_('north', first, 'east').ended;
    expect(used.code).toBe(6);
    expect(used.out).toContain('FED_INVITE_USED');

    const west = join_('west', second);
    await coordinator.event('committed');
    coordinator.kill('SIGTERM');
    const paused = await coordinator.ended;
    expect(paused.code).toBe(130);
    expect(paused.out).toContain('FED_CLI_INTERRUPTED');
    const port = new URL(((await readFirst('listening'))['url'] ?? '') as string).port;

    const again = begin('coordinator', '--port', port);
    expect((await again.event('summary'))['rounds']).toBe(3);
    expect((await again.ended).code).toBe(0);
    expect(await Promise.all([east.ended, west.ended].map(async (end) => (await end).code))).toEqual([0, 0]);
  });

  test('the private key of the run is readable by its owner only', () => {
    for (const name of ['tls.pem.json', 'admin.key', 'log.key'])
      expect(statSync(join(runDir, name)).mode & 0o077).toBe(0);
  });

  test('status: a run that has ended is read from its folder', async () => {
    const { out } = await run(dir, 'status', '--json');
    expect(JSON.parse(out)).toMatchObject({ running: false, state: 'finished', round: 3 });
    expect((await run(dir, 'status')).out).toContain('3 of 3');
  });

  test('the test folder at the coordinator: its numbers are in every commit record, in the events and in status', async () => {
    const { out } = await run(dir, 'status', '--json');
    const log = readFileSync(join(runDir, 'log.jsonl'), 'utf8').trim().split('\n');
    const commits = log
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter((record) => record['type'] === 'committed');
    expect(commits.length).toBe(3);
    for (const [i, commit] of commits.entries()) {
      const central = (await readFirst('evaluated', i + 1))['central'] as Record<string, number>;
      expect(Object.keys(central).sort()).toEqual(['accuracy', 'loss']);
      expect(commit['centralMetrics']).toEqual(central);
      // Sites and coordinator hold other images.
      expect(commit['siteMetrics']).not.toEqual(central);
    }
    expect((JSON.parse(out) as Record<string, unknown>)['metrics']).toEqual(
      commits.at(-1)?.['centralMetrics'],
    );
  });

  test('invite: without a coordinator it says so', async () => {
    const { code, err } = await run(dir, 'invite');
    expect(code).toBe(5);
    expect(err).toContain('FED_CLI_NOT_RUNNING');
  });

  test('export, evaluate, predict: both formats give the run’s own numbers', {
    timeout: 120_000,
  }, async () => {
    for (const format of ['layers-model', 'safetensors']) {
      const { code, err } = await run(
        dir,
        'export',
        '--out',
        `out/${format}`,
        '--format',
        format,
        '--round',
        'last',
      );
      expect(err).toBe('');
      expect(code).toBe(0);
      expect(existsSync(join(dir, 'out', format, 'tributary.json'))).toBe(true);
    }
    expect(readdirSync(join(dir, 'out', 'layers-model')).sort()).toEqual([
      'PRIVACY.md',
      'model.json',
      'privacy.json',
      'tributary.json',
      'weights.bin',
    ]);
    for (const file of ['tributary.json', 'PRIVACY.md', 'privacy.json'])
      expect(readFileSync(join(dir, 'out', 'layers-model', file), 'utf8')).not.toContain(dir);
    // What is exported from an export has what its run could say.
    const again = await run(
      dir,
      'export',
      'out/layers-model',
      '--out',
      'out/again',
      '--format',
      'safetensors',
    );
    expect(again.err).toBe('');
    expect(readFileSync(join(dir, 'out', 'again', 'PRIVACY.md'), 'utf8')).toBe(
      readFileSync(join(dir, 'out', 'layers-model', 'PRIVACY.md'), 'utf8'),
    );
    expect((await run(dir, 'export', '--out', 'out/safetensors')).err).toContain('FED_CLI_FILE_EXISTS');
    expect((await run(dir, 'export', '--out', 'out/9', '--round', '9')).err).toContain(
      'checkpoints of 0, 1, 2, 3',
    );

    const central = (await readFirst('evaluated', 3))['central'] as Record<string, number>;
    for (const model of [['--round', 'last'], ['out/layers-model'], ['out/safetensors']]) {
      const evaluated = await start(dir, 'evaluate', ...model, '--data', 'data/test', '--engine', 'cpu')
        .ended;
      expect(evaluated.code).toBe(0);
      const { metrics, examples } = JSON.parse(evaluated.out) as {
        metrics: Record<string, number>;
        examples: number;
      };
      // 15 % of 2 x 80 images.
      expect(examples).toBe(24);
      expect(metrics['accuracy']).toBe(central['accuracy']);
      // The coordinator measured on another engine.
      expect(metrics['loss']).toBeCloseTo(central['loss']!, 4);
    }
    const predicted = await run(dir, 'predict', 'out/layers-model', image, '--json');
    const { classes } = JSON.parse(predicted.out) as { classes: { name: string; probability: number }[] };
    expect(classes[0]!.name).toBe('0');
    expect(classes[0]!.probability + classes[1]!.probability).toBeCloseTo(1, 6);
  });
});

/** An event of the finished run, from its metrics file: the first of the type, or that of `round`. */
async function readFirst(type: string, round?: number): Promise<Record<string, unknown>> {
  const lines = readFileSync(join(runDir, 'metrics.jsonl'), 'utf8').trim().split('\n');
  const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  return events.find((event) => event['type'] === type && (round === undefined || event['round'] === round))!;
}
