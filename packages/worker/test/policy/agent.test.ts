/** The policy in the agent, against a coordinator that asks for whatever the test likes. */
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { epsilonSpent } from '@tributary/privacy';
import { encodeInvite, FIRST_PREV, type SiteLevelPlan, sha256, signRecord } from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { WorkerEvent, WorkerEventType, WorkerSummary } from '../../src/agent/events.ts';
import { type JoinOptions, joinFederation } from '../../src/agent/join.ts';
import { type FakeTrainer, fakeTrainer, updateOf } from '../agent/fake-trainer.ts';
import {
  federationView,
  type ScriptedCoordinator,
  scriptedCoordinator,
} from '../agent/scripted-coordinator.ts';

const MODEL = Uint8Array.from({ length: 20_000 }, (_, i) => i & 255);
const NEXT_MODEL = Uint8Array.from({ length: 20_000 }, (_, i) => 255 - (i & 255));

let root: string;
let dataDir: string;
let trainer: FakeTrainer;
let controller: AbortController;
let coordinator: ScriptedCoordinator;
let running: Promise<unknown>[];
/** Added to the clock of the agent and of the coordinator. */
let shiftMs: number;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-policy-'));
  dataDir = join(root, 'data');
  for (const name of ['cross', 'ring']) {
    await mkdir(join(dataDir, name), { recursive: true });
    await sharp({ create: { width: 8, height: 8, channels: 3, background: '#123' } }).toFile(
      join(dataDir, name, 'a.png'),
    );
  }
  trainer = fakeTrainer();
  controller = new AbortController();
  running = [];
  shiftMs = 0;
  coordinator = await scriptedCoordinator(createMemoryTransport(), federationView());
  coordinator.on.hello = () => ({
    type: 'welcome',
    protocol: { major: 2, minor: 1 },
    clientId: 'client-1',
    clockMs: Date.now() + shiftMs,
    heartbeatMs: 60_000,
    federation: federationView({ modelBytes: MODEL.length }),
  });
});
afterEach(async () => {
  controller.abort();
  await Promise.allSettled(running);
  await coordinator.close();
  await rm(root, { recursive: true, force: true });
});

interface Agent {
  readonly done: Promise<WorkerSummary>;
  readonly events: WorkerEvent[];
  seen<T extends WorkerEventType>(type: T, count?: number): Promise<Extract<WorkerEvent, { type: T }>>;
}

async function startAgent(policy: string, overrides: Partial<JoinOptions> = {}): Promise<Agent> {
  await writeFile(join(dataDir, 'site-policy.yaml'), policy);
  const events: WorkerEvent[] = [];
  const waiting = new Set<() => void>();
  const done = joinFederation({
    invite: encodeInvite({
      url: coordinator.url,
      secret: 's',
      runId: 'run-1',
      expiresAt: Date.now() + 60_000,
    }),
    dataDir,
    stateDir: join(root, 'state'),
    name: 'lab',
    transport: coordinator.transport,
    startTrainer: trainer.start,
    signal: controller.signal,
    backoff: { baseMs: 4 },
    now: () => Date.now() + shiftMs,
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
        done.then(() => reject(new Error(`it ended without "${type}"`)), reject);
      });
    },
  };
}

const addModel = (bytes: Uint8Array) => coordinator.shelf.addBytes(bytes, 65_536);
const steps = (agent: Agent) =>
  agent.events.flatMap((event) => (event.type === 'preflight' ? [event.step] : []));
const stops = (ms: number) => {
  const date = new Date(ms);
  return `${String(date.getHours()).padStart(2, '0')}:${String(date.getMinutes()).padStart(2, '0')}`;
};
const HOUR = 3_600_000;

