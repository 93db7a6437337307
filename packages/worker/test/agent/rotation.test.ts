/** A new certificate of the coordinator, and a new key of the site, as the worker sees them. */
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createCertificate,
  createSigningKey,
  encodeInvite,
  isSignedBy,
  RemoteError,
  readSigningKey,
  rekeyStatement,
} from '@tributary/shared-protocol';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { WorkerEvent } from '../../src/agent/events.ts';
import { joinFederation } from '../../src/agent/join.ts';
import { rotateKey } from '../../src/agent/rotate-key.ts';
import { fakeTrainer } from './fake-trainer.ts';
import {
  challenged,
  federationView,
  type ScriptedCoordinator,
  scriptedCoordinator,
} from './scripted-coordinator.ts';

let root: string;
let stateDir: string;
let controller: AbortController;
let coordinator: ScriptedCoordinator;
let running: Promise<unknown>[];
let events: WorkerEvent[];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-rotation-'));
  stateDir = join(root, 'state');
  for (const name of ['cross', 'ring']) {
    await mkdir(join(root, 'data', name), { recursive: true });
    await sharp({ create: { width: 8, height: 8, channels: 3, background: '#123' } }).toFile(
      join(root, 'data', name, 'a.png'),
    );
  }
  controller = new AbortController();
  running = [];
  events = [];
  const tls = await createCertificate(['127.0.0.1']);
  const transport = createSocketioTransport({ host: '127.0.0.1', port: 0, tls });
  coordinator = await scriptedCoordinator(transport, federationView());
});
afterEach(async () => {
  controller.abort();
  await Promise.allSettled(running);
  await coordinator.close();
  await rm(root, { recursive: true, force: true });
});

function startAgent(invited = true): Promise<unknown> {
  const { url, fingerprint = '', key, transport } = coordinator;
  const invite = encodeInvite({
    url,
    fingerprint,
    publicKey: key.publicKey,
    secret: 's',
    runId: 'run-1',
    expiresAt: Date.now() + 60_000,
  });
  const done = joinFederation({
    ...(invited ? { invite } : {}),
    dataDir: join(root, 'data'),
    stateDir,
    name: 'lab',
    transport,
    startTrainer: fakeTrainer().start,
    signal: controller.signal,
    backoff: { baseMs: 4 },
    onEvent: (event) => events.push(event),
  });
  done.catch(() => undefined);
  running.push(done);
  return done;
}

async function leave(): Promise<void> {
  controller.abort();
  await Promise.allSettled(running);
  controller = new AbortController();
}

const stored = async () => JSON.parse(await readFile(join(stateDir, 'credential.json'), 'utf8'));
const keyFile = async (name = 'node.key') => readSigningKey(await readFile(join(stateDir, name), 'utf8'));

describe('a coordinator with another certificate', () => {
  test('is known again by the run’s key, and its certificate is pinned from then on', async () => {
    void startAgent();
    await coordinator.received('ready');
    const next = await createCertificate(['127.0.0.1']);
    coordinator.renew(next);
    await coordinator.drop();
    await coordinator.received('ready', 2);
    expect(await stored()).toMatchObject({ fingerprint: next.fingerprint });
    expect(events.filter(({ type }) => type === 'log')).toMatchObject([
      { message: expect.stringContaining(next.fingerprint) },
    ]);
    // Once learned, it is dialled as it is.
    const challenges = coordinator.count('challenge');
    await coordinator.drop();
    await coordinator.received('ready', 3);
    expect(coordinator.count('challenge')).toBe(challenges + 1);
  });

  test('that can’t prove the run’s key is nobody: nothing of the site is said to it', async () => {
    const done = startAgent();
    await coordinator.received('ready');
    const before = await stored();
    const stranger = createSigningKey();
    coordinator.on.challenge = (message) =>
      challenged(message, {
        runId: 'run-1',
        session: 'of somebody else',
        fingerprint: coordinator.fingerprint,
        key: coordinator.key,
        signer: stranger,
      });
    coordinator.renew(await createCertificate(['127.0.0.1']));
    await coordinator.drop();
    await expect(done).rejects.toMatchObject({ code: 'FED_TRANSPORT_FINGERPRINT' });
    expect(coordinator.count('hello')).toBe(1);
    expect(await stored()).toEqual(before);
  });

  test('is refused by a policy that pins the former one', async () => {
    await writeFile(join(root, 'data', 'site-policy.yaml'), `coordinators: [${coordinator.fingerprint}]\n`);
    const done = startAgent();
    await coordinator.received('ready');
    coordinator.renew(await createCertificate(['127.0.0.1']));
    await coordinator.drop();
    await expect(done).rejects.toMatchObject({ code: 'FED_POLICY_COORDINATOR' });
  });
});

describe('a change of key', () => {
  const rotate = () => rotateKey({ stateDir, transport: coordinator.transport });

  test('is signed by both keys, and the new one takes the old one’s place', async () => {
    void startAgent();
    await coordinator.received('ready');
    await expect(rotate()).rejects.toMatchObject({ code: 'FED_WORKER_STATE_LOCKED' });
    await leave();
    const former = await keyFile();
    const session = 'a session of the test only';
    const { key, fingerprint } = coordinator;
    coordinator.on.challenge = (message) =>
      challenged(message, { runId: 'run-1', session, fingerprint, key });
    const rotated = await rotate();
    const present = await keyFile();
    expect(rotated).toMatchObject({ name: 'lab', publicKey: present.publicKey, former: former.publicKey });
    expect(present.publicKey).not.toBe(former.publicKey);
    expect((await stat(join(stateDir, 'node.key'))).mode & 0o777).toBe(0o600);
    await expect(stat(join(stateDir, 'node.key.next'))).rejects.toThrow('ENOENT');
    const { publicKey, confirmation } = await coordinator.received('rekey');
    expect(publicKey).toBe(present.publicKey);
    const parts = { name: 'lab', former: former.publicKey, next: publicKey };
    expect(isSignedBy(publicKey, rekeyStatement({ runId: 'run-1', session }, parts), confirmation)).toBe(
      true,
    );
    delete coordinator.on.challenge;
    void startAgent(false);
    expect((await coordinator.received('hello', 3)).publicKey).toBe(present.publicKey);
  });

  test('broken off before its answer goes on with the same new key, and join waits for that', async () => {
    void startAgent();
    await coordinator.received('ready');
    await leave();
    const former = await keyFile();
    // The coordinator has taken the new key, and the answer is lost.
    coordinator.on.rekey = async (_message, channel) => {
      await channel.close('the cable was pulled');
      return { type: 'ok' };
    };
    await expect(rotate()).rejects.toMatchObject({ code: 'FED_TRANSPORT_CLOSED' });
    delete coordinator.on.rekey;
    const next = await keyFile('node.key.next');
    expect((await keyFile()).publicKey).toBe(former.publicKey);
    await expect(startAgent(false)).rejects.toMatchObject({
      code: 'FED_WORKER_KEY',
      message: expect.stringContaining('rotate key'),
    });
    coordinator.on.hello = (message) => {
      if (message.publicKey === former.publicKey)
        throw new RemoteError('FED_JOIN_NAME_TAKEN', 'another site is called "lab" already', false);
      return coordinator.welcome();
    };
    expect(await rotate()).toMatchObject({ publicKey: next.publicKey });
    expect((await keyFile()).publicKey).toBe(next.publicKey);
  });
});
