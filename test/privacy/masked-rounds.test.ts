/** Rounds under secure aggregation, over a real coordinator and real site agents. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type LogRecord, runPaths, verifyCopy, verifyRun } from '@tributary/coordinator';
import { readSigningKey, signRecord } from '@tributary/shared-protocol';
import { rotateKey } from '@tributary/worker';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import {
  changes,
  commitsOf,
  memoryTransport,
  type Site,
  startMasked,
  tapped,
  temporaryDir,
} from './masked-federation.ts';

/** Of the default 16 bits over ±1. */
const STEP = 2 / (2 ** 16 - 2);

describe('a masked round', () => {
  test('commits the weighted mean of updates that the coordinator never saw', async () => {
    const run = await startMasked();
    const sites = [
      run.join('a', { update: () => 0.25, numExamples: 100 }),
      run.join('b', { update: (i) => (i % 2) / 10, numExamples: 300 }),
      run.join('c', { update: () => -0.5, numExamples: 600 }),
    ];
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds', rounds: 2 });
    changes(run, 2).forEach((change, i) => {
      const mean = 0.25 * 0.1 + ((i % 2) / 10) * 0.3 - 0.5 * 0.6;
      // A weight is a whole number of units of seven examples.
      expect(Math.abs(change - 2 * mean)).toBeLessThan(4 * STEP + 0.004);
    });
    for (const { summary } of sites)
      expect(await summary).toMatchObject({ ended: 'goodbye', updatesAccepted: 2, updatesRefused: 0 });
    const commits = commitsOf(run);
    expect(commits.map(({ updates }) => updates.map(({ name }) => name))).toEqual([
      ['a', 'b', 'c'],
      ['a', 'b', 'c'],
    ]);
    expect(commits[0]).toMatchObject({ clippedFraction: 0, trainMetrics: {} });
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true });
  });

  test('weighs all the same where the strategy does, and tells what was clipped', async () => {
    const run = await startMasked({
      rounds: 1,
      strategy: { name: 'fed-avg', weighting: 'uniform' },
      privacy: { secureAggregation: { clippingRange: 0.5, valueBits: 20 } },
    });
    run.join('a', { update: () => 0.1, numExamples: 1 });
    run.join('b', { update: () => 0.2, numExamples: 1000 });
    run.join('c', { update: (i) => (i < 300 ? 0.9 : 0.3), numExamples: 10 });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    for (const change of changes(run, 1).slice(0, 300)) expect(change).toBeCloseTo(0.8 / 3, 4);
    for (const change of changes(run, 1).slice(300)) expect(change).toBeCloseTo(0.2, 4);
    const [commit] = commitsOf(run);
    expect(commit!.clippedFraction).toBeCloseTo(300 / 3007 / 3, 4);
    expect(commit).not.toHaveProperty('numExamples');
  });

  test('lets nothing of an update leave its site but masked words, and no count of examples', async () => {
    const tap = tapped(memoryTransport());
    const run = await startMasked({ rounds: 1 }, { transport: tap.transport });
    const numbers = [12_345, 54_321, 11_111];
    for (const [i, name] of ['a', 'b', 'c'].entries())
      run.join(name, { update: (at) => Math.fround(0.001 * at + i), numExamples: numbers[i]! });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    const update = Float32Array.from({ length: 100 }, (_, at) => Math.fround(0.001 * at));
    const sent = tap.toCoordinator();
    expect(sent.bodies.length).toBeGreaterThanOrEqual(3);
    for (const body of sent.bodies) expect(body.includes(Buffer.from(update.buffer, 0, 40))).toBe(false);
    expect(new Set(sent.messages.map(({ type }) => type))).toContain('trained');
    const said = JSON.stringify(sent.messages);
    for (const number of numbers) expect(said).not.toContain(String(number));
    expect(said).not.toContain('loss');
  });

  test('goes on with the others when a site is gone while it masks', async () => {
    const run = await startMasked({ cohort: { quorum: 3 }, rounds: 2 });
    const names = ['a', 'b', 'c', 'd', 'e'];
    const sites = names.map((name, i) => run.join(name, { update: () => 0.1 * i, numExamples: 70 }));
    await vi.waitFor(() => expect(run.events.filter(({ type }) => type === 'ready')).toHaveLength(5), 15_000);
    const gone = sites.at(-1)!;
    const done = run.coordinator.run();
    await told(gone, 'masked');
    await gone.stop();
    expect(await done).toMatchObject({ reason: 'rounds', rounds: 2 });
    expect(
      commitsOf(run)
        .at(-1)!
        .updates.map(({ name }) => name),
    ).toEqual(names.slice(0, 4));
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true });
  });
});