describe('a federation that the policy refuses', () => {
  test('coordinators: one that is not allowed is not dialled', async () => {
    const agent = await startAgent('coordinators: [https://hub.example.org]');
    await expect(agent.done).rejects.toMatchObject({ code: 'FED_POLICY_COORDINATOR' });
    expect(coordinator.channels).toHaveLength(0);
    expect(steps(agent).at(-1)).toMatchObject({ name: 'policy', state: 'fail' });
  });

  test.each([
    [`models: [${'f'.repeat(64)}]`, 'FED_POLICY_MODEL', `model ${sha256('{}')} is none of those`],
    ['privacy: { secureAggregation: true }', 'FED_POLICY_PRIVACY', 'secure aggregation is required'],
    ['maxBytesPerDay: 3000', 'FED_POLICY_BYTES', 'one round moves'],
    ['engines: [wasm]', 'FED_POLICY_ENGINE', 'the engine fake is not allowed'],
  ])('%s: leaves with the reason, and trains nothing', async (policy, code, reason) => {
    const agent = await startAgent(policy);
    await expect(agent.done).rejects.toMatchObject({ code, message: expect.stringContaining(reason) });
    expect((await coordinator.received('leave')).reason).toContain(reason);
    expect(coordinator.count('ready')).toBe(0);
    expect(trainer.trained).toEqual([]);
  });

  test('minCohort: a coordinator of protocol 2.0 can not tell the cohort', async () => {
    const { hello } = coordinator.on;
    coordinator.on.hello = async (message, channel) => ({
      ...((await hello!(message, channel)) as object as { type: 'ok' }),
      protocol: { major: 2, minor: 0 },
    });
    const agent = await startAgent('minCohort: 2');
    await expect(agent.done).rejects.toMatchObject({ code: 'FED_POLICY_COHORT' });
    expect((await coordinator.received('leave')).reason).toContain('older than 2.1');
  });
});

describe('a plan that the policy refuses', () => {
  test('minCohort: declines a cohort that is too small or not told, and takes the next that is not', async () => {
    const agent = await startAgent('minCohort: 3');
    await coordinator.received('ready');
    expect(steps(agent)[2]).toMatchObject({
      name: 'policy',
      state: 'ok',
      detail: expect.stringContaining('averaged with 3 updates or more'),
    });
    const model = await addModel(MODEL);
    await coordinator.plan({ model });
    expect(await coordinator.received('failure')).toMatchObject({
      task: 'train',
      round: 1,
      code: 'FED_POLICY_COHORT',
      reason: expect.stringContaining('does not tell'),
    });
    // Ten were asked, and two updates would do.
    await coordinator.plan({ model, cohortSize: 10, minUpdates: 2 });
    expect((await coordinator.received('failure', 2)).reason).toContain(
      'averaged from 2 updates (10 sites asked)',
    );
    expect(trainer.trained).toEqual([]);
    await coordinator.plan({ model, cohortSize: 10, minUpdates: 3 });
    await agent.seen('accepted');
    expect([...coordinator.updates.values()]).toEqual([updateOf(MODEL, 1)]);
  });

  test('minCohort: an update that was finished under a laxer policy is not sent under a stricter one', async () => {
    const first = await startAgent('minCohort: 2');
    await coordinator.received('ready');
    const held = new Promise<never>(() => undefined);
    coordinator.on.offer = () => held;
    const plan = { model: await addModel(MODEL), cohortSize: 2, minUpdates: 2 };
    await coordinator.plan(plan);
    await first.seen('spooled');
    controller.abort();
    await first.done;
    controller = new AbortController();
    delete coordinator.on.offer;
    const second = await startAgent('minCohort: 3');
    expect(await second.seen('withheld')).toMatchObject({ code: 'FED_POLICY_COHORT', kept: false });
    expect(await coordinator.received('failure')).toMatchObject({ round: 1, code: 'FED_POLICY_COHORT' });
    // Asked again all the same, it declines; nothing of the update is left to be sent.
    await coordinator.plan(plan);
    expect(await coordinator.received('failure', 2)).toMatchObject({ code: 'FED_POLICY_COHORT' });
    expect(coordinator.updates.size).toBe(0);
    expect(await readdir(join(root, 'state', 'spool'))).toEqual([]);
  });

  test('maxRounds: trains so many, the same round once, and leaves with the reason', async () => {
    const agent = await startAgent('maxRounds: 1');
    await coordinator.received('ready');
    const model = await addModel(MODEL);
    await coordinator.plan({ model });
    await agent.seen('accepted');
    // Its evaluation belongs to it.
    const next = await addModel(NEXT_MODEL);
    await coordinator.plan({ model: next, task: 'evaluate' });
    await agent.seen('evaluated');
    // A coordinator that calls the next round by the same number has another model: it is another round.
    await coordinator.plan({ model: next });
    expect(await coordinator.received('failure')).toMatchObject({ code: 'FED_POLICY_ROUNDS' });
    expect((await coordinator.received('leave')).reason).toContain('maxRounds is 1');
    expect(await agent.done).toMatchObject({ ended: 'left', code: 'FED_POLICY_ROUNDS', updatesAccepted: 1 });
    expect(trainer.trained).toEqual([1]);
    // And so after a restart.
    const again = await startAgent('maxRounds: 1');
    await expect(again.done).rejects.toMatchObject({ code: 'FED_POLICY_ROUNDS' });
  });
});

