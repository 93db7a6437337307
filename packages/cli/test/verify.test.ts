/** `tributary verify` on run directories that a coordinator left, whole and broken. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCoordinator, type ModelArtifact, resolveFederation } from '@tributary/coordinator';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { startScriptedWorker } from '@tributary/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from './support.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-verify-'));
const runDir = join(dir, 'runs', 'tiny');
const stateDir = join(dir, 'state');
let key: string;

beforeAll(async () => {
  const artifact: ModelArtifact = {
    name: 'tiny',
    topology: '{}',
    weights: [{ name: 'w', dtype: 'float32', shape: [2], data: Float32Array.of(1, 2) }],
    frozenWeights: [],
  };
  const config = { name: 'tiny', model: 'tiny', classes: ['a', 'b'], rounds: 1, cohort: { quorum: 1 } };
  const transport = createMemoryTransport();
  const federation = resolveFederation({ ...config, evaluation: { sites: false } }, artifact);
  const coordinator = await createCoordinator({ federation, artifact, runDir, transport });
  const invite = coordinator.invite();
  const train = ({ global }: { global: readonly object[] }) => ({ numExamples: 1, tensors: global as never });
  const site = await startScriptedWorker({ transport, name: 'north', invite, train, recordsUpTo: -1 });
  await coordinator.run();
  await coordinator.close();
  key = coordinator.logPublicKey;
  // A state folder as the worker keeps it.
  mkdirSync(stateDir);
  const { runId } = coordinator;
  const credential = { version: 2, url: 'memory:x', runId, name: 'north', publicKey: key, confirmed: true };
  writeFileSync(join(stateDir, 'credential.json'), JSON.stringify(credential));
  writeFileSync(join(stateDir, 'records.jsonl'), site.records.map((line) => `${line}\n`).join(''));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('verify', () => {
  test('a run that holds is exit 0, and the key’s source is told', async () => {
    const { code, out } = await run(dir, 'verify', 'tiny');
    expect(code).toBe(0);
    expect(out).toContain('it holds');
    expect(out).toContain('as the log says');
    const pinned = await run(dir, 'verify', '--public-key', key);
    expect(pinned.code).toBe(0);
    expect(pinned.out).toContain('as given');
  });

  test('a broken line is exit 12 and named, as text and as JSON', async () => {
    const copy = join(dir, 'broken');
    cpSync(runDir, copy, { recursive: true });
    const log = join(copy, 'log.jsonl');
    writeFileSync(log, readFileSync(log, 'utf8').replace('"name":"north"', '"name":"south"'));
    const line =
      readFileSync(log, 'utf8')
        .split('\n')
        .findIndex((text) => text.includes('south')) + 1;
    const { code, out } = await run(dir, 'verify', copy);
    expect(code).toBe(12);
    expect(out).toContain(`log.jsonl, line ${line} does not match its own hash`);
    expect(out).toContain('changed after it was written');
    const json = await run(dir, 'verify', copy, '--json');
    expect(json.code).toBe(12);
    expect(JSON.parse(json.out)).toMatchObject({
      type: 'verify',
      ok: false,
      findings: [{ kind: 'changed', file: 'log.jsonl', line }],
    });
  });

  test('a site checks its copy, and its lead’s log against it', async () => {
    const { code, out } = await run(dir, 'verify', 'state');
    expect(code).toBe(0);
    expect(out).toContain('1 update of this site');
    expect(out).toContain('as this site has pinned it');
    expect((await run(dir, 'verify', 'tiny', '--copy', 'state')).code).toBe(0);
    // The lead's log ends before what the site was told.
    const copy = join(dir, 'cut');
    cpSync(runDir, copy, { recursive: true });
    const lines = readFileSync(join(copy, 'log.jsonl'), 'utf8').split('\n').slice(0, -2);
    writeFileSync(join(copy, 'log.jsonl'), lines.map((line) => `${line}\n`).join(''));
    rmSync(join(copy, 'log.head'));
    const cut = await run(dir, 'verify', copy, '--copy', 'state');
    expect(cut.code).toBe(12);
    expect(cut.out).toContain(
      `log.jsonl, line ${lines.length + 1} is where the log ends, and a site has line`,
    );
    // And a copy that was touched names its line.
    const broken = join(dir, 'broken-state');
    cpSync(stateDir, broken, { recursive: true });
    const text = readFileSync(join(broken, 'records.jsonl'), 'utf8');
    writeFileSync(join(broken, 'records.jsonl'), text.replace('"numExamples":1', '"numExamples":2'));
    const touched = await run(dir, 'verify', broken);
    expect(touched.code).toBe(12);
    expect(touched.out).toContain('records.jsonl, line 3 does not match its own hash');
  });

  test('another run’s key, and what is no key, are refused', async () => {
    const other = key.startsWith('A') ? `B${key.slice(1)}` : `A${key.slice(1)}`;
    expect((await run(dir, 'verify', 'tiny', '--public-key', other)).code).toBe(12);
    const { code, err } = await run(dir, 'verify', 'tiny', '--public-key', 'mine');
    expect(code).toBe(2);
    expect(err).toContain('43 characters');
  });
});