describe('an attempt that fails', () => {
  test('is followed by another with new keys, and nothing is trained again', async () => {
    const trained: string[] = [];
    const run = await startMasked({ rounds: 1, deadlines: { ...DEADLINES, rejoinSeconds: 10 } });
    const onTrain = (name: string) => async () => void trained.push(name);
    run.join('a', { update: () => 0.1, onTrain: onTrain('a') });
    run.join('b', { update: () => 0.2, onTrain: onTrain('b') });
    const c = run.join('c', { update: () => 0.3, onTrain: onTrain('c') });
    const done = run.coordinator.run();
    await told(c, 'masked');
    await c.stop();
    // With its state folder it is the same site, and has its update still.
    run.join('c', { update: () => 0.3, onTrain: onTrain('c'), stateDir: c.stateDir });
    expect(await done).toMatchObject({ reason: 'rounds', rounds: 1 });
    expect(trained.sort()).toEqual(['a', 'b', 'c']);
    for (const change of changes(run, 1)) expect(change).toBeCloseTo(0.2, 3);
  });

  test('is followed by one over the same set of sites, once that was asked for, until all of it are there', async () => {
    const attempts: string[] = [];
    const trained: string[] = [];
    const onTrain = (name: string) => async () => void trained.push(name);
    const lost = new Map<string, Promise<void>>();
    let sites: Site[] = [];
    const away = async (name: string) => {
      const { stateDir, stop } = sites.find((site) => site.name === name)!;
      await stop();
      sites = [
        ...sites.filter((site) => site.name !== name),
        run.join(name, { stateDir, onTrain: onTrain(name) }),
      ];
    };
    /** Loses those sites once; whoever is asked meanwhile is asked afterwards. */
    const lose = (key: string, ...names: string[]) => {
      if (!lost.has(key))
        lost.set(
          key,
          Promise.all(names.map(away)).then(() => undefined),
        );
      return lost.get(key)!;
    };
    const { transport } = tapped(memoryTransport(), async (request) => {
      if ('attempt' in request && !attempts.includes(request.attempt!)) attempts.push(request.attempt!);
      // Two of four sign: too few, but they will never sign another set.
      if (attempts.length === 1 && request.type === 'agree') await lose('first', 'c', 'd');
      // Three masked updates are enough, and are the wrong three.
      if (attempts.length === 2 && request.type === 'mask') await lose('second', 'd');
    });
    const run = await startMasked({ rounds: 1, cohort: { quorum: 3 } }, { transport });
    sites = ['a', 'b', 'c', 'd'].map((name) => run.join(name, { onTrain: onTrain(name) }));
    await vi.waitFor(() => expect(run.events.filter(({ type }) => type === 'ready')).toHaveLength(4), 15_000);
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    expect(attempts).toHaveLength(3);
    expect([...lost.keys()]).toEqual(['first', 'second']);
    expect(commitsOf(run)[0]!.updates.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd']);
    expect(trained.sort()).toEqual(['a', 'b', 'c', 'd']);
    expect(verifyRun(run.runDir).findings).toEqual([]);
  });

  test('waits for nobody who is not in the set that was asked for', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'], shouldAdvanceTime: true });
    onTestFinished(() => void vi.useRealTimers());
    let c: Site | undefined;
    let lost: Promise<void> | undefined;
    const { transport } = tapped(memoryTransport(), async (request) => {
      if (request.type !== 'agree') return;
      lost ??= c!.stop().then(() => void run.join('c', { stateDir: c!.stateDir }));
      await lost;
    });
    const deadlines = { roundSeconds: 300, quorumSeconds: 300, heartbeatSeconds: 700 };
    const run = await startMasked({ rounds: 1, cohort: { quorum: 3 }, deadlines }, { transport });
    run.join('a');
    run.join('b');
    c = run.join('c');
    run.join('d', { onTrain: () => new Promise(() => undefined) });
    await vi.waitFor(() => expect(run.events.filter(({ type }) => type === 'ready')).toHaveLength(4), 15_000);
    const done = run.coordinator.run();
    const announced = () => run.log().filter(({ type }) => type === 'trained').length;
    await vi.waitFor(() => expect(announced()).toBe(3), 15_000);
    // The time that d is given, once.
    vi.advanceTimersByTime(300_000);
    expect(await done).toMatchObject({ reason: 'rounds' });
    expect(run.log().filter(({ type }) => type === 'survivors')).toHaveLength(2);
    expect(commitsOf(run)[0]!.updates.map(({ name }) => name)).toEqual(['a', 'b', 'c']);
  });

  test('has a site that lost its update train it once more', async () => {
    const trained: string[] = [];
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const run = await startMasked({ rounds: 1 });
    run.join('a', { onTrain: () => held });
    run.join('b');
    const onTrain = async () => void trained.push('c');
    const c = run.join('c', { onTrain });
    const done = run.coordinator.run();
    await vi.waitFor(() => expect(run.log().map(({ type }) => type)).toContain('trained'), 15_000);
    await told(c, 'spooled');
    await c.stop();
    rmSync(join(c.stateDir, 'spool'), { recursive: true });
    await told(run.join('c', { onTrain, stateDir: c.stateDir }), 'ready');
    release();
    expect(await done).toMatchObject({ reason: 'rounds' });
    expect(trained).toEqual(['c', 'c']);
  });

  test.each([
    ['before its sum was asked for: the round goes on without it', 'mask', { reason: 'rounds' }],
    [
      'afterwards: there is no other sum, and the run ends',
      'agree',
      {
        reason: 'failed',
        message: expect.stringMatching(/was to be unmasked with d, who is out of the run/),
      },
    ],
  ] as const)('that is of a site which is expelled %s', async (_, stage, end) => {
    let expelled = false;
    const { transport } = tapped(memoryTransport(), async (request) => {
      if (request.type !== stage || expelled) return;
      expelled = true;
      run.coordinator.revoke('d', 'a test said so');
    });
    const run = await startMasked({ rounds: 1, cohort: { quorum: 3 } }, { transport });
    const trained: string[] = [];
    for (const name of ['a', 'b', 'c', 'd']) run.join(name, { onTrain: async () => void trained.push(name) });
    await vi.waitFor(() => expect(run.events.filter(({ type }) => type === 'ready')).toHaveLength(4), 15_000);
    expect(await run.coordinator.run()).toMatchObject(end);
    const names = commitsOf(run).map(({ updates }) => updates.map(({ name }) => name).join());
    expect(names).toEqual(stage === 'mask' ? ['a,b,c'] : []);
    expect(trained.sort()).toEqual(['a', 'b', 'c', 'd']);
    expect(verifyRun(run.runDir).findings).toEqual([]);
  });

  test('ends the run below three sites, with everything that was committed kept', async () => {
    const run = await startMasked({
      rounds: 1,
      deadlines: { ...DEADLINES, rejoinSeconds: 0, extensions: 1 },
    });
    run.join('a');
    run.join('b');
    const c = run.join('c');
    const done = run.coordinator.run();
    await told(c, 'spooled');
    await c.stop();
    expect(await done).toMatchObject({
      reason: 'failed',
      rounds: 0,
      message: expect.stringMatching(/at least 3/),
    });
  });
});