describe('a budget of privacy', () => {
  const DELTA = 1e-5;
  const differentialPrivacy = { unit: 'record', clippingNorm: 1, noiseMultiplier: 2 } as const;
  const training = { ...federationView().training, batchSize: 5, epochs: 1 };
  /** What so many rounds cost the ten images of the trainer. */
  const costOf = (rounds: number) =>
    epsilonSpent(
      Array.from({ length: rounds }, () => ({
        noiseMultiplier: 2,
        trainExamples: 10,
        batchSize: 5,
        epochs: 1,
      })),
      DELTA,
    );
  /** The federation says that so much may be spent. */
  const offer = (epsilon: number) => {
    coordinator.on.hello = () => ({
      type: 'welcome',
      protocol: { major: 2, minor: 1 },
      clientId: 'client-1',
      clockMs: Date.now(),
      heartbeatMs: 60_000,
      federation: federationView({
        modelBytes: MODEL.length,
        training,
        privacy: { differentialPrivacy, budget: { epsilon, delta: DELTA } },
      }),
    });
  };
  const models = async () => [await addModel(MODEL), await addModel(NEXT_MODEL)] as const;
  const ledger = async () => await readFile(join(root, 'state', 'privacy-ledger.jsonl'), 'utf8');

  test.each([
    ['the federation’s', costOf(1) + 1e-9, '{}', 'the federation allows'],
    [
      'its own, whatever the coordinator allows',
      1000,
      `privacy: { budget: { epsilon: ${costOf(1) + 1e-9}, delta: ${DELTA} } }`,
      'site-policy.yaml allows',
    ],
  ])(
    '%s: trains as far as it reaches, then leaves with the reason, and remembers',
    async (_, epsilon, policy, reason) => {
      offer(epsilon);
      const agent = await startAgent(policy);
      await coordinator.received('ready');
      const [model, next] = await models();
      await coordinator.plan({ model });
      await agent.seen('accepted');
      expect(
        (await ledger())
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line) as object),
      ).toEqual([
        expect.objectContaining({
          round: 1,
          base: model.digest,
          noiseMultiplier: 2,
          trainExamples: 10,
          steps: 2,
        }),
      ]);
      await coordinator.plan({ model: next, round: 2 });
      expect(await coordinator.received('failure')).toMatchObject({
        round: 2,
        code: 'FED_POLICY_BUDGET',
        reason: expect.stringContaining(reason),
      });
      expect(await agent.done).toMatchObject({
        ended: 'left',
        code: 'FED_POLICY_BUDGET',
        updatesAccepted: 1,
      });
      expect(trainer.trained).toEqual([1]);

      const again = await startAgent(policy);
      await coordinator.received('ready', 2);
      await coordinator.plan({ model: next, round: 2 });
      expect(await coordinator.received('failure', 2)).toMatchObject({ code: 'FED_POLICY_BUDGET' });
      await again.done;
      expect(trainer.trained).toEqual([1]);
    },
  );

  test('a round that is trained again, on whatever model, is spent again', async () => {
    offer(costOf(2) + 1e-9);
    const agent = await startAgent('{}');
    await coordinator.received('ready');
    const [model, next] = await models();
    await coordinator.plan({ model });
    await agent.seen('accepted');
    await coordinator.plan({ model: next });
    await agent.seen('accepted', 2);
    await coordinator.plan({ model, round: 3 });
    expect(await coordinator.received('failure')).toMatchObject({ code: 'FED_POLICY_BUDGET' });
  });

  test('is written down before an update can leave: a site killed in between has spent it', async () => {
    offer(costOf(1) + 1e-9);
    const first = await startAgent('{}');
    await coordinator.received('ready');
    const offered = new Promise<string>((resolve) => {
      coordinator.on.offer = async () => {
        resolve(await ledger());
        return await new Promise<never>(() => undefined);
      };
    });
    const [model, next] = await models();
    await coordinator.plan({ model });
    expect(await offered).toContain('"round":1');
    controller.abort();
    await first.done;
    controller = new AbortController();
    // A crash in the middle of the next line leaves half of it, which was no update.
    await appendFile(join(root, 'state', 'privacy-ledger.jsonl'), '{"at":17');
    const spool = join(root, 'state', 'spool');
    for (const file of await readdir(spool)) await rm(join(spool, file));
    delete coordinator.on.offer;
    const second = await startAgent('{}');
    await coordinator.received('ready', 2);
    await coordinator.plan({ model: next });
    expect(await coordinator.received('failure')).toMatchObject({ code: 'FED_POLICY_BUDGET' });
    await second.done;
  });

  test('a ledger that was changed by hand stops the site', async () => {
    offer(1000);
    await mkdir(join(root, 'state'), { recursive: true });
    await writeFile(join(root, 'state', 'privacy-ledger.jsonl'), '{"at":1,"round":1}\n');
    await startAgent('{}');
    await coordinator.received('ready');
    await coordinator.plan({ model: await addModel(MODEL) });
    expect(await coordinator.received('failure')).toMatchObject({
      code: 'FED_WORKER_STATE_UNUSABLE',
      reason: expect.stringContaining('damaged in line 1'),
    });
    expect(coordinator.updates.size).toBe(0);
  });

  test.each([
    ['differentialPrivacy: true', 'the federation trains without', federationView()],
    [
      'differentialPrivacy: { minNoiseMultiplier: 3 }',
      'noise multiplier 2 and clipping norm 1 are offered',
      undefined,
    ],
    ['differentialPrivacy: { maxClippingNorm: 0.5 }', '0.5 or less are required', undefined],
  ])('%s: refuses what offers less', async (policy, reason, federation) => {
    offer(1000);
    if (federation !== undefined) {
      const { hello } = coordinator.on;
      coordinator.on.hello = async (message, channel) => ({
        ...((await hello!(message, channel)) as object as { type: 'ok' }),
        federation,
      });
    }
    const agent = await startAgent(`privacy: { ${policy} }`);
    await expect(agent.done).rejects.toMatchObject({
      code: 'FED_POLICY_PRIVACY',
      message: expect.stringContaining(reason),
    });
  });
});

