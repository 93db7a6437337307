/** The demo's flags, as real processes in a folder of its own: one round of the real digits, two sites. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fingerprintOf, type RunStatus } from '@tributary/shared-protocol';
import { createNatsTransport } from '@tributary/shared-protocol/nats';
import { natsServerMissing } from '@tributary/testkit/nats-server';
import { afterAll, describe, expect, test } from 'vitest';
import type { DemoResult } from '../../src/demo/run-demo.ts';
import type { PrivacyReport } from '../../src/privacy-report.ts';
import { type CliProcess, ROOT, run, startWith } from '../support.ts';

const dir = realpathSync(mkdtempSync(join(tmpdir(), 'tributary-demo-')));
const demoDir = join(dir, 'demo');
const processes: CliProcess[] = [];
afterAll(async () => {
  for (const process of processes) process.kill('SIGTERM');
  await Promise.all(processes.map((process) => process.ended));
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
});

type Event = Record<string, unknown> & { type: string };

/** `tributary demo` in the root of the repository, where the digits are, writing below `dir`. */
function begin(...argv: string[]): CliProcess {
  const process = startWith({ TRIBUTARY_ROOT: dir }, ROOT, 'demo', ...argv);
  processes.push(process);
  return process;
}

/** The same to its end. */
async function demo(...argv: string[]): Promise<{ result: DemoResult; events: Event[] }> {
  const process = begin(...argv);
  const { code, out, err } = await process.ended;
  expect(err).toBe('');
  const events = out.split('\n').map((line) => JSON.parse(line) as Event);
  expect(code, out.slice(-1000)).toBe(0);
  return { result: events.at(-1) as unknown as DemoResult, events };
}

const missing = natsServerMissing();
const ifNats = missing === undefined ? test : test.skip;
const without = missing === undefined ? '' : ` (${missing})`;

