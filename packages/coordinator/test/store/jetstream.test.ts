/** A run that is kept in a real nats-server's JetStream: who leads, what a new leader finds, and what a former one can't do. */
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createNatsUser } from '@tributary/shared-protocol/nats';
import { withCode } from '@tributary/testkit';
import { type NatsServer, natsServerMissing, startNatsServer } from '@tributary/testkit/nats-server';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import {
  type Leadership,
  type RunStore,
  resolveFederation,
  runPaths,
  storePermissions,
  verifyRun,
} from '../../src/index.ts';
import { createJetStreamStore } from '../../src/store/jetstream.ts';
import { adds, artifact, baseConfig, startRun, type TestRun, temporaryDir } from '../federation.ts';

const missing = natsServerMissing();
if (missing !== undefined) test.skip(`store: ${missing}`, () => {});

const JETSTREAM = 'jetstream { store_dir: "./jetstream" }';
const lead = createNatsUser();

/** Two sites, which are the same ones in every run. */
async function joinBoth(run: TestRun): Promise<void> {
  for (const [i, name] of ['north', 'south'].entries())
    await run.join(name, { credential: name, invite: run.coordinator.invite(), train: adds(i + 1) });
}

describe.skipIf(missing !== undefined)('createJetStreamStore', () => {
  let server: NatsServer;
  let prefixes = 0;
  beforeAll(async () => {
    server = await startNatsServer({ config: JETSTREAM });
  });
  afterAll(() => server.stop());
  const fresh = () => `nats://127.0.0.1:${server.port}/store-${prefixes++}`;

  async function open(url: string, more: { readonly leaseMs?: number } = {}): Promise<RunStore> {
    const store = await createJetStreamStore({ url, credentials: { nkeySeed: lead.seed }, ...more });
    onTestFinished(() => store.close());
    return store;
  }

  /** Plays the run in `runDir` to its end. */
  async function play(runDir: string, leadership?: Leadership): Promise<void> {
    const run = await startRun({}, { runDir, ...(leadership ? { leadership } : {}) });
    if (!readFileSync(runPaths(runDir).log, 'utf8').includes('"finished"')) await joinBoth(run);
    await run.coordinator.run();
    await run.coordinator.close();
  }

  test('a server without JetStream is named, with what to write into its configuration', async () => {
    const plain = await startNatsServer();
    onTestFinished(() => plain.stop());
    await expect(open(`nats://127.0.0.1:${plain.port}/wards`)).rejects.toMatchObject({
      ...withCode('FED_STORE_UNAVAILABLE'),
      message: expect.stringContaining('jetstream {'),
    });
  });

  test('a coordinator needs the permissions that nats-config writes, and gets by with them', async () => {
    const user = (publish: readonly string[]) =>
      `authorization { users: [ { nkey: ${lead.node}, permissions: { publish: ${JSON.stringify(publish)}, subscribe: ["wards.>"] } } ] }`;
    const strict = await startNatsServer({ config: `${JETSTREAM}\n${user(['wards.>'])}` });
    onTestFinished(() => strict.stop());
    await expect(open(`nats://127.0.0.1:${strict.port}/wards`)).rejects.toMatchObject(
      withCode('FED_STORE_FORBIDDEN'),
    );
    const permitted = ['wards.>', ...storePermissions('wards')];
    const fair = await startNatsServer({ config: `${JETSTREAM}\n${user(permitted)}` });
    onTestFinished(() => fair.stop());
    const store = await open(`nats://127.0.0.1:${fair.port}/wards`);
    await play(temporaryDir(), await store.lead());
    // What it wrote can be read with them as well; and another federation's store can't.
    const [again, dir] = [await open(`nats://127.0.0.1:${fair.port}/wards`), temporaryDir()];
    await play(dir, await again.lead());
    expect(verifyRun(dir).findings).toEqual([]);
    await expect(open(`nats://127.0.0.1:${fair.port}/other`)).rejects.toMatchObject(
      withCode('FED_STORE_FORBIDDEN'),
    );
  });

  test('a leader that closes gives up the lease: the next goes on at once, in a folder of its own, to the same weights', async () => {
    const url = fresh();
    const [first, second] = [await open(url), await open(url)];
    const [a, b, alone] = [temporaryDir(), temporaryDir(), temporaryDir()];
    const leader = await startRun({}, { runDir: a, leadership: await first.lead() });
    await joinBoth(leader);
    const standingBy: number[] = [];
    const next = second.lead({ onStandby: ({ term }) => standingBy.push(term) });
    const running = leader.coordinator.run();
    running.catch(() => undefined);
    await leader.event('committed', ({ round }) => round === 1);
    await leader.coordinator.close();
    await expect(running).rejects.toMatchObject(withCode('FED_RUN_STOPPED'));
    const leadership = await next;
    expect(leadership.term).toBe(2);
    await play(b, leadership);
    await play(alone);
    expect(verifyRun(b)).toMatchObject({ findings: [], rounds: 2, checkpoints: 3 });
    const weights = (dir: string) => readFileSync(runPaths(dir).checkpoint(2));
    expect(weights(b).equals(weights(alone))).toBe(true);
    // The records of the first are the beginning of the second's.
    expect(readFileSync(runPaths(b).log, 'utf8').startsWith(readFileSync(runPaths(a).log, 'utf8'))).toBe(
      true,
    );
  });

  test('who stands by has the checkpoints before it leads', async () => {
    const url = fresh();
    const [first, second] = [await open(url), await open(url)];
    const [a, b] = [temporaryDir(), temporaryDir()];
    const leader = await startRun({}, { runDir: a, leadership: await first.lead() });
    await joinBoth(leader);
    await leader.coordinator.run();
    const stop = new AbortController();
    const federation = resolveFederation(baseConfig, artifact);
    const next = second.lead({ signal: stop.signal, follow: { paths: runPaths(b), federation } });
    const files = [0, 1, 2].map((round) => runPaths(b).checkpoint(round));
    await expect.poll(() => files.filter((file) => existsSync(file)), { timeout: 20_000 }).toEqual(files);
    stop.abort(new Error('seen enough'));
    await expect(next).rejects.toThrow('seen enough');
    expect(readFileSync(files[2]!).equals(readFileSync(runPaths(a).checkpoint(2)))).toBe(true);
  });

  test('a leader whose line comes after another has taken over is refused, and ends', async () => {
    const url = fresh();
    const [first, second] = [await open(url, { leaseMs: 60_000 }), await open(url, { leaseMs: 200 })];
    const leader = await startRun({}, { leadership: await first.lead() });
    // To the second the first, which renews every 12 seconds, is gone.
    const taken = await second.lead();
    expect(taken.term).toBe(2);
    expect(() => leader.coordinator.invite()).not.toThrow();
    await expect(leader.coordinator.run()).rejects.toMatchObject(withCode('FED_STORE_LEASE_LOST'));
    expect(leader.events.filter(({ type }) => type === 'invite')).toEqual([]);
    await taken.release();
  });

  test('a run that was begun without a store goes on with one; lines that the store never had are dropped', async () => {
    const url = fresh();
    const [a, b, c] = [temporaryDir(), temporaryDir(), temporaryDir()];
    await play(a);
    const begun = readFileSync(runPaths(a).log, 'utf8');
    const first = await open(url);
    await play(a, await first.lead());
    await play(b, await (await open(url)).lead());
    expect(readFileSync(runPaths(b).log, 'utf8').startsWith(begun)).toBe(true);
    // A folder that went another way: an invite of its own, that nobody ever saw.
    cpSync(b, c, { recursive: true });
    const astray = await startRun({}, { runDir: c });
    astray.coordinator.invite();
    await astray.coordinator.close();
    const own = readFileSync(runPaths(c).log, 'utf8');
    const ahead = await startRun({}, { runDir: b, leadership: await (await open(url)).lead() });
    ahead.coordinator.invite();
    await ahead.coordinator.close();
    const back = await startRun({}, { runDir: c, leadership: await (await open(url)).lead() });
    expect(back.events).toContainEqual(
      expect.objectContaining({
        type: 'warning',
        message: expect.stringContaining('had not reached the store'),
      }),
    );
    await back.coordinator.close();
    const log = readFileSync(runPaths(c).log, 'utf8');
    expect(log).toContain(readFileSync(runPaths(b).log, 'utf8'));
    expect(log).not.toContain(own.trim().split('\n').at(-1));
    expect(verifyRun(c).findings).toEqual([]);
  });

  test('a folder with another run than the store’s is left alone', async () => {
    const url = fresh();
    const other = temporaryDir();
    await play(temporaryDir(), await (await open(url)).lead());
    await play(other);
    const before = readFileSync(join(other, 'log.jsonl'), 'utf8');
    const store = await open(url);
    await expect(startRun({}, { runDir: other, leadership: await store.lead() })).rejects.toMatchObject(
      withCode('FED_STORE_OTHER_RUN'),
    );
    expect(readFileSync(join(other, 'log.jsonl'), 'utf8')).toBe(before);
  });

  test('a line that the server refuses for good ends the run, with what to look at', async () => {
    const narrow = await startNatsServer({ config: `${JETSTREAM}\nmax_payload: 4096` });
    onTestFinished(() => narrow.stop());
    const store = await open(`nats://127.0.0.1:${narrow.port}/wards`);
    const run = await startRun({}, { leadership: await store.lead() });
    await joinBoth(run);
    const end = run.coordinator.run();
    end.catch(() => undefined);
    run.coordinator.revoke('south', 'x'.repeat(5000));
    await expect(end).rejects.toMatchObject({
      ...withCode('FED_STORE_UNAVAILABLE'),
      message: expect.stringContaining('max_payload'),
    });
  });

  test('a leader whose server is away says so, keeps silent, and goes on when it is back and nobody has taken over', async () => {
    const shaky = await startNatsServer({ config: JETSTREAM });
    onTestFinished(() => shaky.stop());
    const store = await open(`nats://127.0.0.1:${shaky.port}/wards`, { leaseMs: 500 });
    const leadership = await store.lead();
    const run = await startRun({}, { leadership });
    process.kill(shaky.pid, 'SIGSTOP');
    const silent = await run.event('warning', ({ message }) => message.includes('keeps silent'));
    expect(silent.message).toContain('does not answer');
    expect(leadership.leads()).toBe(false);
    process.kill(shaky.pid, 'SIGCONT');
    await run.event('warning', ({ message }) => message.includes('still leads: the run goes on'));
    expect(leadership.leads()).toBe(true);
    await joinBoth(run);
    expect(await run.coordinator.run()).toMatchObject({ rounds: 2, reason: 'rounds' });
  });

  test('who stands by is told when the leader ends the run on purpose, and does not go on with it', async () => {
    const url = fresh();
    const [first, second] = [await open(url), await open(url)];
    const leadership = await first.lead();
    let standsBy: () => void = () => {};
    const standing = new Promise<void>((resolve) => {
      standsBy = resolve;
    });
    const next = second.lead({ onStandby: () => standsBy() });
    next.catch(() => undefined);
    await standing;
    await leadership.release('stopped: enough');
    await expect(next).rejects.toMatchObject({
      ...withCode('FED_STORE_ENDED'),
      message: expect.stringContaining('enough'),
    });
  });
});