describe('the privacy of the site as a whole', () => {
  const DELTA = 1e-5;
  const costOf = (rounds: number) =>
    epsilonSpent(
      Array.from({ length: rounds }, () => ({ unit: 'site' as const, noiseMultiplier: 2 })),
      DELTA,
    );
  const adapts = { initial: 1, targetQuantile: 0.5, learningRate: 0.2 };
  const offer = (differentialPrivacy: SiteLevelPlan, epsilon = 1000) => {
    coordinator.on.hello = () => ({
      type: 'welcome',
      protocol: { major: 2, minor: 2 },
      clientId: 'client-1',
      clockMs: Date.now(),
      heartbeatMs: 60_000,
      federation: federationView({
        modelBytes: MODEL.length,
        privacy: { differentialPrivacy, budget: { epsilon, delta: DELTA } },
      }),
    });
  };
  const site = { unit: 'site', noiseMultiplier: 2 } as const;
  const ledger = async () =>
    (await readFile(join(root, 'state', 'privacy-ledger.jsonl'), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);

  test.each(['site', 'coordinator'] as const)(
    'noise at the %s: its own ledger counts each update, and it leaves before its budget is overdrawn',
    async (noise) => {
      offer({ ...site, noise, clippingNorm: 3 }, costOf(1) + 1e-9);
      const agent = await startAgent('{}');
      await coordinator.received('ready');
      const model = await addModel(MODEL);
      await coordinator.plan({ model });
      await agent.seen('accepted');
      expect(await ledger()).toEqual([
        { at: expect.any(Number), round: 1, base: model.digest, ...site, clippingNorm: 3 },
      ]);
      await coordinator.plan({ model: await addModel(NEXT_MODEL), round: 2 });
      expect(await coordinator.received('failure')).toMatchObject({
        code: 'FED_POLICY_BUDGET',
        reason: expect.stringContaining('the federation allows'),
      });
      expect(await agent.done).toMatchObject({ ended: 'left', updatesAccepted: 1 });
      expect(trainer.trained).toEqual([1]);
    },
  );

  test('noise that the coordinator says it drew again over an update is spent here too', async () => {
    offer({ ...site, noise: 'coordinator', clippingNorm: 3 }, costOf(2) + 1e-9);
    await startAgent('{}');
    await coordinator.received('ready');
    await coordinator.plan({ model: await addModel(MODEL) });
    await coordinator.received('offer');
    // It was killed between noise and commit, and made the round again.
    const lines = [1, 2].map((seq) =>
      JSON.stringify(
        signRecord(
          { type: 'noised', seq, at: 1, config: 'c', prev: FIRST_PREV, round: 1, sites: ['lab'] },
          coordinator.key,
        ),
      ),
    );
    await coordinator.channels.at(-1)!.call({ type: 'records', lines }, 'ok');
    await coordinator.plan({ model: await addModel(NEXT_MODEL), round: 2 });
    expect(await coordinator.received('failure')).toMatchObject({
      code: 'FED_POLICY_BUDGET',
      reason: expect.stringContaining(`spent so far: ${costOf(2).toFixed(2)}`),
    });
    expect(await ledger()).toHaveLength(1);
  });

  test('a norm that adapts is each plan’s: it goes to the trainer and into the ledger', async () => {
    offer({ ...site, noise: 'coordinator', clippingNorm: adapts });
    const agent = await startAgent('{}');
    await coordinator.received('ready');
    await coordinator.plan({ model: await addModel(MODEL), clippingNorm: 1.25 });
    await agent.seen('accepted');
    expect(trainer.norms).toEqual([1.25]);
    expect(await ledger()).toMatchObject([{ clippingNorm: 1.25 }]);
  });

  test.each([
    ['{}', undefined, 'the plan of round 1 does not tell it'],
    [
      'privacy: { differentialPrivacy: { noise: coordinator, maxClippingNorm: 2 } }',
      2.5,
      'clipped to 2.5, and 2 or less is required',
    ],
  ])('%s: declines a plan whose norm is %s', async (policy, clippingNorm, reason) => {
    offer({ ...site, noise: 'coordinator', clippingNorm: adapts });
    await startAgent(policy);
    await coordinator.received('ready');
    await coordinator.plan({
      model: await addModel(MODEL),
      ...(clippingNorm === undefined ? {} : { clippingNorm }),
    });
    expect(await coordinator.received('failure')).toMatchObject({
      code: 'FED_POLICY_PRIVACY',
      reason: expect.stringContaining(reason),
    });
    expect(trainer.trained).toEqual([]);
  });
});

describe('hours', () => {
  test('outside of them it shows its checks, leaves with the reason and comes back when they begin', async () => {
    const opening = Date.now() + HOUR;
    const agent = await startAgent(`hours: "${stops(opening)}-${stops(opening + HOUR)}"`);
    const resting = await agent.seen('resting');
    // To the minute.
    expect(resting.until).toBe(Math.floor(opening / 60_000) * 60_000);
    expect((await coordinator.received('leave')).reason).toContain('it trains');
    expect(steps(agent).map(({ name }) => name)).toContain('images');
    expect(trainer.starts).toBe(0);
    shiftMs = HOUR;
    await coordinator.received('ready');
    expect(coordinator.count('hello')).toBe(2);
    await coordinator.plan({ model: await addModel(MODEL) });
    await agent.seen('accepted');
  });

  test('when they end it stops its work, says so, gives the trainer back, and goes on the next day', async () => {
    const agent = await startAgent(`hours: "${stops(Date.now() - HOUR)}-${stops(Date.now() + HOUR)}"`);
    await coordinator.received('ready');
    let aborted = false;
    trainer.onTrain = (attempt, signal) =>
      attempt > 1
        ? Promise.resolve()
        : new Promise((_, reject) => {
            signal?.addEventListener('abort', () => {
              aborted = true;
              reject(signal.reason as Error);
            });
          });
    const model = await addModel(MODEL);
    await coordinator.plan({ model });
    await agent.seen('training');
    shiftMs = 2 * HOUR;
    expect(await coordinator.received('failure')).toMatchObject({ round: 1, code: 'FED_POLICY_HOURS' });
    await agent.seen('resting');
    expect(aborted).toBe(true);
    shiftMs = 24 * HOUR;
    await coordinator.received('ready', 2);
    expect(trainer.starts).toBe(2);
    await coordinator.plan({ model });
    await agent.seen('accepted');
  });
});

describe('maxBytesPerDay', () => {
  test('declines a round that the rest of the day can not pay for, and comes back the next day', async () => {
    // One round is 20,000 bytes each way, and some for the messages; two rounds are more than 75,000.
    const agent = await startAgent('maxBytesPerDay: 75000');
    await coordinator.received('ready');
    await coordinator.plan({ model: await addModel(MODEL) });
    await agent.seen('accepted');
    const next = await addModel(NEXT_MODEL);
    await coordinator.plan({ model: next, round: 2 });
    expect(await coordinator.received('failure')).toMatchObject({ round: 2, code: 'FED_POLICY_BYTES' });
    const { until } = await agent.seen('resting');
    expect([new Date(until).getHours(), new Date(until).getMinutes()]).toEqual([0, 0]);
    expect(trainer.trained).toEqual([1]);
    shiftMs = until - Date.now();
    await coordinator.received('ready', 2);
    await coordinator.plan({ model: next, round: 2 });
    await agent.seen('accepted', 2);
  });

  test('a coordinator that asks for the same chunk without end gets no more than the day has', async () => {
    const agent = await startAgent('maxBytesPerDay: 90000');
    let got = 0;
    coordinator.on.offer = ({ update }, channel) => {
      void (async () => {
        for (;;) {
          const { body } = await channel.callWithBody(
            { type: 'chunk', digest: update.digest, index: 0 },
            'chunk-data',
          );
          got += body.byteLength;
        }
      })().catch(() => undefined);
      return { type: 'receipt', decision: 'send' };
    };
    await coordinator.received('ready');
    await coordinator.plan({ model: await addModel(MODEL) });
    const resting = await agent.seen('resting');
    expect(resting.code).toBe('FED_POLICY_BYTES');
    expect((await coordinator.received('leave')).reason).toContain('a day');
    expect(got).toBeGreaterThan(0);
    expect(got).toBeLessThan(90_000);
  });
});
