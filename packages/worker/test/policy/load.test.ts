import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readLayout } from '../../src/data/layout.ts';
import { loadPolicy, parsePolicy } from '../../src/policy/load.ts';
import { policySchema } from '../../src/policy/schema.ts';
import { POLICY_TEMPLATE } from '../../src/policy/template.ts';

let dataDir: string;
beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'tributary-policy-'));
});
afterEach(() => rm(dataDir, { recursive: true, force: true }));

const CERTIFICATE = 'ab'.repeat(32);

function refusal(text: string): { code: string; message: string } {
  try {
    parsePolicy(text, 'p.yaml');
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('it was taken');
}

describe('parsePolicy', () => {
  test('reads every key, with sizes in bytes, times in minutes and digests in one spelling', () => {
    const policy = parsePolicy(
      `
coordinators:
  - https://*.example.org
  - ${CERTIFICATE.toUpperCase().replace(/(..)(?!$)/g, '$1:')}
  - { url: "https://hub:7700", fingerprint: sha256:${CERTIFICATE} }
models: [sha256:${'0'.repeat(64)}]
minCohort: 5
privacy: { secureAggregation: true, differentialPrivacy: { minNoiseMultiplier: 1 }, budget: { epsilon: 3, delta: 1e-5 } }
maxRounds: 20
hours:
  - "20:00-06:00"
  - { time: "00:00-24:00", days: Sat-Sun }
maxBytesPerDay: 1.5 GB
engines: [wasm, cpu]
maxMemory: 4 GiB
threads: 4
`,
      'p.yaml',
    );
    expect(policy).toMatchObject({
      coordinators: [
        { url: { scheme: 'https:', host: '*.example.org', port: undefined } },
        { fingerprint: CERTIFICATE },
        { url: { host: 'hub', port: '7700' }, fingerprint: CERTIFICATE },
      ],
      models: ['0'.repeat(64)],
      minCohort: 5,
      maxRounds: 20,
      // 20:00 is 1200 minutes after midnight, 06:00 is 360.
      hours: [
        { from: 1200, to: 360, days: [0, 1, 2, 3, 4, 5, 6] },
        { from: 0, to: 1440, days: [0, 6] },
      ],
      maxBytesPerDay: 1_500_000_000,
      engines: ['wasm', 'cpu'],
      maxMemory: 4 * 1024 ** 3,
      threads: 4,
    });
  });

  test('names every mistake with its line, its key and what would be right', () => {
    const { code, message } = refusal(
      `minCohorts: 3
maxRounds: 0
hours:
  - "20:00-06:00"
  - { time: "25:00-26:00" }
coordinators: [not an address]
maxMemory: lots
engines: [tensorflo]
privacy: { budget: { epsilon: 1 } }
models: []
`,
    );
    expect(code).toBe('FED_POLICY_INVALID');
    expect(message.split('\n')).toEqual([
      'p.yaml has 8 mistakes, and no part of it is used until they are mended:',
      '  line 1, key minCohorts: there is no such key; did you mean minCohort?',
      '  line 2, key maxRounds: expected number to be >=1',
      expect.stringContaining('line 5, key hours[1].time: expected times of day such as "20:00-06:00"'),
      expect.stringContaining('line 6, key coordinators[0]: expected an address such as https://'),
      expect.stringContaining('line 7, key maxMemory: expected a size such as 4 GiB'),
      expect.stringContaining('line 8, key engines[0]: expected one of "tensorflow"'),
      '  line 9, key privacy.budget.delta: is missing; expected a number',
      expect.stringContaining('line 10, key models: an empty list would allow nothing'),
    ]);
  });

  test.each([
    ['a: [', 'line 1'],
    ['minCohort: 1\nminCohort: 9\n', 'line 2: Map keys must be unique'],
    ['minCohort: !!js/function 1', 'line 1'],
  ])('refuses %j, which is no YAML to rely on', (text, told) => {
    expect(refusal(text)).toMatchObject({
      code: 'FED_POLICY_UNREADABLE',
      message: expect.stringContaining(told),
    });
  });
});

describe('the template of `policy init`', () => {
  test('sets no rule as it is, and every key once the # is taken away', () => {
    expect(parsePolicy(POLICY_TEMPLATE, 'p.yaml')).toEqual({});
    const set = POLICY_TEMPLATE.replace(/^#(?! )/gm, '').replace(/^#(?= {2})/gm, '');
    expect(Object.keys(parsePolicy(set, 'p.yaml')).sort()).toEqual(Object.keys(policySchema.shape).sort());
  });
});

describe('loadPolicy', () => {
  test('a site without a file has no rules', async () => {
    expect(await loadPolicy({ dataDir })).toEqual({ file: undefined, rules: {} });
  });

  test('takes site-policy.yaml beside the classes, which stays no class', async () => {
    await writeFile(join(dataDir, 'site-policy.yaml'), 'minCohort: 4\n');
    for (const name of ['a', 'b']) {
      await mkdir(join(dataDir, name));
      await writeFile(join(dataDir, name, '1.png'), '');
    }
    expect(await loadPolicy({ dataDir })).toEqual({
      file: join(dataDir, 'site-policy.yaml'),
      rules: { minCohort: 4 },
    });
    expect((await readLayout(dataDir, ['a', 'b'])).train).toHaveLength(2);
  });

  test('a file that was named wins over the one in the data folder', async () => {
    await writeFile(join(dataDir, 'site-policy.yaml'), 'minCohort: 4\n');
    await writeFile(join(dataDir, 'other.yaml'), 'minCohort: 9\n');
    const file = join(dataDir, 'other.yaml');
    expect(await loadPolicy({ dataDir, file })).toEqual({ file, rules: { minCohort: 9 } });
  });

  test('a file that was named and is not there stops the site', async () => {
    const file = join(dataDir, 'gone.yaml');
    await expect(loadPolicy({ dataDir, file })).rejects.toMatchObject({
      code: 'FED_POLICY_UNREADABLE',
      message: expect.stringContaining('there is no such file'),
    });
  });

  test.each(['site-policy.yml', 'Site-Policy.yaml', 'site_policy.yaml', 'site-policy.json'])(
    '%s, a name that is nearly right, stops the site',
    async (name) => {
      await writeFile(join(dataDir, name), 'minCohort: 4\n');
      await expect(loadPolicy({ dataDir })).rejects.toMatchObject({
        code: 'FED_POLICY_UNREADABLE',
        message: expect.stringContaining('has to be called site-policy.yaml'),
      });
    },
  );
});
