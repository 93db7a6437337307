/**
 * One real agent under a coordinator that lies in a secure sum: it hears why not, nothing of its update leaves, and an
 * honest attempt afterwards comes to the right sum. The other sites are SecaggSites of the test.
 */
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SecaggCoordinator, type SecaggResult, SecaggSite, settingsOfRound } from '@tributary/privacy';
import {
  type BlobRef,
  bytesToText,
  createSigningKey,
  encodeFrame,
  encodeInvite,
  type FederationView,
  fetchBlob,
  keysToBytes,
  keysToText,
  type MessageOf,
  type Outgoing,
  openMemorySink,
  readSigningKey,
  type SecureAggregationPlan,
  type SigningKey,
  sha256,
  textToBytes,
} from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { WorkerEvent, WorkerSummary } from '../../src/agent/events.ts';
import { joinFederation } from '../../src/agent/join.ts';
import type { StartTrainer } from '../../src/agent/trainer-keeper.ts';
import { fakeTrainer } from './fake-trainer.ts';
import { federationView, type ScriptedCoordinator, scriptedCoordinator } from './scripted-coordinator.ts';

const SECURE: SecureAggregationPlan = { clippingRange: 1, valueBits: 16, maxExamples: 100 };
/** A value is rounded to one of so many steps. */
const STEP = 2 / (2 ** 16 - 2);
const LENGTH = 300;
const UPDATE = Float32Array.from({ length: LENGTH }, (_, i) => i / 1000);
/** What the agent's trainer leaves. */
const FRAME = frame(UPDATE);
const RAW = sha256(FRAME);
const OTHERS = ['b', 'c', 'd'] as const;
const EVERYBODY = ['b', 'c', 'd', 'lab'];

let root: string;
let coordinator: ScriptedCoordinator;
let model: BlobRef;
let keys: Map<string, SigningKey>;
let events: WorkerEvent[];
let joined: Promise<WorkerSummary>;
let end: () => Promise<unknown>;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-masking-'));
  for (const name of ['cross', 'ring']) {
    await mkdir(join(root, 'data', name), { recursive: true });
    await sharp({ create: { width: 8, height: 8, channels: 3, background: '#123' } }).toFile(
      join(root, 'data', name, 'a.png'),
    );
  }
  keys = new Map(OTHERS.map((name) => [name, createSigningKey()]));
  await open(federationView({ weighting: 'uniform', privacy: { secureAggregation: SECURE } }));
});
afterEach(async () => {
  await end();
  await coordinator.close();
  await rm(root, { recursive: true, force: true });
});