describe('a coordinator without room for a masked update', () => {
  test('ends with the reason, and waits for nothing more', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'], shouldAdvanceTime: true });
    onTestFinished(() => void vi.useRealTimers());
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let asked = 0;
    const { transport } = tapped(memoryTransport(), async (request) => {
      if (request.type !== 'mask') return;
      // No folder can be where a file is. The others are still to be asked then.
      if (++asked === 1) writeFileSync(runPaths(run.runDir).roundSpool(1), '');
      else await held;
    });
    const run = await startMasked(
      { rounds: 1, deadlines: { ...DEADLINES, rejoinSeconds: 300 } },
      { transport },
    );
    const sites = ['a', 'b', 'c'].map((name) => run.join(name));
    await expect(run.coordinator.run()).rejects.toMatchObject({ code: 'FED_RUN_STORAGE' });
    await run.coordinator.close();
    release();
    await Promise.all(sites.map((site) => site.stop()));
    // What would keep its process alive.
    await vi.waitFor(() => expect(vi.getTimerCount()).toBe(0), 5000);
  });
});

describe('a restart of the coordinator', () => {
  test('begins the attempt anew, from the updates that the sites have', async () => {
    const transport = memoryTransport();
    const runDir = temporaryDir();
    const first = await startMasked({ rounds: 2 }, { transport, runDir });
    const trained: string[] = [];
    const sites = ['a', 'b', 'c'].map((name, i) =>
      first.join(name, {
        update: () => 0.1 * (i + 1),
        onTrain: async (round) => void trained.push(`${name}${round}`),
      }),
    );
    void first.coordinator.run().catch(() => undefined);
    await told(sites[0]!, 'masked');
    await first.coordinator.close();
    const second = await startMasked({ rounds: 2 }, { transport, runDir });
    expect(await second.coordinator.run()).toMatchObject({ reason: 'rounds', rounds: 2 });
    for (const change of changes(second, 2)) expect(change).toBeCloseTo(0.4, 3);
    expect(trained.sort()).toEqual(['a1', 'a2', 'b1', 'b2', 'c1', 'c2']);
    expect(verifyRun(runDir)).toMatchObject({ ok: true });
  });
});

