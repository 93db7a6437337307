/** Sites whose policies refuse, in their own processes: the run goes on without them, and its log says why. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCoordinator, resolveFederation, runPaths, verifyRunLog } from '@tributary/coordinator';
import { decodeFrame, type RunEvent } from '@tributary/shared-protocol';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import type { WorkerEvent, WorkerSummary } from '@tributary/worker';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { type SiteName, shapesConfig, writeFederation } from './federation.ts';
import { type Party, startParty } from './processes.ts';
import type { WorkerSetup } from './worker-process.ts';

type Said = WorkerEvent | ({ type: 'summary' } & WorkerSummary) | { type: 'error'; code: string };

let root: string;
const parties: Party<never>[] = [];
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-e2e-policy-'));
}, 60_000);
afterAll(async () => {
  for (const party of parties) party.kill();
  await Promise.all(parties.map((party) => party.exited));
  await rm(root, { recursive: true, force: true });
});

function start<E>(file: string, setup: unknown): Party<E> {
  const party = startParty<E>(file, setup);
  parties.push(party as Party<never>);
  return party;
}

test('a refused cohort is in the log round by round, a refused federation as the reason of leaving', {
  timeout: 120_000,
}, async () => {
  // A round may close with the updates of two.
  const config = shapesConfig({ rounds: 2, cohort: { quorum: 2 } });
  const shared = await writeFederation(root, { config });
  await writeFile(join(root, 'data', 'meadow', 'site-policy.yaml'), 'minCohort: 3\n');
  const runDir = join(root, 'run');
  const { tensors: weights } = decodeFrame(await readFile(shared.weightsFile));
  const topology = await readFile(shared.topologyFile, 'utf8');
  const artifact = { name: 'tiny', topology, weights, frozenWeights: [] };
  const events: RunEvent[] = [];
  const { tls } = shared;
  const coordinator = await createCoordinator({
    federation: resolveFederation(config, artifact),
    artifact,
    runDir,
    transport: createSocketioTransport({ host: '127.0.0.1', port: 0, tls }),
    onEvent: (event) => events.push(event),
  });
  onTestFinished(() => coordinator.close());
  const invite = coordinator.invite({ uses: 4 });
  const takePart = (name: string, site: SiteName) => {
    const worker: WorkerSetup = {
      invite,
      name,
      dataDir: join(root, 'data', site),
      stateDir: join(root, 'state', name),
      trainer: 'real',
      giveUpAfterMs: 30_000,
    };
    return start<Said>('./worker-process.ts', worker);
  };

  // A site that allows other models only: it leaves before anything is trained.
  await writeFile(join(root, 'data', 'island', 'site-policy.yaml'), `models: ["${'f'.repeat(64)}"]\n`);
  const stranger = takePart('stranger', 'island');
  expect(await stranger.seen((event) => event.type === 'error')).toMatchObject({ code: 'FED_POLICY_MODEL' });
  await rm(join(root, 'data', 'island', 'site-policy.yaml'));

  const sites = (['harbour', 'island', 'meadow'] as const).map((site) => takePart(site, site));
  await Promise.all(sites.map((site) => site.seen((event) => event.type === 'waiting')));
  expect(await coordinator.run()).toMatchObject({ reason: 'rounds', rounds: 2 });
  for (const site of sites) expect(await site.exited).toMatchObject({ code: 0, signal: null });
  const careful = sites[2]!;

  const log = verifyRunLog(runPaths(runDir).log, coordinator.logPublicKey);
  const records = (type: string): Record<string, unknown>[] =>
    log.filter((record) => record.type === type).map((record) => ({ ...record }));
  expect(records('left')).toEqual([
    expect.objectContaining({
      name: 'stranger',
      reason: expect.stringContaining('none of those that are allowed'),
    }),
  ]);
  expect(records('client-failed').map(({ name, round, code }) => [name, round, code])).toEqual([
    ['meadow', 1, 'FED_POLICY_COHORT'],
    ['meadow', 2, 'FED_POLICY_COHORT'],
  ]);
  expect(records('client-failed')[0]?.['reason']).toContain('averaged from 2 updates (3 sites asked)');
  for (const commit of records('committed')) {
    expect(commit['updates']).toMatchObject([{ name: 'harbour' }, { name: 'island' }]);
  }
  // The lead sees it too.
  expect(events.filter((event) => event.type === 'client-failed')).toHaveLength(2);
  // Nothing of the site was sent, and it was no fault of its trainer: it measured each model.
  expect(careful.events.at(-1)).toMatchObject({
    type: 'summary',
    ended: 'goodbye',
    updatesAccepted: 0,
    evaluations: 2,
  });
});