describe('an agent whose federation sums under masks', () => {
  test('plays an attempt to its sum, also when it is told everything twice', async () => {
    await trained();
    const one = attempt();
    for (const step of [one.advertise, one.share, one.mask, one.agree, one.unmask]) {
      const answer = await step();
      if (step !== one.mask) expect(await step()).toEqual(answer);
    }
    expectSum(one.finish());
  });

  test('hears what became of its update also when it has forgotten what that was under masks', async () => {
    await trained();
    expectSum(await honest());
    const { round, update } = await coordinator.received('offer');
    await restart();
    await channel().call({ type: 'verdict', round, update: update.digest, accepted: true }, 'ok');
    expect(await readdir(join(stateDir(), 'spool'))).toEqual([]);
    expect(events.map(({ type }) => type)).toContain('accepted');
  });

  test('says again that it has its update when a plan asks while the answer to the last time is on its way', async () => {
    await trained();
    let answer: ((receipt: MessageOf<'receipt'>) => void) | undefined;
    coordinator.on.trained = () =>
      new Promise((resolve) => {
        answer = resolve;
      });
    await coordinator.drop();
    await vi.waitFor(() => expect(answer).toBeDefined(), 10_000);
    delete coordinator.on.trained;
    await coordinator.plan({ model });
    await coordinator.received('trained', 2);
    answer?.({ type: 'receipt', decision: 'send' });
    expectSum(await honest());
  });

  test('serves no chunk of its update: not as soon as it has one, not while it masks, and not after a restart', async () => {
    const ask = (index = 0) => channel().call({ type: 'chunk', digest: RAW, index }, 'chunk-data');
    const unknown = { code: 'FED_PROTOCOL_BLOB_UNKNOWN' };
    await trained();
    await expect(ask()).rejects.toMatchObject(unknown);
    const one = attempt();
    await one.advertise();
    await one.share();
    await one.mask();
    await expect(ask()).rejects.toMatchObject(unknown);
    await restart();
    await expect(ask()).rejects.toMatchObject(unknown);
    expectSum(await honest());
  });

  test('leaves a coordinator that comes back without masks, on a new link or after a restart, and keeps its update', async () => {
    await trained();
    const promised = coordinator.welcome();
    const { privacy: _, ...bare } = promised.federation;
    coordinator.on.hello = () => ({ ...promised, federation: bare });
    await coordinator.drop();
    const refused = { code: 'FED_WORKER_WRONG_RUN', message: expect.stringMatching(/secureAggregation/) };
    await expect(joined).rejects.toMatchObject(refused);
    start();
    await expect(joined).rejects.toMatchObject(refused);
    expect(coordinator.count('offer')).toBe(0);
    delete coordinator.on.hello;
    await restart();
    expectSum(await honest());
  });

  test.each([
    ['without this site', () => cohort(['b', 'c', 'd']), 'FED_WORKER_PEER', /no key for this site itself/],
    ['with this site twice', () => [...cohort(), ...cohort(['lab'])], 'FED_WORKER_PEER', /itself/],
    ['with another key for this site', () => cohort(EVERYBODY, ['lab']), 'FED_WORKER_PEER', /itself/],
    [
      'with another site twice',
      () => [...cohort(), ...cohort(['b'], ['b'])],
      'FED_PRIVACY_PARAMETER',
      /twice/,
    ],
    ['of two sites', () => cohort(['b', 'lab']), 'FED_PRIVACY_SECAGG_TOO_FEW', /among fewer than 3/],
  ])('takes no part in a cohort %s, and pins nobody for it', async (_, lie, code, message) => {
    await trained();
    const advertised = attempt({ shown: lie() }).advertise();
    await expect(advertised).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect(await readdir(stateDir())).not.toContain('peers.json');
    expectSum(await honest());
  });

  test('takes no part in a sum of fewer than its policy asks for', async () => {
    await restart('minCohort: 5');
    await trained({ cohortSize: 5, minUpdates: 5 });
    await expect(attempt().advertise()).rejects.toMatchObject({
      code: 'FED_PRIVACY_SECAGG_TOO_FEW',
      message: expect.stringMatching(/4 .*5/),
    });
    expect(await readdir(stateDir())).not.toContain('peers.json');
  });

  test('does not believe another key for a site that it has met, nor after a restart', async () => {
    await trained();
    await attempt().advertise();
    const refused = { code: 'FED_WORKER_PEER', message: expect.stringMatching(/site "c".*Ask that site/) };
    await expect(attempt({ shown: cohort(EVERYBODY, ['c']) }).advertise()).rejects.toMatchObject(refused);
    await restart();
    await expect(attempt({ shown: cohort(EVERYBODY, ['c']) }).advertise()).rejects.toMatchObject(refused);
    expectSum(await honest());
  });

  test.each([
    ['from another model', { base: '7'.repeat(64) }],
    ['that it has not trained', { round: 2 }],
  ])('has no keys for a round %s', async (_, lie) => {
    await trained();
    await expect(attempt(lie).advertise()).rejects.toMatchObject({ code: 'FED_WORKER_ATTEMPT' });
    expectSum(await honest());
  });

  test('gives an attempt’s name to one cohort: for another one it shares nothing', async () => {
    await trained();
    const one = attempt({ id: 'again' });
    const keysOfOne = await one.advertise();
    const other = attempt({ id: 'again', names: ['b', 'c', 'lab'] });
    expect(await other.advertise()).toEqual(keysOfOne);
    // What it has shared in the one opens in no other: the cohort is in every key.
    await other.share();
    await other.mask({ offered: false });
    expect(await coordinator.received('failure')).toMatchObject({ code: 'FED_PRIVACY_SECAGG_ENVELOPE' });
    expect(coordinator.count('offer')).toBe(0);
    expectSum(await honest());
  });

  test('begins one attempt after the other, also when they are asked for at once', async () => {
    await trained();
    const one = attempt();
    const [first, second] = await Promise.all([one.advertise(), one.advertise()]);
    expect(second).toEqual(first);
    const [late, latest] = [attempt(), attempt()];
    const both = await Promise.allSettled([late.advertise(), latest.advertise()]);
    expect(both.map(({ status }) => status)).toContain('fulfilled');
    await expect(one.share()).rejects.toMatchObject({ code: 'FED_WORKER_ATTEMPT' });
    expectSum(await honest());
    // Of those that were given up, nothing is left.
    expect(await readdir(join(stateDir(), 'work'))).toHaveLength(1);
  });

  test('masks nothing before everybody has shared, and says so', async () => {
    await trained();
    const one = attempt();
    await one.advertise();
    await channel().call({ type: 'mask', attempt: one.id, sharers: EVERYBODY, envelopes: [] }, 'ok');
    expect(await coordinator.received('failure')).toMatchObject({ code: 'FED_PRIVACY_SECAGG_STAGE' });
    expect(coordinator.count('offer')).toBe(0);
    expectSum(await honest());
  });

  test('signs one set of survivors for an update: in this attempt, in the next, and after a restart', async () => {
    await trained();
    const one = attempt();
    for (const step of [one.advertise, one.share, one.mask]) await step();
    const signed = await one.agree();
    const without = { survivors: ['b', 'c', 'lab'] };
    // The answer that it gave: no second signature.
    expect(await one.agree(without)).toEqual(signed);
    const refused = {
      code: 'FED_PRIVACY_SECAGG_SETS',
      message: expect.stringMatching(/has signed the sum of b, c, d, lab/),
    };
    for (let life = 0; life < 2; life++) {
      const other = attempt();
      for (const step of [other.advertise, other.share, other.mask]) await step();
      await expect(other.agree(without)).rejects.toMatchObject(refused);
      await expect(other.unmask()).rejects.toMatchObject({ code: 'FED_PRIVACY_SECAGG_STAGE' });
      if (life === 0) await restart();
    }
    expectSum(await honest());
  });

  test('unmasks nothing that it could not write down', async () => {
    await trained();
    const one = attempt();
    for (const step of [one.advertise, one.share, one.mask]) await step();
    const file = join(stateDir(), 'signed-sums.jsonl');
    await mkdir(file);
    const refused = { code: 'FED_WORKER_STATE_UNUSABLE', message: expect.stringMatching(/none is signed/) };
    await expect(one.agree()).rejects.toMatchObject(refused);
    // The others' signatures would be enough.
    await expect(one.unmask()).rejects.toMatchObject({ code: 'FED_PRIVACY_SECAGG_STAGE' });
    await rm(file, { recursive: true });
    expectSum(await honest());
  });

  test('offers nothing of an update whose bytes have changed on its disk', async () => {
    await trained();
    const [update] = (await readdir(join(stateDir(), 'spool'))).filter((file) => file.endsWith('.update'));
    const path = join(stateDir(), 'spool', update!);
    const bytes = await readFile(path);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(path, bytes);
    const one = attempt();
    await one.advertise();
    await one.share();
    await one.mask({ offered: false });
    expect(await coordinator.received('failure')).toMatchObject({ code: 'FED_PROTOCOL_FRAME_DIGEST' });
    expect(coordinator.count('offer')).toBe(0);
  });

  test('waits for room where its disk is full while it masks', async () => {
    await trained();
    const one = attempt();
    await one.advertise();
    await one.share();
    // Has no room, ever.
    const file = join(stateDir(), 'work', `000001-${one.id}.masked`);
    await symlink('/dev/full', file);
    const masked = one.mask();
    await vi.waitFor(
      () => expect(events.map(logged)).toContainEqual(expect.stringMatching(/^No room/)),
      5000,
    );
    await rm(file);
    await masked;
    await one.agree();
    await one.unmask();
    expectSum(one.finish());
    expect(coordinator.count('failure')).toBe(0);
  });

  test.each([
    ['too few', (all: Signatures) => all.slice(0, 2), 'FED_PRIVACY_SECAGG_TOO_FEW'],
    [
      'one that is somebody else’s',
      ([first, second, ...rest]: Signatures) => [
        first!,
        { ...second!, signature: first!.signature },
        ...rest,
      ],
      'FED_PRIVACY_SECAGG_SIGNATURE',
    ],
    [
      'one twice',
      ([first, , ...rest]: Signatures) => [first!, first!, ...rest],
      'FED_PRIVACY_SECAGG_MESSAGE',
    ],
  ])('gives no share for %s of the signatures, and none afterwards', async (_, bend, code) => {
    await trained();
    const one = attempt();
    for (const step of [one.advertise, one.share, one.mask, one.agree]) await step();
    await expect(one.unmask(bend)).rejects.toMatchObject({ code });
    await expect(one.unmask()).rejects.toMatchObject({ code });
    expectSum(await honest());
  });

  test('gives no share where the others were sent another model: nobody has signed its sum', async () => {
    await trained();
    const one = attempt({ othersBase: '7'.repeat(64) });
    for (const step of [one.advertise, one.share, one.mask]) await step();
    const refused = { code: 'FED_PRIVACY_SECAGG_SIGNATURE', message: expect.stringMatching(/model/) };
    await expect(one.agree()).rejects.toMatchObject(refused);
    await expect(one.unmask()).rejects.toMatchObject(refused);
    expectSum(await honest());
  });

  test('takes a cohort of thousands for what it is', async () => {
    await trained();
    const crowd = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ name: `s${i}`, publicKey: 'A'.repeat(43) }));
    await expect(attempt({ shown: [...crowd(4000), ...cohort()] }).advertise()).resolves.toMatchObject({
      type: 'advertised',
    });
    await expect(attempt({ shown: [...crowd(5000), ...cohort()] }).advertise()).rejects.toMatchObject({
      code: 'FED_PROTOCOL_MESSAGE_MALFORMED',
    });
    expectSum(await honest());
  });

  test('offers what it has masked on its next link, when the first is lost before the receipt', async () => {
    await trained();
    const one = attempt();
    await one.advertise();
    await one.share();
    const offers: MessageOf<'offer'>[] = [];
    const ready = again();
    coordinator.on.offer = async (offer, over) => {
      offers.push(offer);
      await over.close('the line was cut');
      return { type: 'ok' };
    };
    await one.mask({ offered: false });
    await ready;
    await one.mask();
    await one.agree();
    await one.unmask();
    expectSum(one.finish());
    expect(offers).toHaveLength(1);
    expect(events.filter(({ type }) => type === 'masked')).toHaveLength(1);
  });
});

