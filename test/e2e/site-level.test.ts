/**
 * The privacy of whole sites in real processes: what three sites and a coordinator commit has the noise that was promised,
 * the books of both ends count the same, and the report says who added it and who saw what.
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type FederationConfig, runPaths } from '@tributary/coordinator';
import { divideNoise, epsilonSpent, longestOnGrid, siteLevelRound, sumGrid } from '@tributary/privacy';
import { decodeSafetensors, type RunEvent } from '@tributary/shared-protocol';
import type { WorkerEvent, WorkerSummary } from '@tributary/worker';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { CoordinatorSetup } from './coordinator-process.ts';
import { freePort, SITES, shapesConfig, writeFederation } from './federation.ts';
import { type Party, startParty } from './processes.ts';
import type { WorkerSetup } from './worker-process.ts';

const DELTA = 1e-5;
const NAMES = Object.keys(SITES);
const MAIN = fileURLToPath(new URL('../../packages/cli/dist/main.js', import.meta.url));

let root: string;
let shared: Omit<CoordinatorSetup, 'runDir' | 'port' | 'config'>;
const parties: Party<never>[] = [];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-e2e-sites-'));
  ({ ...shared } = await writeFederation(root));
}, 60_000);
afterAll(async () => {
  for (const party of parties) party.kill();
  await Promise.all(parties.map((party) => party.exited));
  await rm(root, { recursive: true, force: true });
});

type Differential = NonNullable<FederationConfig['privacy']>['differentialPrivacy'];

/** A run in which training changes next to nothing: what is in the models is noise. */
async function play(name: string, differentialPrivacy: Differential, epsilon: number, masked = false) {
  const config = shapesConfig({
    rounds: 3,
    training: { ...shapesConfig().training, optimizer: { name: 'sgd', learningRate: 1e-9 }, epochs: 1 },
    privacy: {
      differentialPrivacy,
      budget: { epsilon, delta: DELTA },
      ...(masked ? { secureAggregation: true } : {}),
    },
  });
  const runDir = join(root, name, 'run');
  const setup: CoordinatorSetup = { ...shared, config, runDir, port: await freePort() };
  const coordinator = startParty<RunEvent>('./coordinator-process.ts', setup);
  const invited = await coordinator.seen((event) => event.type === 'invite');
  const invite = invited.type === 'invite' ? invited.invite : '';
  const workers = NAMES.map((site) =>
    startParty<WorkerEvent | ({ type: 'summary' } & WorkerSummary)>('./worker-process.ts', {
      invite,
      name: site,
      dataDir: join(root, 'data', site),
      stateDir: join(root, name, site),
      trainer: 'real',
      giveUpAfterMs: 30_000,
    } satisfies WorkerSetup),
  );
  parties.push(...([coordinator, ...workers] as Party<never>[]));
  const ends = await Promise.all([coordinator, ...workers].map((one) => one.exited));
  for (const end of ends) expect(end, end.stderr).toMatchObject({ code: 0, signal: null });
  const lines = async <T>(path: string) =>
    (await readFile(path, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as T);
  const weights = async (round: number) =>
    decodeSafetensors(await readFile(runPaths(runDir).checkpoint(round)))
      .tensors.filter((tensor) => !tensor.name.startsWith('//'))
      .flatMap(({ data }) => [...(data as Float32Array)]);
  return {
    runDir,
    summary: coordinator.events.find(({ type }) => (type as string) === 'summary'),
    log: await lines<Record<string, unknown>>(runPaths(runDir).log),
    ledgers: await Promise.all(
      NAMES.map((site) => lines<Record<string, unknown>>(join(root, name, site, 'privacy-ledger.jsonl'))),
    ),
    /** What the round changed. */
    async change(round: number) {
      const before = await weights(round - 1);
      return (await weights(round)).map((value, i) => value - before[i]!);
    },
  };
}

/** Holds the values against N(0, stdDev^2), five standard deviations of either estimate. */
function expectNoise(values: readonly number[], stdDev: number): void {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  const seen = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length);
  expect(Math.abs(mean)).toBeLessThan((5 * stdDev) / Math.sqrt(values.length));
  expect(Math.abs(seen - stdDev)).toBeLessThan((5 * stdDev) / Math.sqrt(2 * values.length));
}

