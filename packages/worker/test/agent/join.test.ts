import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createCertificate,
  createSigningKey,
  encodeInvite,
  FIRST_PREV,
  isProven,
  ProtocolError,
  RemoteError,
  readSigningKey,
  signRecord,
  type Transport,
} from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { WorkerEvent, WorkerEventType, WorkerSummary } from '../../src/agent/events.ts';
import { type JoinOptions, joinFederation } from '../../src/agent/join.ts';
import { type FakeTrainer, fakeTrainer, updateOf } from './fake-trainer.ts';
import {
  challenged,
  federationView,
  type ScriptedCoordinator,
  scriptedCoordinator,
} from './scripted-coordinator.ts';

const MODEL = Uint8Array.from({ length: 200 }, (_, i) => i); // 4 chunks of 64 bytes, the last one short
const NEXT_MODEL = Uint8Array.from({ length: 200 }, (_, i) => 255 - i);

let root: string;
let dataDir: string;
let stateDir: string;
let trainer: FakeTrainer;
let controller: AbortController;
let running: Promise<unknown>[];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-join-'));
  dataDir = join(root, 'data');
  stateDir = join(root, 'state');
  for (const name of ['cross', 'ring']) {
    await mkdir(join(dataDir, name), { recursive: true });
    await sharp({ create: { width: 8, height: 8, channels: 3, background: '#123' } }).toFile(
      join(dataDir, name, 'a.png'),
    );
  }
  trainer = fakeTrainer();
  controller = new AbortController();
  running = [];
});
afterEach(async () => {
  controller.abort();
  await Promise.allSettled(running);
  await rm(root, { recursive: true, force: true });
});

interface Agent {
  readonly done: Promise<WorkerSummary>;
  readonly events: WorkerEvent[];
  seen<T extends WorkerEventType>(type: T, count?: number): Promise<Extract<WorkerEvent, { type: T }>>;
}

const transports: Record<string, () => Promise<Transport>> = {
  memory: async () => createMemoryTransport(),
  'socket.io over TLS': async () =>
    createSocketioTransport({ host: '127.0.0.1', port: 0, tls: await createCertificate(['127.0.0.1']) }),
};

