import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeInvite } from '@tributary/shared-protocol';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { exitCode } from '../src/exit-codes.ts';
import { run } from './support.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tributary-cli-policy-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const write = (text: string) => writeFileSync(join(dir, 'site-policy.yaml'), text);

/** The lead's configuration, small enough to build its model at once. */
function writeConfig(): string {
  writeFileSync(
    join(dir, 'federation.json'),
    JSON.stringify({
      name: 'pair',
      model: 'image-cnn-small',
      classes: ['a', 'b'],
      input: { height: 28, width: 28, channels: 1 },
      cohort: { quorum: 3 },
      server: { publicUrl: 'https://hub.example.org:7700' },
    }),
  );
  return 'federation.json';
}

async function check(...argv: string[]) {
  const end = await run(dir, 'policy', 'check', ...argv, '--json');
  return { code: end.code, told: JSON.parse(end.out) as Record<string, unknown> };
}

describe('tributary policy', () => {
  test('init writes a policy that can be used as it is, and never over another', async () => {
    expect((await run(dir, 'policy', 'init')).code).toBe(0);
    const text = readFileSync(join(dir, 'site-policy.yaml'), 'utf8');
    expect(text).toContain('#minCohort');
    expect(await run(dir, 'policy', 'init')).toMatchObject({
      code: exitCode('usage'),
      err: expect.stringContaining('FED_CLI_FILE_EXISTS'),
    });
    expect(await check('--federation', writeConfig())).toMatchObject({ code: 0, told: { refused: false } });
  });

  test('check --federation: says what the lead’s configuration would be refused for', async () => {
    const config = writeConfig();
    write('minCohort: 3\nengines: [wasm]\ncoordinators: ["https://*.example.org"]\n');
    const fine = await check('--federation', config);
    expect(fine).toMatchObject({
      code: 0,
      told: { refused: false, model: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });

    write(`minCohort: 4\nmodels: ["${String(fine.told['model'])}"]\nprivacy: { secureAggregation: true }\n`);
    const { code, told } = await check('--federation', config);
    expect(code).toBe(exitCode('policy'));
    expect(told['verdicts']).toMatchObject([
      { key: 'models', state: 'ok' },
      { key: 'minCohort', state: 'refused', code: 'FED_POLICY_COHORT' },
      { key: 'privacy', state: 'refused', code: 'FED_POLICY_PRIVACY' },
    ]);
  });

  test('check --invite: judges the address and the certificate, and dials nobody', async () => {
    write(`coordinators: ["${'ab'.repeat(32)}"]\nminCohort: 3\n`);
    const invite = (fingerprint: string) =>
      encodeInvite({
        url: 'https://nobody.invalid:1',
        fingerprint,
        secret: 's',
        runId: 'run-1',
        expiresAt: 0,
      });
    expect(await check('--invite', invite('ab'.repeat(32)))).toMatchObject({
      code: 0,
      told: { verdicts: [{ state: 'ok' }, { key: 'minCohort', state: 'unknown' }] },
    });
    expect(await check('--invite', invite('cd'.repeat(32)))).toMatchObject({
      code: exitCode('policy'),
      told: { verdicts: [{ code: 'FED_POLICY_COORDINATOR' }, { state: 'unknown' }] },
    });
  });

  test('a mistake in the policy is one of the configuration, with its line', async () => {
    write('minCohort: many\n');
    expect(await run(dir, 'policy', 'check', '--federation', writeConfig())).toMatchObject({
      code: exitCode('config'),
      err: expect.stringMatching(/line 1, key minCohort/),
    });
  });
});
