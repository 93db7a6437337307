/** `tributary verify` on run directories that a coordinator left, whole and broken. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCoordinator, type ModelArtifact, resolveFederation } from '@tributary/coordinator';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { startScriptedWorker } from '@tributary/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from './support.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-verify-'));
const runDir = join(dir, 'runs', 'tiny');
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
  await startScriptedWorker({ transport, name: 'north', invite, train });
  await coordinator.run();
  await coordinator.close();
  key = coordinator.logPublicKey;
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

  test('another run’s key, and what is no key, are refused', async () => {
    const other = key.startsWith('A') ? `B${key.slice(1)}` : `A${key.slice(1)}`;
    expect((await run(dir, 'verify', 'tiny', '--public-key', other)).code).toBe(12);
    const { code, err } = await run(dir, 'verify', 'tiny', '--public-key', 'mine');
    expect(code).toBe(2);
    expect(err).toContain('43 characters');
  });
});