type Signatures = readonly { readonly site: string; readonly signature: string }[];

async function open(federation: FederationView): Promise<void> {
  coordinator = await scriptedCoordinator(createMemoryTransport(), federation);
  coordinator.on.trained = () => ({ type: 'receipt', decision: 'send' });
  model = await coordinator.addModel(frame(new Float32Array(LENGTH)));
  start();
}

function start(): void {
  const stop = new AbortController();
  events = [];
  joined = joinFederation({
    invite: encodeInvite({
      url: coordinator.url,
      publicKey: coordinator.key.publicKey,
      secret: 'one-time',
      runId: 'run-1',
      expiresAt: Date.now() + 60_000,
    }),
    dataDir: join(root, 'data'),
    stateDir: stateDir(),
    name: 'lab',
    transport: coordinator.transport,
    startTrainer,
    signal: stop.signal,
    backoff: { baseMs: 4 },
    onEvent: (event) => events.push(event),
  });
  joined.catch(() => undefined);
  end = () => {
    stop.abort();
    return joined.catch(() => undefined);
  };
}

const startTrainer: StartTrainer = async (setup, handlers) => ({
  ...(await fakeTrainer().start(setup, handlers)),
  async train({ outFile }) {
    await writeFile(outFile, FRAME);
    return { numExamples: 10, metrics: {} };
  },
});

