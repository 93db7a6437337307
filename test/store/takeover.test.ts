/**
 * Two coordinators of one federation, each with a folder of its own, and a real nats-server with JetStream between them:
 * what happens to the round that is open when the one that leads is killed, or frozen and woken up again.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runPaths, verifyRun } from '@tributary/coordinator';
import { type RunEvent, sha256 } from '@tributary/shared-protocol';
import { createNatsUser } from '@tributary/shared-protocol/nats';
import { type NatsServer, natsServerMissing, startNatsServer } from '@tributary/testkit/nats-server';
import type { WorkerEvent } from '@tributary/worker';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { CoordinatorSetup } from '../e2e/coordinator-process.ts';
import { shapesConfig, writeFederation } from '../e2e/federation.ts';
import { type Party, startParty } from '../e2e/processes.ts';
import type { WorkerSetup } from '../e2e/worker-process.ts';

type CoordinatorEvent =
  | RunEvent
  | { readonly type: 'standing-by' | 'leading'; readonly term: number; readonly at?: number }
  | { readonly type: 'summary'; readonly rounds: number; readonly reason: string }
  | { readonly type: 'error'; readonly code: string; readonly message: string };

const ROUNDS = 3;
const SITES = ['harbour', 'island'] as const;
const missing = natsServerMissing();
if (missing !== undefined) test.skip(`take-over: ${missing}`, () => {});

let root: string;
let shared: Omit<CoordinatorSetup, 'runDir' | 'port'>;
let undisturbed: string;
let runs = 0;

describe.skipIf(missing !== undefined)('a federation whose run is kept in JetStream', () => {
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'tributary-takeover-'));
    const config = shapesConfig({ rounds: ROUNDS, cohort: { size: 'all', quorum: SITES.length } });
    shared = await writeFederation(root, { config, tls: false });
    const alone = await open();
    const leader = alone.coordinator('a');
    alone.sites(await inviteOf(leader));
    await leader.seen(is('summary'));
    undisturbed = await weights(alone.runDir('a'));
  }, 120_000);
  afterAll(() => rm(root, { recursive: true, force: true }));

  test('whose leader is killed in the middle of a round: the stand-by completes that round, and the weights are the same', async () => {
    const { federation, leader, standby } = await inTheMiddle();
    leader.kill('SIGKILL');
    const killedAt = performance.now();
    await leader.exited;
    await standby.seen(is('resumed'));
    const resumedMs = performance.now() - killedAt;
    const again = await standby.seen((event) => event.type === 'round-started');
    await standby.seen(is('committed'));
    const committedMs = performance.now() - killedAt;
    console.log(
      `take-over: the stand-by went on ${(resumedMs / 1000).toFixed(1)} s after the leader's SIGKILL, and committed the round after ${(committedMs / 1000).toFixed(1)} s`,
    );
    expect(again).toMatchObject({ round: 2 });
    await standby.seen(is('summary'));
    await expectSound(federation.runDir('b'), standby);
  }, 90_000);

  test('whose leader is frozen, and wakes up once another leads: it ends, and nothing is there twice', async () => {
    const { federation, leader, standby } = await inTheMiddle();
    leader.kill('SIGSTOP');
    await standby.seen((event) => event.type === 'update-accepted');
    leader.kill('SIGCONT');
    const { code } = await leader.exited;
    expect(code).toBe(1);
    expect(leader.events.at(-1)).toMatchObject({ type: 'error', code: 'FED_STORE_LEASE_LOST' });
    await standby.seen(is('summary'));
    await expectSound(federation.runDir('b'), standby);
    // Started again, the former leader finds the run at its end, and has all of it.
    const former = federation.coordinator('a');
    await former.seen(is('summary'));
    expect(await readFile(runPaths(federation.runDir('a')).log, 'utf8')).toContain('"finished"');
    await expectSound(federation.runDir('a'));
  }, 90_000);

  test('whose stand-by has another key for the server: it is told so, and does not take the run', async () => {
    const federation = await open();
    const leader = federation.coordinator('a');
    await inviteOf(leader);
    const stranger = federation.coordinator('c', createNatsUser().seed);
    await stranger.seen(is('standing-by'));
    leader.kill('SIGKILL');
    expect(await stranger.seen(is('error'))).toMatchObject({ code: 'FED_STORE_DAMAGED' });
  }, 60_000);
});

async function open() {
  const server: NatsServer = await startNatsServer({ config: 'jetstream { store_dir: "./jetstream" }' });
  const folder = join(root, `run-${runs++}`);
  const living: Party<unknown>[] = [];
  const { seed } = createNatsUser();
  onFinish(async () => {
    for (const one of living) one.kill('SIGKILL');
    await Promise.all(living.map((one) => one.exited));
    await server.stop();
  });
  const runDir = (name: string) => join(folder, name);
  return {
    runDir,
    coordinator(name: string, nkeySeed = seed) {
      const nats = `nats://127.0.0.1:${server.port}/wards`;
      const setup: CoordinatorSetup = { ...shared, runDir: runDir(name), port: 0, nats, store: { nkeySeed } };
      const one = startParty<CoordinatorEvent>('./coordinator-process.ts', setup);
      living.push(one);
      return one;
    },
    sites(invite: string) {
      for (const name of SITES) {
        const setup: WorkerSetup = {
          invite,
          name,
          dataDir: join(root, 'data', name),
          stateDir: join(folder, name),
          trainer: 'fake',
          trainMs: name === 'harbour' ? 100 : 600,
          giveUpAfterMs: 60_000,
        };
        living.push(startParty<WorkerEvent>('./worker-process.ts', setup));
      }
    },
  };
}

/** A federation with a leader and a stand-by, where one of two updates of round 2 is accepted. */
async function inTheMiddle() {
  const federation = await open();
  const leader = federation.coordinator('a');
  const invite = await inviteOf(leader);
  const standby = federation.coordinator('b');
  await standby.seen(is('standing-by'));
  federation.sites(invite);
  await leader.seen((event) => event.type === 'update-accepted' && event.round === 2);
  return { federation, leader, standby };
}

/** At the end of the test, or of all when it is opened outside of one. */
function onFinish(close: () => Promise<void>): void {
  try {
    onTestFinished(close);
  } catch {
    afterAll(close);
  }
}

function is<T extends CoordinatorEvent['type']>(type: T) {
  return (event: CoordinatorEvent): boolean => event.type === type;
}

async function inviteOf(coordinator: Party<CoordinatorEvent>): Promise<string> {
  const event = await coordinator.seen(is('invite'));
  return (event as Extract<RunEvent, { type: 'invite' }>).invite;
}

async function weights(runDir: string): Promise<string> {
  return sha256(await readFile(runPaths(runDir).checkpoint(ROUNDS)));
}

/** Each round is committed once, the log verifies with all of its checkpoints, and the weights are the undisturbed ones. */
async function expectSound(runDir: string, told?: Party<CoordinatorEvent>): Promise<void> {
  const text = await readFile(runPaths(runDir).log, 'utf8');
  const records = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string; round: number; publicKey: string });
  const commits = records.filter(({ type }) => type === 'committed').map(({ round }) => round);
  expect(commits).toEqual([1, 2, 3]);
  const report = verifyRun(runDir, { publicKey: records[0]!.publicKey });
  expect(report.findings).toEqual([]);
  expect(await weights(runDir)).toBe(undisturbed);
  if (told) expect(told.events.filter(is('committed')).length).toBe(ROUNDS - 1);
}