describe('what a site holds to', () => {
  test('a policy that demands secure aggregation is met, and with peers only by those sites', async () => {
    const run = await startMasked({ rounds: 1, deadlines: { ...DEADLINES, extensions: 0 } });
    run.join('a', { policy: 'privacy: { secureAggregation: true }' });
    run.join('b');
    const picky = run.join('c', {
      policy: `privacy: { secureAggregation: { peers: { a: ${'A'.repeat(43)}, b: ${'A'.repeat(43)} } } }`,
    });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'failed' });
    expect(run.events.filter((event) => event.type === 'client-failed')).toMatchObject([
      { name: 'c', code: 'FED_POLICY_PRIVACY', reason: expect.stringMatching(/ask that site for its key/) },
    ]);
    expect(picky.events.some(({ type }) => type === 'masked')).toBe(false);
  });

  test('the keys of the others are pinned, and another key for one of them is not believed', async () => {
    const run = await startMasked({ rounds: 1 });
    const sites = ['a', 'b', 'c'].map((name) => run.join(name));
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    const pins = JSON.parse(readFileSync(join(sites[0]!.stateDir, 'peers.json'), 'utf8')) as object;
    expect(Object.keys(pins).sort()).toEqual(['b', 'c']);
  });

  test('a site that has changed its key is known by its own signature for the change', async () => {
    const run = await startMasked({ rounds: 2, deadlines: { ...DEADLINES, rejoinSeconds: 15 } });
    const a = run.join('a');
    run.join('b');
    const held = new Promise<void>(() => undefined);
    const c = run.join('c', { onTrain: (round) => (round === 2 ? held : Promise.resolve()) });
    const done = run.coordinator.run();
    await vi.waitFor(() => expect(c.events.filter(({ type }) => type === 'planned')).toHaveLength(2), 15_000);
    await c.stop();
    const pinned = () => JSON.parse(readFileSync(join(a.stateDir, 'peers.json'), 'utf8')) as { c: string };
    const { former, publicKey } = await rotateKey({ stateDir: c.stateDir, transport: run.transport });
    expect(pinned().c).toBe(former);
    run.join('c', { stateDir: c.stateDir });
    expect(await done).toMatchObject({ reason: 'rounds', rounds: 2 });
    expect(pinned().c).toBe(publicKey);
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true });
  });

  test('of one update it signs one sum, and remembers which after a restart', async () => {
    const run = await startMasked({ rounds: 1 });
    const sites = ['a', 'b', 'c'].map((name) => run.join(name));
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    for (const { stateDir, summary } of sites) {
      await summary;
      const lines = readFileSync(join(stateDir, 'signed-sums.jsonl'), 'utf8').trim().split('\n');
      expect(lines.map((line) => JSON.parse(line))).toMatchObject([{ round: 1, survivors: ['a', 'b', 'c'] }]);
      expect(readdirSync(join(stateDir, 'work'))).toEqual([]);
    }
  });
});