async function restart(policy?: string): Promise<void> {
  await end();
  if (policy !== undefined) await writeFile(join(root, 'data', 'site-policy.yaml'), policy);
  const ready = again();
  start();
  await ready;
}

/** Resolves once the agent is ready on another link. */
function again(): Promise<unknown> {
  return coordinator.received('ready', coordinator.count('ready') + 1);
}

async function trained(told: Partial<MessageOf<'plan'>> = {}): Promise<void> {
  await coordinator.received('ready');
  await coordinator.plan({ model, ...told });
  await coordinator.received('trained');
}

function logged(event: WorkerEvent): string {
  return event.type === 'log' ? event.message : '';
}

function channel() {
  return coordinator.channels.at(-1)!;
}

function stateDir(): string {
  return join(root, 'state');
}

async function honest(): Promise<SecaggResult> {
  // Whatever was tried before, its update is still here.
  const [update] = (await readdir(join(stateDir(), 'spool'))).filter((file) => file.endsWith('.update'));
  expect(sha256(await readFile(join(stateDir(), 'spool', update!)))).toBe(RAW);
  const one = attempt();
  for (const step of [one.advertise, one.share, one.mask, one.agree, one.unmask]) await step();
  return one.finish();
}

/** Everybody adds its name's place to each value: b 0, c 1/10, d 2/10. */
function expectSum({ sums, totalWeight, survivors }: SecaggResult): void {
  expect(survivors).toEqual(EVERYBODY);
  expect(totalWeight).toBe(4);
  const steps = 2 ** 16 - 2;
  const off = [...sums].map((sum, i) => (sum / steps) * 2 - totalWeight - (UPDATE[i]! + 0.3));
  expect(Math.max(...off.map(Math.abs))).toBeLessThan(4 * STEP);
}

