import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runPaths } from '@tributary/coordinator';
import type { RunEvent } from '@tributary/shared-protocol';
import type { WorkerEvent, WorkerSummary } from '@tributary/worker';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { CoordinatorSetup } from './coordinator-process.ts';
import { freePort, SITES, writeFederation } from './federation.ts';
import { type Party, startParty } from './processes.ts';
import type { WorkerSetup } from './worker-process.ts';

let root: string;
let shared: Omit<CoordinatorSetup, 'runDir' | 'port'>;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-e2e-'));
  shared = await writeFederation(root);
}, 60_000);
afterAll(() => rm(root, { recursive: true, force: true }));

type Ended = { type: 'summary' } & WorkerSummary;

/** One whole run: a coordinator and three sites with their trainers, over TLS. */
async function play(name: string) {
  const runDir = join(root, name, 'run');
  const setup: CoordinatorSetup = { ...shared, runDir, port: await freePort() };
  const coordinator = startParty<RunEvent>('./coordinator-process.ts', setup);
  const invited = await coordinator.seen((event) => event.type === 'invite');
  const invite = invited.type === 'invite' ? invited.invite : '';
  const workers: Party<WorkerEvent | Ended>[] = Object.keys(SITES).map((site) => {
    const worker: WorkerSetup = {
      invite,
      name: site,
      dataDir: join(root, 'data', site),
      stateDir: join(root, name, site),
      trainer: 'real',
      giveUpAfterMs: 30_000,
    };
    return startParty('./worker-process.ts', worker);
  });
  const ends = await Promise.all([coordinator, ...workers].map((one) => one.exited));
  const checkpoint = await readFile(runPaths(runDir).checkpoint(3));
  return { coordinator, workers, ends, checkpoint };
}

describe('three sites and a coordinator in their own processes, over TLS', () => {
  test('learn shapes that no site has enough of, and twice the same weights', async () => {
    const first = await play('first');
    for (const end of first.ends) expect(end).toMatchObject({ code: 0, signal: null });
    const evaluated = first.coordinator.events.flatMap((event) =>
      event.type === 'evaluated' ? [event] : [],
    );
    expect(evaluated.map(({ round }) => round)).toEqual([1, 2, 3]);
    expect(evaluated.at(-1)?.sites.map(({ name }) => name)).toEqual(Object.keys(SITES));
    // Three shapes: guessing gives 1/3. The task is easy; what is asked is that the federation learns at all.
    expect(evaluated.at(-1)?.metrics['accuracy']).toBeGreaterThan(0.8);
    for (const worker of first.workers) {
      expect(worker.events.at(-1)).toMatchObject({
        type: 'summary',
        ended: 'goodbye',
        updatesAccepted: 3,
        updatesRefused: 0,
        evaluations: 3,
      });
    }

    const second = await play('second');
    expect(second.checkpoint.equals(first.checkpoint)).toBe(true);
  }, 180_000);
});