test('a site’s copy of the log finds a second sum of the same updates, and a commit of another one', async () => {
  const run = await startMasked({ rounds: 1, cohort: { quorum: 4 } });
  const [a] = ['a', 'b', 'c', 'd'].map((name) => run.join(name)) as [Site];
  expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
  await a.summary;
  const copy = readFileSync(join(a.stateDir, 'records.jsonl'), 'utf8').trim().split('\n');
  const told = copy.map((line) => JSON.parse(line) as LogRecord);
  const publicKey = run.coordinator.logPublicKey;
  const check = (records: readonly object[]) =>
    verifyCopy(Buffer.from(records.map((record) => `${JSON.stringify(record)}\n`).join('')), {
      file: 'records.jsonl',
      name: 'a',
      publicKey,
    });
  expect(check(told)).toMatchObject({ ok: true });
  // What only the holder of the run's key could write.
  const key = readSigningKey(readFileSync(runPaths(run.runDir).key, 'utf8'));
  const forged = (change: (record: LogRecord) => readonly LogRecord[]) =>
    told.flatMap(change).map(({ hash: _, sig: __, ...body }, seq) => signRecord({ ...body, seq }, key));
  const asked = (record: LogRecord, names: readonly string[]) =>
    record.type === 'survivors' ? [{ ...record, names }, record] : [record];
  expect(check(forged((record) => asked(record, ['a', 'b', 'c']))).findings[0]?.what).toMatch(
    /sum of a, b, c, d unmasked in round 1, and of a, b, c before/,
  );
  const fewer = (record: LogRecord) =>
    record.type === 'committed' ? [{ ...record, updates: record.updates.slice(0, 3) }] : [record];
  expect(check(forged(fewer)).findings.map(({ what }) => what)).toContain(
    'commits a sum of other sites than were to unmask it (a, b, c, d)',
  );
});

describe('a configuration', () => {
  test.each([
    [{ cohort: { size: 2 } }, /cohort.size = 2: .*hides nobody among fewer than 3/],
    [{ cohort: { quorum: 2 } }, /cohort.quorum = 2: .*hides nobody among fewer than 3/],
    [{ strategy: { name: 'fed-avg', updateClippingNorm: 1 } as const }, /sees no single update/],
    [{ privacy: { secureAggregation: { valueBits: 40 } } }, /valueBits/],
    [{ privacy: { budget: { epsilon: 1, delta: 1e-5 } } }, /without differentialPrivacy nothing bounds/],
  ])('%j is refused with the reason', async (config, reason) => {
    await expect(startMasked(config)).rejects.toThrow(reason);
  });
});

const DEADLINES = { roundSeconds: 20, quorumSeconds: 20, heartbeatSeconds: 20 };

function told(site: Site, type: Site['events'][number]['type']): Promise<void> {
  return vi.waitFor(
    () => {
      if (!site.events.some((event) => event.type === type)) throw new Error(`${site.name}: no ${type} yet`);
    },
    { timeout: 15_000, interval: 1 },
  );
}
