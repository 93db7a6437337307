/**
 * Ten runs of the seeded harness, as `npm run chaos -- --runs 10 --seed 1` plays them: whatever is done to the
 * processes, networks and disks of a federation, it comes to its end with the weights of the undisturbed run.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { playCampaign } from './harness/campaign.ts';
import { findDiskKind } from './harness/disk.ts';
import { violationLines } from './harness/report.ts';
import { openStage, type Stage } from './harness/stage.ts';
import { findTransports } from './harness/transports.ts';

const SEED = 1;
const RUNS = Array.from({ length: 10 }, (_, i) => i + 1);

let root: string;
let stage: Stage;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-seeded-'));
  stage = await openStage({ root, diskKind: findDiskKind().kind });
});
afterAll(async () => {
  await stage.close();
  await rm(root, { recursive: true, force: true });
});

describe('a federation under ten seeded runs of random faults', () => {
  test('ends each with the weights of the undisturbed run, and leaves nothing behind', async () => {
    const results = await playCampaign(stage, {
      seed: SEED,
      runs: RUNS,
      transports: findTransports().names,
      lanes: 3,
      keep: false,
    });
    const wrong = results.filter(({ violations }) => violations.length > 0);
    expect(wrong.flatMap(violationLines)).toEqual([]);
    expect(results.map(({ plan }) => plan.run)).toEqual(RUNS);
    // Each transport that can be had has its turn.
    expect([...new Set(results.map(({ plan }) => plan.transport))].sort()).toEqual(
      [...findTransports().names].sort(),
    );
    // A campaign that does no harm would prove nothing.
    expect(results.flatMap(({ faults }) => faults.filter((one) => one.struckMs !== undefined))).not.toEqual(
      [],
    );
  }, 600_000);
});