const costOf = (rounds: number, noiseMultiplier: number) =>
  epsilonSpent(
    Array.from({ length: rounds }, () => ({ unit: 'site' as const, noiseMultiplier })),
    DELTA,
  );
function report(runDir: string, ...flags: string[]): string {
  const { stdout, stderr } = spawnSync(process.execPath, [MAIN, 'privacy', 'report', runDir, ...flags], {
    encoding: 'utf8',
  });
  expect(stderr).toBe('');
  return stdout;
}

test('noise at the sites: z C in each update, a budget for two rounds ends the run after two, at both ends', {
  timeout: 180_000,
}, async () => {
  const z = 4;
  const differentialPrivacy = { unit: 'site', noise: 'site', clippingNorm: 0.5, noiseMultiplier: z } as const;
  const run = await play('local', differentialPrivacy, costOf(2, z) + 1e-9);
  expect(run.summary).toMatchObject({ type: 'summary', reason: 'privacy-budget', rounds: 2 });
  // Three updates with noise of 2 each: sqrt(3) 2 / 3 in their mean.
  for (const round of [1, 2]) expectNoise(await run.change(round), (z * 0.5) / Math.sqrt(3));
  for (const ledger of run.ledgers)
    expect(ledger).toMatchObject(
      [1, 2].map((round) => ({ round, unit: 'site', noiseMultiplier: z, clippingNorm: 0.5 })),
    );
  const commits = run.log.filter(({ type }) => type === 'committed');
  expect(commits.at(-1)!['epsilonSpent']).toEqual(
    Object.fromEntries(NAMES.map((name) => [name, costOf(2, z)])),
  );
  // The coordinator drew none, and nothing but the update tells of a site's training.
  expect(run.log.filter(({ type }) => type === 'noised')).toEqual([]);
  expect(run.log.filter(({ type }) => type === 'update-accepted').map(({ metrics }) => metrics)).toEqual(
    new Array(6).fill({}),
  );

  const text = report(run.runDir);
  expect(text).toMatch(/Each \*\*site\*\* is protected as a whole.*added by \*\*each site\*\*/);
  expect(text).toMatch(
    /the coordinator, alone or with other sites \| each update.*with that site’s noise \| epsilon/,
  );
});

test('noise at the coordinator: z_D C / m in the model, with a norm that adapts and that each site clips to', {
  timeout: 180_000,
}, async () => {
  const z = 3;
  const differentialPrivacy = {
    unit: 'site',
    noise: 'coordinator',
    clippingNorm: { initial: 2 },
    noiseMultiplier: z,
  } as const;
  const run = await play('central', differentialPrivacy, 1000);
  expect(run.summary).toMatchObject({ type: 'summary', reason: 'rounds', rounds: 3 });
  const noised = run.log.filter(({ type }) => type === 'noised');
  expect(noised).toMatchObject([1, 2, 3].map((round) => ({ round, sites: NAMES, expectedCohort: 3 })));
  const { sumNoiseMultiplier } = divideNoise({ noiseMultiplier: z, expectedCohort: 3 });
  const norms = noised.map(({ clippingNorm }) => clippingNorm as number);
  for (const [i, norm] of norms.entries())
    expectNoise(await run.change(i + 1), (sumNoiseMultiplier * norm) / 3);
  expect(norms[0]).toBe(2);
  expect(new Set(norms).size).toBe(3);
  for (const ledger of run.ledgers)
    expect(ledger).toMatchObject(
      norms.map((clippingNorm, i) => ({ round: i + 1, unit: 'site', clippingNorm, noiseMultiplier: z })),
    );
  // The sites hear of each drawing: it is among the lines that they keep.
  const kept = await readFile(join(root, 'central', NAMES[0]!, 'records.jsonl'), 'utf8');
  expect(kept.match(/"type":"noised"/g)).toHaveLength(3);

  const made = JSON.parse(report(run.runDir, '--json')) as {
    sites: { steps: number; epsilon: { pld: number; rdp: number }; replaced: { pld: number } }[];
    [key: string]: unknown;
  };
  expect(made).toMatchObject({
    logHolds: true,
    mechanism: { ...differentialPrivacy, adjacency: 'one site’s update added or removed' },
    observers: expect.arrayContaining([
      expect.objectContaining({
        sees: 'each update of each site, clipped and **without noise**',
        bound: expect.stringMatching(/^none/),
      }),
    ]),
  });
  for (const { steps, epsilon, replaced } of made.sites) {
    expect(steps).toBe(3);
    expect(Math.min(epsilon.pld, epsilon.rdp)).toBe(costOf(3, z));
    // Half the multiplier.
    expect(replaced.pld).toBeGreaterThan(epsilon.pld * 1.9);
  }
});