interface AttemptOptions {
  readonly id?: string;
  readonly names?: readonly string[];
  readonly round?: number;
  readonly base?: string;
  /** Of the model that the other sites mask for. @default base */
  readonly othersBase?: string;
  /** What the agent is told instead of the cohort. */
  readonly shown?: readonly { readonly name: string; readonly publicKey: string }[];
}

let attempts = 0;

/** The stages of an attempt; each says its part to the agent and to the test's own sites. */
function attempt(options: AttemptOptions = {}) {
  const { id = `attempt-${attempts++}`, names = EVERYBODY, round = 1, base = model.digest } = options;
  const settings = settingsOfRound(
    { ...SECURE, weighting: 'uniform' },
    {
      run: 'run-1',
      round,
      attempt: id,
      cohort: names,
      parameters: LENGTH,
      modelDigest: options.othersBase ?? base,
      configurationDigest: 'c0'.repeat(32),
    },
  );
  const roster = new Map(cohort(names).map(({ name, publicKey }) => [name, publicKey]));
  const secagg = new SecaggCoordinator({ settings, roster });
  const sites = names
    .filter((name) => name !== 'lab')
    .map((site) => {
      const sign = (bytes: Uint8Array) => textToBytes(keys.get(site)!.signBytes(bytes));
      return new SecaggSite({ settings, site, roster, sign });
    });
  const once = createOnce();
  const say = (message: Outgoing) => channel().call(message, REPLIES[message.type as keyof typeof REPLIES]);
  return {
    id,
    advertise: async () => {
      const shown = options.shown ?? cohort(names);
      const answer = await say({ type: 'advertise', attempt: id, round, base, cohort: [...shown] });
      once('keys', () => {
        for (const site of sites) secagg.receiveKeys(site.advertiseKeys());
        secagg.receiveKeys({ site: 'lab', ...keysToBytes(answer as MessageOf<'advertised'>) });
      });
      return answer;
    },
    share: async () => {
      const shown = once('shown', () => secagg.closeKeys());
      const list = shown.map(({ site, ...theirs }) => ({ site, ...keysToText(theirs) }));
      const answer = await say({ type: 'share', attempt: id, keys: list });
      once('shares', () => {
        for (const site of sites) secagg.receiveShares(site.shareKeys(shown));
        const { envelopes } = answer as MessageOf<'shared'>;
        const sealed = envelopes.map((one) => ({ to: one.to, sealed: textToBytes(one.sealed) }));
        secagg.receiveShares({ site: 'lab', envelopes: sealed });
      });
      return answer;
    },
    /** Resolves with the masked update added to the sum, unless none is to be waited for. */
    mask: async ({ offered = true } = {}) => {
      const deliveries = once('deliveries', () => secagg.closeShares());
      const { sharers, envelopes } = deliveries.get('lab')!;
      const offer = offered ? nextOffer() : undefined;
      const sealed = envelopes.map((one) => ({ from: one.from, sealed: bytesToText(one.sealed) }));
      const answer = await say({ type: 'mask', attempt: id, sharers: [...sharers], envelopes: sealed });
      if (offer === undefined) return answer;
      secagg.receiveMasked({ site: 'lab', packed: await offer });
      sites.forEach((site, i) => {
        const update = new Float32Array(LENGTH).fill(i / 10);
        secagg.receiveMasked(site.mask(deliveries.get(site.site)!, [update], 1).message);
      });
      return answer;
    },
    agree: async ({ survivors }: { survivors?: readonly string[] } = {}) => {
      const all = once('survivors', () => secagg.closeMasked());
      once('signatures', () => {
        for (const site of sites) secagg.receiveSignature(site.signSurvivors(all));
      });
      const answer = await say({ type: 'agree', attempt: id, survivors: [...(survivors ?? all)] });
      once('signature', () => {
        const signature = textToBytes((answer as MessageOf<'agreed'>).signature);
        secagg.receiveSignature({ site: 'lab', signature });
      });
      return answer;
    },
    unmask: async (bend: (signatures: Signatures) => Signatures = (all) => all) => {
      const request = once('request', () => secagg.closeSignatures());
      const signatures = bend(
        request.signatures.map((one) => ({ site: one.site, signature: bytesToText(one.signature) })),
      );
      const answer = await say({
        type: 'unmask',
        attempt: id,
        survivors: [...request.survivors],
        signatures: [...signatures],
      });
      once('shares of secrets', () => {
        for (const site of sites) secagg.receiveUnmask(site.unmask(request));
        const { seedShares, maskKeyShares } = answer as MessageOf<'unmasked'>;
        const bytes = (list: typeof seedShares) =>
          list.map((one) => ({ of: one.of, share: textToBytes(one.share) }));
        secagg.receiveUnmask({
          site: 'lab',
          seedShares: bytes(seedShares),
          maskKeyShares: bytes(maskKeyShares),
        });
      });
      return answer;
    },
    finish: () => secagg.finish(),
  };
}