describe('demo', () => {
  test.each(['1', '9'])('--sites %s: from 2 to 8', async (count) => {
    const { code, err } = await run(dir, 'demo', '--sites', count);
    expect(code).toBe(2);
    expect(err.replaceAll(/\s+/g, ' ')).toContain('from 2 to 8');
    expect(existsSync(demoDir)).toBe(false);
  });

  test('--sites 2: so many sites share the digits, in so many processes, and a former run is replaced', {
    timeout: 240_000,
  }, async () => {
    mkdirSync(join(demoDir, 'run'), { recursive: true });
    writeFileSync(join(demoDir, 'run', 'former'), '');
    const { result, events } = await demo('--rounds', '1', '--sites', '2');

    const sites = ['harbour', 'north'];
    const of = (type: string) => events.filter((event) => event.type === type);
    expect(
      of('ready')
        .map((event) => event['name'])
        .sort(),
    ).toEqual(sites);
    expect(of('round-started').map((event) => event['cohort'])).toEqual([sites]);
    expect(Object.keys(result.sites).sort()).toEqual(sites);
    expect(
      readdirSync(join(demoDir, 'data'))
        .filter((name) => !name.includes('.'))
        .sort(),
    ).toEqual([...sites, 'test']);
    expect(result.runDir).toBe(join(demoDir, 'run'));
    const logs = readdirSync(join(result.runDir, 'sites')).filter((name) => name.endsWith('.log'));
    expect(logs.sort()).toEqual(sites.map((name) => `${name}.log`));
    // What a site says itself: its process came to the end of the run.
    for (const log of logs)
      expect(readFileSync(join(result.runDir, 'sites', log), 'utf8')).toContain('"goodbye"');
    expect(readFileSync(result.plot, 'utf8')).toContain('2 sites');
    expect(existsSync(join(demoDir, 'run', 'former'))).toBe(false);

    // The printed numbers are those of the run: 15 % of each digit, rounded, are the test set.
    const central = of('evaluated').at(-1)?.['central'] as Record<string, number>;
    expect({ loss: result.loss, accuracy: result.accuracy }).toEqual(central);
    const tested = result.confusion.flat().reduce((a, b) => a + b, 0);
    const right = result.confusion.reduce((sum, row, digit) => sum + row[digit]!, 0);
    const images = readdirSync(join(demoDir, 'data', 'test'), { recursive: true, encoding: 'utf8' });
    expect(tested).toBe(images.filter((path) => path.endsWith('.png')).length);
    // One image may fall on the other side on another engine.
    expect(Math.abs(right / tested - result.accuracy)).toBeLessThan(1.5 / tested);
  });

  test('--keep: the run of the last demo stays as it is, beside the new one', {
    timeout: 240_000,
  }, async () => {
    const log = join(demoDir, 'run', 'log.jsonl');
    const before = readFileSync(log);
    // A name that is taken, by whatever.
    mkdirSync(join(demoDir, 'run-2'));
    const process = begin('--sites', '2', '--keep');
    // Where it goes is settled once a coordinator listens there; the rest is as in the test before.
    await process.event('listening');
    process.kill('SIGTERM');
    expect((await process.ended).code).toBe(130);
    expect(existsSync(join(demoDir, 'run-3', 'log.jsonl'))).toBe(true);
    expect(readFileSync(log).equals(before)).toBe(true);
    expect(readdirSync(join(demoDir, 'run-2'))).toEqual([]);
  });

  test('--private: what is spent is counted at both ends, and the run ends before its budget is overdrawn', {
    timeout: 240_000,
  }, async () => {
    const { result, events } = await demo('--private', '--epsilon', '3.5');
    const commits = events.filter(({ type }) => type === 'committed');
    expect(commits.length).toBeGreaterThan(0);
    expect(commits.length).toBeLessThan(12);
    expect(events.find(({ type }) => type === 'finished')).toMatchObject({ reason: 'privacy-budget' });
    expect(result.epsilonSpent).toBeGreaterThan(0);
    expect(result.epsilonSpent).toBeLessThanOrEqual(3.5);
    expect(result.sites).toEqual({});
    for (const site of ['north', 'harbour', 'hill']) {
      const lines = readFileSync(join(result.runDir, 'sites', site, 'privacy-ledger.jsonl'), 'utf8')
        .trim()
        .split('\n');
      expect(lines.map((line) => (JSON.parse(line) as { round: number }).round)).toEqual(
        commits.map(({ round }) => round),
      );
    }
    const reported = await run(dir, 'privacy', 'report', result.runDir, '--json');
    const report = JSON.parse(reported.out) as PrivacyReport;
    expect(report).toMatchObject({ logHolds: true, rounds: commits.length });
    const spent = report.sites.map(({ epsilon }) => Math.min(epsilon!.pld ?? Number.NaN, epsilon!.rdp));
    expect(Math.max(...spent)).toBe(result.epsilonSpent);
    expect((await run(dir, 'privacy', 'report', result.runDir)).out).toContain('noise multiplier 1.4');
    const shown = JSON.parse((await run(dir, 'status', result.runDir, '--json')).out) as RunStatus;
    expect(shown.privacy).toMatchObject({ budget: { epsilon: 3.5, delta: 1e-5 } });
    expect(Math.max(...Object.values(shown.privacy!.epsilonSpent))).toBe(result.epsilonSpent);
    // Of the images' losses and classes nothing was told.
    const accepted = events.filter(({ type }) => type === 'update-accepted');
    expect(accepted.map(({ metrics }) => metrics)).toEqual(accepted.map(() => ({})));
  });

  ifNats(
    `--transport nats: the same over a nats-server with TLS, each site with its own key${without}`,
    {
      timeout: 240_000,
    },
    async () => {
      const process = begin('--rounds', '2', '--sites', '2', '--transport', 'nats');
      const { url, fingerprint } = await process.event('listening');
      expect(url).toMatch(/^tls:\/\/127\.0\.0\.1:\d+\/digits$/);
      const nats = join(demoDir, 'run', 'nats');
      expect(fingerprint).toBe(fingerprintOf(readFileSync(join(nats, 'server-cert.pem'), 'utf8')));
      // A key is for its owner's eyes only.
      for (const key of ['coordinator.nk', 'sites/north.nk', 'sites/harbour.nk', 'server-key.pem'])
        expect(statSync(join(nats, key)).mode & 0o077).toBe(0);
      await process.event('committed');
      // The operator asks over NATS, too, with the coordinator's key.
      const status = await run(dir, 'status', join(demoDir, 'run'), '--json');
      expect(status.err).toBe('');
      expect(JSON.parse(status.out)).toMatchObject({ rounds: 2 });
      const { code, out, err } = await process.ended;
      expect(err).toBe('');
      expect(code, out.slice(-1000)).toBe(0);
      const joined = out.split('\n').map((line) => JSON.parse(line) as Event);
      expect(joined.filter(({ type }) => type === 'joined')).toHaveLength(2);
      // The server ended with the demo.
      await expect(createNatsTransport().connect(url as string)).rejects.toMatchObject({
        code: 'FED_TRANSPORT_UNREACHABLE',
      });
    },
  );
});