test('noise at the sites under masks: in the sum, counted once, though nobody sees the updates', {
  timeout: 180_000,
}, async () => {
  const z = 4;
  // Far within the masks' range of values, which is ± 1.
  const differentialPrivacy = {
    unit: 'site',
    noise: 'site',
    clippingNorm: 0.02,
    noiseMultiplier: z,
  } as const;
  const run = await play('masked', differentialPrivacy, costOf(2, z) + 1e-9, true);
  expect(run.summary).toMatchObject({ reason: 'privacy-budget', rounds: 2 });
  // The step of 2 / 2^16 adds nothing that shows.
  for (const round of [1, 2]) expectNoise(await run.change(round), (z * 0.02) / Math.sqrt(3));
  expect(run.log.filter(({ type }) => type === 'committed').at(-1)!['epsilonSpent']).toEqual(
    Object.fromEntries(NAMES.map((name) => [name, costOf(2, z)])),
  );
  for (const ledger of run.ledgers) expect(ledger.map(({ round }) => round)).toEqual([1, 2]);
});

test('noise in shares under masks: z C / m in the model, from sites of which each added a third of its variance', {
  timeout: 180_000,
}, async () => {
  const z = 4;
  const differentialPrivacy = {
    unit: 'site',
    noise: 'distributed',
    clippingNorm: 0.5,
    noiseMultiplier: z,
  } as const;
  const spent = epsilonSpent(
    Array.from({ length: 2 }, () => siteLevelRound(differentialPrivacy, { valueBits: 16 })),
    DELTA,
  );
  expect(spent).toBeGreaterThan(costOf(2, z));
  const run = await play('shares', differentialPrivacy, spent + 1e-9, true);
  expect(run.summary).toMatchObject({ reason: 'privacy-budget', rounds: 2 });
  const changes = [await run.change(1), await run.change(2)];
  const grid = sumGrid({ ...differentialPrivacy, valueBits: 16 });
  const longest = longestOnGrid(grid, changes[0]!.length) / grid.stepsPerUnit;
  for (const change of changes) expectNoise(change, (z * longest) / 3);
  const commits = run.log.filter(({ type }) => type === 'committed');
  // Nothing was cut off, which would have thinned the noise.
  expect(commits).toMatchObject([{ clippedFraction: 0 }, { clippedFraction: 0 }]);
  expect(commits.at(-1)!['epsilonSpent']).toEqual(Object.fromEntries(NAMES.map((name) => [name, spent])));
  for (const ledger of run.ledgers)
    expect(ledger).toMatchObject([1, 2].map((round) => ({ round, normInSteps: grid.normInSteps })));
  expect(report(run.runDir)).toMatch(
    /added by \*\*the sites together\*\*, each a share of it under its mask/,
  );
});