describe.each(Object.entries(transports))('the agent over %s', (_name, createTransport) => {
  let transport: Transport;
  let coordinator: ScriptedCoordinator;
  beforeEach(async () => {
    transport = await createTransport();
    coordinator = await scriptedCoordinator(transport, federationView());
  });
  afterEach(() => coordinator.close());

  function inviteFor({
    runId = 'run-1',
    fingerprint = coordinator.fingerprint,
    publicKey = coordinator.key.publicKey,
  } = {}): string {
    return encodeInvite({
      url: coordinator.url,
      publicKey,
      ...(fingerprint === undefined ? {} : { fingerprint }),
      secret: 'one-time',
      runId,
      expiresAt: Date.now() + 60_000,
    });
  }

  function startAgent(overrides: Partial<JoinOptions> = {}): Agent {
    const events: WorkerEvent[] = [];
    const waiting = new Set<() => void>();
    const done = joinFederation({
      invite: inviteFor(),
      dataDir,
      stateDir,
      name: 'lab',
      transport,
      startTrainer: trainer.start,
      signal: controller.signal,
      backoff: { baseMs: 4 },
      onEvent(event) {
        events.push(event);
        for (const look of waiting) look();
      },
      ...overrides,
    });
    done.catch(() => undefined);
    running.push(done);
    return {
      done,
      events,
      seen<T extends WorkerEventType>(type: T, count = 1) {
        return new Promise<Extract<WorkerEvent, { type: T }>>((resolve, reject) => {
          const look = () => {
            const found = events.filter((event) => event.type === type)[count - 1];
            if (found === undefined) return;
            waiting.delete(look);
            resolve(found as Extract<WorkerEvent, { type: T }>);
          };
          waiting.add(look);
          look();
          done.catch(reject);
        });
      },
    };
  }

  test('trains a plan, hands the update over, evaluates, and ends on goodbye', async () => {
    const agent = startAgent();
    await coordinator.received('ready');
    const model = await coordinator.addModel(MODEL);
    await coordinator.plan({ model });
    await agent.seen('accepted');
    expect([...coordinator.updates.values()]).toEqual([updateOf(MODEL, 1)]);
    const offer = await coordinator.received('offer');
    // The fake's NaN metric is left out: the wire has no NaN.
    expect(offer).toMatchObject({ round: 1, base: model.digest, numExamples: 10, metrics: { loss: 0.25 } });
    await coordinator.plan({ model: await coordinator.addModel(NEXT_MODEL), task: 'evaluate' });
    expect(await coordinator.received('evaluation')).toMatchObject({ round: 1, metrics: { accuracy: 200 } });
    await agent.seen('evaluated');
    await coordinator.goodbye();
    expect(await agent.done).toEqual({
      clientId: 'client-1',
      name: 'lab',
      runId: 'run-1',
      ended: 'goodbye',
      code: 'FED_RUN_FINISHED',
      reason: 'all rounds are done',
      updatesAccepted: 1,
      updatesRefused: 0,
      evaluations: 1,
      stateDir,
    });
    expect(await readdir(join(stateDir, 'spool'))).toEqual([]);
  });

  test('keeps the lines of the log that it is brought, and says on the next link how far it has got', async () => {
    startAgent();
    expect((await coordinator.received('ready')).recordsUpTo).toBe(-1);
    const line = JSON.stringify(
      signRecord({ type: 'run-started', seq: 4, at: 1, config: 'c', prev: FIRST_PREV }, coordinator.key),
    );
    const bring = (text: string) =>
      coordinator.channels.at(-1)!.call({ type: 'records', lines: [text] }, 'ok');
    await bring(line);
    expect(await readFile(join(stateDir, 'records.jsonl'), 'utf8')).toBe(`${line}\n`);
    await expect(bring(line.replace('"at":1', '"at":2'))).rejects.toMatchObject({
      code: 'FED_WORKER_RECORDS',
    });
    await coordinator.drop();
    expect((await coordinator.received('ready', 2)).recordsUpTo).toBe(4);
  });

  test('expelled while it checks its data: ends with the reason, and starts no trainer behind its back', async () => {
    const agent = startAgent();
    await agent.seen('joined');
    await coordinator.goodbye('FED_JOIN_REVOKED', 'the lead has expelled "lab"');
    await expect(agent.done).rejects.toMatchObject({ code: 'FED_JOIN_REVOKED', retryable: false });
    // What was under way of the checks has ended by now.
    const { starts } = trainer;
    await new Promise((resolve) => setImmediate(resolve));
    expect(trainer.starts).toBe(starts);
    expect(agent.events.at(-1)?.type).not.toBe('ready');
  });

  test('shows each preflight check by name, all of them before it is ready', async () => {
    const agent = startAgent();
    await agent.seen('ready');
    const shown = agent.events.flatMap((event) => (event.type === 'preflight' ? [event.step] : []));
    expect(shown.map(({ name }) => name)).toEqual([
      'state',
      'identity',
      'policy',
      'address',
      'protocol',
      'clock',
      'disk',
      'data',
      'images',
      'engine',
    ]);
    expect(shown.every(({ state }) => state === 'ok')).toBe(true);
    expect(shown.at(-1)?.detail).toBe('fake: a test said so');
  });

  test('shows the secret once and afterwards only the key that it had stored before', async () => {
    const first = startAgent();
    const hello = await coordinator.received('hello');
    expect(hello).toMatchObject({ secret: 'one-time', name: 'lab', role: 'worker' });
    await coordinator.received('ready');
    await coordinator.drop();
    const again = await coordinator.received('hello', 2);
    expect(again.secret).toBeUndefined();
    expect(again.publicKey).toBe(hello.publicKey);
    // Not the same signature: each link has a session of its own.
    expect(again.signature).not.toBe(hello.signature);
    const stored = JSON.parse(await readFile(join(stateDir, 'credential.json'), 'utf8'));
    expect(stored).toMatchObject({ publicKey: coordinator.key.publicKey, confirmed: true });
    const key = readSigningKey(await readFile(join(stateDir, 'node.key'), 'utf8'));
    expect(key.publicKey).toBe(hello.publicKey);
    expect((await first.seen('joined', 2)).rejoined).toBe(true);
  });

  test('killed between hello and welcome, it repeats the same hello with the same key', async () => {
    coordinator.on.hello = () => new Promise(() => undefined);
    const first = startAgent({ signal: AbortSignal.any([controller.signal]) });
    await first.seen('preflight', 4); // the address answered; hello is on its way or there
    // What a kill leaves: key and credential as they were, and a new process with the same command.
    const stored = JSON.parse(await readFile(join(stateDir, 'credential.json'), 'utf8'));
    expect(stored.confirmed).toBe(false);
    const pem = await readFile(join(stateDir, 'node.key'), 'utf8');
    delete coordinator.on.hello;
    const copy = join(root, 'state-after-kill');
    await mkdir(copy);
    await writeFile(join(copy, 'credential.json'), JSON.stringify(stored));
    await writeFile(join(copy, 'node.key'), pem);
    startAgent({ stateDir: copy });
    const hello = await coordinator.received('hello');
    expect(hello).toMatchObject({ secret: 'one-time', publicKey: readSigningKey(pem).publicKey });
  });

  test('signs what it sends, with its key, for this link, counting upwards', async () => {
    const session = 'a session of the test only';
    const { key, fingerprint } = coordinator;
    coordinator.on.challenge = (message) =>
      challenged(message, { runId: 'run-1', session, fingerprint, key });
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    await agent.seen('accepted');
    const { publicKey = '' } = await coordinator.received('hello');
    const sent = [await coordinator.received('ready'), await coordinator.received('offer')];
    for (const message of sent) expect(isProven(message, { runId: 'run-1', session }, publicKey)).toBe(true);
    expect(sent.map(({ signed }) => signed.counter)).toEqual([0, 1]);
  });

  test('goes no further with a coordinator that does not prove the run’s key', async () => {
    const other = createSigningKey();
    const agent = startAgent({ invite: inviteFor({ publicKey: other.publicKey }) });
    await expect(agent.done).rejects.toMatchObject({ code: 'FED_PROTOCOL_IDENTITY' });
    expect(coordinator.count('hello')).toBe(0);
    // One that shows the right key, and can't sign with it; and one in the middle, with a certificate of its own.
    const { key, fingerprint } = coordinator;
    for (const wrong of [{ signer: other }, { fingerprint: 'ab'.repeat(32) }]) {
      coordinator.on.challenge = (message) =>
        challenged(message, { runId: 'run-1', session: 'of the wrong one', fingerprint, key, ...wrong });
      const next = startAgent({ stateDir: join(root, 'next') });
      await expect(next.done).rejects.toMatchObject({ code: 'FED_PROTOCOL_IDENTITY' });
    }
    expect(coordinator.count('hello')).toBe(0);
  });

  test('rejoins without an invite from its state folder', async () => {
    const leave = new AbortController();
    const first = startAgent({ signal: leave.signal });
    await coordinator.received('ready');
    leave.abort();
    expect(await first.done).toMatchObject({ ended: 'left' });
    expect(await coordinator.received('leave')).toMatchObject({ reason: 'stopped at the site' });
    const { invite: _, name: __, ...rest } = { invite: '', name: '', dataDir, stateDir };
    const again = joinFederation({
      ...rest,
      transport,
      startTrainer: trainer.start,
      signal: controller.signal,
    });
    running.push(again);
    expect((await coordinator.received('hello', 2)).name).toBe('lab');
    await coordinator.received('ready', 2);
  });

  test('keeps a finished update over a lost link and offers it again', async () => {
    coordinator.on.offer = () => new Promise(() => undefined);
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    await agent.seen('spooled');
    delete coordinator.on.offer;
    await coordinator.drop();
    await agent.seen('accepted');
    expect(trainer.trained).toEqual([1]);
    expect((await agent.seen('reconnecting')).attempt).toBe(1);
    expect((await agent.seen('reconnecting')).reason).toContain('dropped by the test');
  });

  test('keeps a finished update over a restart of the agent and offers it again', async () => {
    coordinator.on.offer = () => ({ type: 'error', code: 'FED_BUSY', message: 'later', retryable: true });
    const stop = new AbortController();
    const first = startAgent({ signal: stop.signal });
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    await coordinator.received('offer');
    stop.abort();
    await first.done;
    expect((await readdir(join(stateDir, 'spool'))).length).toBe(2);
    delete coordinator.on.offer;
    const second = startAgent();
    await second.seen('accepted');
    expect(trainer.trained).toEqual([1]);
    expect([...coordinator.updates.values()]).toEqual([updateOf(MODEL, 1)]);
  });

  test.each(['have', 'refused'] as const)('drops an update on the receipt "%s"', async (decision) => {
    coordinator.on.offer = () => ({
      type: 'receipt',
      decision,
      ...(decision === 'refused' ? { code: 'FED_UPDATE_STALE', reason: 'round 1 is closed' } : {}),
    });
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    if (decision === 'have') await agent.seen('accepted');
    else {
      expect(await agent.seen('refused')).toMatchObject({
        code: 'FED_UPDATE_STALE',
        reason: 'round 1 is closed',
      });
    }
    expect(await readdir(join(stateDir, 'spool'))).toEqual([]);
  });

  test('keeps an update that a restarted coordinator is not ready for, until its plan is repeated', async () => {
    coordinator.on.offer = () => ({
      type: 'error',
      code: 'FED_UPDATE_ROUND',
      message: 'round 1 has not begun',
      retryable: false,
    });
    const agent = startAgent();
    await coordinator.received('ready');
    const model = await coordinator.addModel(MODEL);
    await coordinator.plan({ model });
    await agent.seen('log');
    delete coordinator.on.offer;
    await coordinator.plan({ model });
    await agent.seen('accepted');
    expect(trainer.trained).toEqual([1]);
  });

  test('reports a verdict that refuses the update, with the reason', async () => {
    coordinator.on.offer = ({ round, update }, channel) => {
      setImmediate(() => {
        void channel.call(
          {
            type: 'verdict',
            round,
            update: update.digest,
            accepted: false,
            code: 'FED_UPDATE_NON_FINITE',
            reason: 'NaN',
          },
          'ok',
        );
      });
      return { type: 'receipt', decision: 'send' };
    };
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    expect(await agent.seen('refused')).toMatchObject({ code: 'FED_UPDATE_NON_FINITE', reason: 'NaN' });
    await coordinator.goodbye();
    expect(await agent.done).toMatchObject({ updatesAccepted: 0, updatesRefused: 1 });
  });

  test('does no new work for a plan that it is working on or has spooled', async () => {
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    trainer.onTrain = () => held;
    coordinator.on.offer = () => new Promise(() => undefined);
    const agent = startAgent();
    await coordinator.received('ready');
    const model = await coordinator.addModel(MODEL);
    await coordinator.plan({ model });
    await agent.seen('training');
    await coordinator.plan({ model });
    release();
    await agent.seen('spooled');
    await coordinator.plan({ model });
    expect(trainer.trained).toEqual([1]);
    expect(agent.events.filter(({ type }) => type === 'planned')).toHaveLength(1);
  });

  test('abandons older work for a newer plan', async () => {
    trainer.onTrain = (attempt, signal) =>
      attempt > 1
        ? Promise.resolve()
        : new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL), round: 1 });
    await agent.seen('training');
    await coordinator.plan({ model: await coordinator.addModel(NEXT_MODEL), round: 2 });
    expect(await agent.seen('abandoned')).toMatchObject({ task: 'train', round: 1 });
    await agent.seen('accepted');
    expect([...coordinator.updates.values()]).toEqual([updateOf(NEXT_MODEL, 2)]);
    expect(coordinator.count('failure')).toBe(0);
  });

  test('fetches a model once for its evaluation and the next round, and keeps the last two', async () => {
    const agent = startAgent();
    await coordinator.received('ready');
    const models = await Promise.all(
      [MODEL, NEXT_MODEL, MODEL.slice(0, 100)].map((bytes) => coordinator.addModel(bytes)),
    );
    for (const [i, model] of models.entries()) {
      await coordinator.plan({ model, round: i + 1, task: 'evaluate' });
      await agent.seen('evaluated', i + 1);
      await coordinator.plan({ model, round: i + 2 });
      await agent.seen('accepted', i + 1);
    }
    // 200 bytes are 4 chunks of 64, 100 bytes are 2: each model once
    expect(coordinator.count('chunk')).toBe(4 + 4 + 2);
    const kept = await readdir(join(stateDir, 'models'));
    expect(kept.sort()).toEqual([`${models[1]?.digest}.frame`, `${models[2]?.digest}.frame`].sort());
  });

  test('continues a fetch at the first missing chunk after a lost link', async () => {
    let dropped = false;
    const agent = startAgent();
    await coordinator.received('ready');
    const model = await coordinator.addModel(MODEL);
    const shelf = coordinator.shelf;
    coordinator.on.chunk = async (message) => {
      if (message.index === 2 && !dropped) {
        dropped = true;
        await agent.seen('fetching'); // at least one chunk is written
        await coordinator.drop();
      }
      return shelf.answer(message);
    };
    await coordinator.plan({ model });
    await coordinator.received('ready', 2);
    await coordinator.plan({ model });
    await agent.seen('accepted');
    expect([...coordinator.updates.values()]).toEqual([updateOf(MODEL, 1)]);
    expect(coordinator.chunksAsked.filter((index) => index === 0)).toHaveLength(1);
  });

  test('fetches as the repeated plan says when a restarted coordinator cuts other chunks', async () => {
    const agent = startAgent();
    await coordinator.received('ready');
    const model = await coordinator.addModel(MODEL);
    coordinator.on.chunk = () => new Promise(() => undefined);
    await coordinator.plan({ model });
    await agent.seen('planned');
    await coordinator.drop();
    await coordinator.received('ready', 2);
    delete coordinator.on.chunk;
    const recut = await coordinator.shelf.addBytes(MODEL, 48);
    expect(recut.digest).toBe(model.digest);
    await coordinator.plan({ model: recut });
    await agent.seen('accepted');
    expect(coordinator.count('failure')).toBe(0);
  });

  test('waits for the plan again when a restarted coordinator has not put the model out yet', async () => {
    const agent = startAgent();
    await coordinator.received('ready');
    const model = await coordinator.addModel(MODEL);
    coordinator.shelf.remove(model.digest);
    await coordinator.plan({ model });
    expect((await agent.seen('log')).message).toContain('not on offer');
    await coordinator.addModel(MODEL);
    await coordinator.plan({ model });
    await agent.seen('accepted');
    expect(coordinator.count('failure')).toBe(0);
  });

  test('starts a crashed trainer again and delivers the same update', async () => {
    trainer.onTrain = async (attempt) => {
      if (attempt === 1) trainer.crash();
      if (attempt === 1) await new Promise(() => undefined);
    };
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    await agent.seen('accepted');
    expect(await agent.seen('trainer-crashed')).toMatchObject({ attempt: 1, attempts: 3 });
    expect(trainer.starts).toBe(2);
    expect([...coordinator.updates.values()]).toEqual([updateOf(MODEL, 1)]);
  });

  test('tells the coordinator after three crashes, and is there for the next round', async () => {
    trainer.onTrain = async (attempt) => {
      if (attempt > 3) return;
      trainer.crash();
      await new Promise(() => undefined);
    };
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL), round: 1 });
    expect(await coordinator.received('failure')).toMatchObject({
      task: 'train',
      round: 1,
      code: 'FED_TRAINER_CRASHED',
    });
    expect(trainer.trained).toEqual([1, 1, 1]);
    await coordinator.plan({ model: await coordinator.addModel(NEXT_MODEL), round: 2 });
    await agent.seen('accepted');
  });

  test('tells the coordinator at once what the trainer itself calls wrong', async () => {
    trainer.onTrain = async () => {
      throw Object.assign(new Error('the shard is empty'), { code: 'FED_DATA_EMPTY' });
    };
    startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    expect(await coordinator.received('failure')).toMatchObject({
      code: 'FED_DATA_EMPTY',
      reason: 'the shard is empty',
    });
    expect(trainer.trained).toEqual([1]);
  });

  test('makes another attempt at a plan that is repeated while the failure of the first is being told', async () => {
    trainer.onTrain = async (attempt) => {
      if (attempt === 1) throw Object.assign(new Error('not now'), { code: 'FED_DATA_EMPTY' });
    };
    const agent = startAgent();
    await coordinator.received('ready');
    const model = await coordinator.addModel(MODEL);
    coordinator.on.failure = async () => {
      // The round is opened again before the site has heard that its failure is known.
      await coordinator.plan({ model });
      return { type: 'ok' };
    };
    await coordinator.plan({ model });
    await agent.seen('accepted');
    expect(trainer.trained).toEqual([1, 1]);
    expect(agent.events.filter(({ type }) => type === 'abandoned')).toEqual([]);
  });

  test('waits for room on a full disk, says so, and delivers', async () => {
    trainer.onTrain = async (attempt) => {
      if (attempt === 1)
        throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    };
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    await agent.seen('accepted');
    const said = agent.events.flatMap((event) => (event.type === 'log' ? [event.message] : []));
    expect(said).toEqual([
      'No room on this disk for the update of round 1 (ENOSPC: no space left on device): free some. Trying again for 300 s.',
      'There is room again for the update of round 1.',
    ]);
    expect(coordinator.count('failure')).toBe(0);
  });

  test('starts the trainer again when it dies between rounds', async () => {
    const agent = startAgent();
    await coordinator.received('ready');
    trainer.crash();
    await coordinator.plan({ model: await coordinator.addModel(MODEL) });
    await agent.seen('accepted');
    expect(trainer.starts).toBe(2);
  });

  test('keeps its heartbeat, with state and progress, while the trainer is busy', async () => {
    await coordinator.close();
    coordinator = await scriptedCoordinator(await createTransport(), federationView(), 5);
    transport = coordinator.transport;
    let release: () => void = () => undefined;
    trainer.onTrain = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    const agent = startAgent();
    await coordinator.received('ready');
    await coordinator.plan({ model: await coordinator.addModel(MODEL), round: 3 });
    await agent.seen('training');
    const before = coordinator.count('heartbeat');
    expect(await coordinator.received('heartbeat', before + 3)).toMatchObject({
      state: 'training',
      round: 3,
      progress: 0.5,
    });
    release();
    await agent.seen('accepted');
  });

  test.each([
    ['FED_INVITE_USED', 'this invite was used'],
    ['FED_INVITE_EXPIRED', 'this invite has expired'],
    ['FED_INVITE_UNKNOWN', 'this coordinator gave out no such invite'],
    ['FED_JOIN_NAME_TAKEN', 'a site called lab is here already'],
    ['FED_PROTOCOL_VERSION', 'speak 2'],
  ])('stops on %s instead of dialling again', async (code, message) => {
    coordinator.on.hello = () => ({ type: 'error', code, message, retryable: false });
    const agent = startAgent();
    await expect(agent.done).rejects.toThrow(RemoteError);
    await expect(agent.done).rejects.toMatchObject({ code });
    expect(agent.events.filter(({ type }) => type === 'reconnecting')).toEqual([]);
    expect(agent.events.at(-1)).toMatchObject({ type: 'preflight', step: { state: 'fail' } });
    expect(trainer.starts).toBe(0);
  });

  test('keeps a link whose heartbeats are not answered while the coordinator asks for something over it', async () => {
    await coordinator.close();
    coordinator = await scriptedCoordinator(await createTransport(), federationView(), 100);
    transport = coordinator.transport;
    let asks = true;
    let heartbeats = 0;
    let enough: () => void = () => undefined;
    const twentyFive = new Promise<void>((resolve) => {
      enough = resolve;
    });
    // No heartbeat gets an answer, as behind chunks on a slow line, but with each something is asked for.
    coordinator.on.heartbeat = (_, channel) => {
      if (++heartbeats === 25) enough();
      const unknown = { type: 'verdict', round: 1, update: 'ab'.repeat(32), accepted: true } as const;
      if (asks) void channel.call(unknown, 'ok').catch(() => undefined);
      return new Promise(() => undefined);
    };
    const agent = startAgent({ heartbeatPatienceMs: 1000 });
    await coordinator.received('ready');
    // The first dozen of them have waited for their second by then.
    await twentyFive;
    expect(agent.events.filter(({ type }) => type === 'reconnecting')).toEqual([]);
    asks = false;
    expect((await agent.seen('reconnecting')).reason).toContain('no answer to a heartbeat');
  });

  test('dials again, at growing distances, on a refusal that may pass', async () => {
    coordinator.on.hello = () => {
      if (coordinator.count('hello') === 2) delete coordinator.on.hello; // this one is the third
      return { type: 'error', code: 'FED_BUSY', message: 'replaying the log', retryable: true };
    };
    const agent = startAgent({ backoff: { baseMs: 4, random: () => 0.99 } });
    await coordinator.received('ready');
    const dials = agent.events.flatMap((event) => (event.type === 'reconnecting' ? [event] : []));
    // floor(0.99 * 4), floor(0.99 * 8), floor(0.99 * 16)
    expect(dials.map(({ attempt, delayMs }) => [attempt, delayMs])).toEqual([
      [1, 3],
      [2, 7],
      [3, 15],
    ]);
    expect(dials[0]?.reason).toBe('replaying the log');
  });

  test('refuses a clock that is an hour off, and says so to the coordinator', async () => {
    const agent = startAgent({ now: () => Date.now() - 3_600_000 });
    await expect(agent.done).rejects.toMatchObject({ code: 'FED_WORKER_CLOCK' });
    expect((await coordinator.received('leave')).reason).toContain('behind the coordinator');
    expect(agent.events.at(-1)).toMatchObject({ step: { name: 'clock', state: 'fail' } });
  });

  test('refuses folders that disagree with the federation before it is ready', async () => {
    await mkdir(join(dataDir, 'zebra'));
    const agent = startAgent();
    await expect(agent.done).rejects.toMatchObject({
      code: 'FED_WORKER_PREFLIGHT',
      message: expect.stringContaining("unexpected: 'zebra'"),
    });
    expect(coordinator.count('ready')).toBe(0);
    expect((await coordinator.received('leave')).reason).toContain('zebra');
  });

  test('refuses a coordinator that runs something else than the invite says', async () => {
    const agent = startAgent({ invite: inviteFor({ runId: 'run-2' }) });
    await expect(agent.done).rejects.toMatchObject({ code: 'FED_WORKER_WRONG_RUN' });
  });

  test('gives up on a coordinator that stays away, keeping what is finished', async () => {
    await coordinator.close();
    const agent = startAgent({ giveUpAfterMs: 30 });
    await expect(agent.done).rejects.toMatchObject({ code: 'FED_WORKER_COORDINATOR_GONE' });
    expect(agent.events.some(({ type }) => type === 'reconnecting')).toBe(true);
    await expect(agent.done).rejects.not.toThrow(ProtocolError);
  });

  test('refuses a second agent on the same state folder', async () => {
    startAgent();
    await coordinator.received('ready');
    await expect(startAgent().done).rejects.toMatchObject({ code: 'FED_WORKER_STATE_LOCKED' });
  });
});

describe('the agent over socket.io', () => {
  test('stops at a certificate that the invite does not name', async () => {
    const transport = createSocketioTransport({
      host: '127.0.0.1',
      port: 0,
      tls: await createCertificate(['127.0.0.1']),
    });
    const coordinator = await scriptedCoordinator(transport, federationView());
    const invite = encodeInvite({
      url: coordinator.url,
      fingerprint: 'ab'.repeat(32),
      secret: 'one-time',
      runId: 'run-1',
      expiresAt: Date.now() + 60_000,
    });
    const done = joinFederation({
      invite,
      dataDir,
      stateDir,
      name: 'lab',
      transport,
      startTrainer: trainer.start,
    });
    await expect(done).rejects.toMatchObject({ code: 'FED_TRANSPORT_FINGERPRINT' });
    expect(coordinator.count('hello')).toBe(0);
    await coordinator.close();
  });
});