const REPLIES = {
  advertise: 'advertised',
  share: 'shared',
  mask: 'ok',
  agree: 'agreed',
  unmask: 'unmasked',
} as const;

/** Takes the agent's next offer, chunk by chunk. */
function nextOffer(): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    coordinator.on.offer = ({ update, numExamples, metrics }, over) => {
      expect({ numExamples, metrics }).toEqual({ numExamples: undefined, metrics: {} });
      const sink = openMemorySink(update);
      setImmediate(() => void fetchBlob(over, update, sink).then(() => resolve(sink.bytes), reject));
      return { type: 'receipt', decision: 'send' };
    };
  });
}

/** The cohort as it is, but with new keys for `strangers`. */
function cohort(names: readonly string[] = EVERYBODY, strangers: readonly string[] = []) {
  return names.map((name) => {
    const key = strangers.includes(name) ? createSigningKey() : (keys.get(name) ?? ownKey());
    return { name, publicKey: key.publicKey };
  });
}

function ownKey(): SigningKey {
  return readSigningKey(readFileSync(join(stateDir(), 'node.key'), 'utf8'));
}

/** Does each thing once, and returns what came of it. */
function createOnce() {
  const done = new Map<string, unknown>();
  return <T>(what: string, work: () => T): T => {
    if (!done.has(what)) done.set(what, work());
    return done.get(what) as T;
  };
}

function frame(data: Float32Array): Uint8Array {
  return encodeFrame([{ name: 'dense/kernel', dtype: 'float32', shape: [data.length], data }]);
}
