/**
 * Every process of a federation killed with SIGKILL, at the points where a kill could lose something: each run ends,
 * and with full participation the final weights are those of the undisturbed run, to the bit.
 */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runPaths, verifyRun } from '@tributary/coordinator';
import { decodeSafetensors } from '@tributary/shared-protocol';
import { type Bundle, bundlePrograms } from '@tributary/testkit/bundle';
import { type NatsServer, natsServerMissing, startNatsServer } from '@tributary/testkit/nats-server';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { shapesConfig, writeFederation } from '../e2e/federation.ts';
import {
  type ChaosEvent,
  type ChaosOptions,
  type EventKill,
  FAST_SITES,
  MASKED_SITES,
  type Name,
  type Outcome,
  playWithKills,
  TRAINER_SITES,
} from './supervisor.ts';

/** Killed by the process itself, where the code says `crashPoint(name)`. */
const COORDINATOR_POINTS = [
  'coordinator:after-invite-record',
  'coordinator:after-join-record',
  'coordinator:before-welcome#2',
  'coordinator:before-round-record',
  'coordinator:after-round-record',
  'coordinator:after-plan-sent',
  'coordinator:serve-chunk',
  'coordinator:serve-chunk#6',
  'coordinator:offer-received',
  'coordinator:update-chunk#2',
  'coordinator:after-update-spooled',
  'coordinator:before-accept-record',
  'coordinator:after-accept-record',
  'coordinator:after-accept-record#2',
  'coordinator:after-verdict',
  'coordinator:before-aggregate',
  'coordinator:after-aggregate',
  'coordinator:checkpoint-written',
  'coordinator:checkpoint-written#2',
  'coordinator:checkpoint-renamed#2',
  'coordinator:after-checkpoint',
  'coordinator:evaluation-received',
  'coordinator:before-commit',
  'coordinator:after-commit',
  'coordinator:after-commit#2',
  'coordinator:after-finish-record',
];
const AGENT_POINTS = [
  'agent:after-key',
  'agent:after-hello',
  'agent:after-credential',
  'agent:after-ready',
  'agent:after-records',
  'agent:on-plan',
  'agent:on-plan#3',
  'agent:mid-fetch#2',
  'agent:after-fetch',
  'agent:after-train',
  'agent:after-spool',
  'agent:after-offer',
  'agent:mid-upload',
  'agent:mid-upload#3',
  'agent:after-verdict',
  'agent:before-evaluation',
  'agent:after-evaluation',
  'agent:after-evaluation#2',
];
const TRAINER_POINTS = [
  'trainer:prepared',
  'trainer:before-training',
  'trainer:after-step#3',
  'trainer:before-update',
  'trainer:after-update',
  'trainer:before-evaluation',
  'trainer:after-test-batch',
];
/** In a federation that sums updates under masks. */
const MASKED_COORDINATOR_POINTS = [
  'coordinator:secagg-keys',
  'coordinator:secagg-shares',
  'coordinator:secagg-chunk#2',
  'coordinator:secagg-masked',
  'coordinator:secagg-survivors',
  'coordinator:secagg-signed',
  'coordinator:secagg-unmasked#2',
  'coordinator:before-commit#2',
  'coordinator:after-commit',
];
const MASKED_AGENT_POINTS = [
  'agent:after-spool',
  'agent:after-offer',
  'agent:secagg-mask',
  'agent:mid-upload#2',
  'agent:secagg-signed',
  'agent:secagg-unmasked',
];
/** The same over NATS, where it is another link that is lost. */
const MASKED_NATS_POINTS = ['coordinator:secagg-survivors', 'agent:secagg-mask', 'agent:secagg-signed'];

const is =
  (type: ChaosEvent['type'], round?: number) =>
  (event: ChaosEvent): boolean =>
    event.type === type && (round === undefined || ('round' in event && event.round === round));

/** Killed from outside, when a process reports something. */
const EVENT_KILLS: Record<string, readonly EventKill[]> = {
  'a site as it joins': [{ on: 'coordinator', when: is('joined'), kill: ['harbour'] }],
  'the coordinator as the first site is ready': [
    { on: 'coordinator', when: is('ready'), kill: ['coordinator'] },
  ],
  'a site as round 2 starts': [{ on: 'coordinator', when: is('round-started', 2), kill: ['island'] }],
  'both sites as round 2 starts': [
    { on: 'coordinator', when: is('round-started', 2), kill: ['harbour', 'island'] },
  ],
  'the coordinator as a site fetches the model': [
    { on: 'harbour', when: is('fetching'), kill: ['coordinator'] },
  ],
  'a site and the coordinator as an update is spooled': [
    { on: 'harbour', when: is('spooled'), kill: ['coordinator', 'harbour'] },
  ],
  'the coordinator as the first update is accepted': [
    { on: 'coordinator', when: is('update-accepted'), kill: ['coordinator'] },
  ],
  'everyone as round 1 is committed': [
    { on: 'coordinator', when: is('committed', 1), kill: ['coordinator', 'harbour', 'island'] },
  ],
  'a site as it hears the verdict': [{ on: 'island', when: is('accepted', 2), kill: ['island'] }],
  'the coordinator as it says goodbye': [{ on: 'coordinator', when: is('finished'), kill: ['coordinator'] }],
  'the coordinator three times': [
    { on: 'coordinator', when: is('round-started', 1), kill: ['coordinator'] },
    { on: 'coordinator', when: is('resumed', 1), kill: ['coordinator'] },
    { on: 'coordinator', when: is('round-started', 2), kill: ['coordinator'] },
  ],
};
const MASKED_KILLS: Record<string, readonly EventKill[]> = {
  'two sites and the coordinator as a masked update is there': [
    { on: 'coordinator', when: is('update-accepted', 2), kill: ['coordinator', 'harbour', 'island'] },
  ],
  'a site as its sum is committed': [{ on: 'coordinator', when: is('committed', 1), kill: ['meadow'] }],
};
const TRAINER_KILLS: Record<string, readonly EventKill[]> = {
  'the trainer as it trains': [{ on: 'harbour', when: is('training'), kill: ['trainer'] }],
  'the trainer between rounds': [{ on: 'harbour', when: is('evaluated', 1), kill: ['trainer'] }],
  'the agent as its trainer trains': [{ on: 'harbour', when: is('training', 2), kill: ['harbour'] }],
};

const ROUNDS = 2;
/** Runs at a time; each is three processes or four. */
const LANES = 3;

let root: string;
let programs: Bundle;
let options: ChaosOptions;
let undisturbed: Promise<Outcome>;
let undisturbedTrainer: Promise<Outcome>;
/** Three sites, without masks. */
let unmasked: Promise<Outcome>;
let nats: NatsServer | undefined;
const noNats = natsServerMissing();
if (noNats !== undefined) test.skip(`masked kills over NATS: ${noNats}`, () => {});
const laneFree: (() => void)[] = [];
let lanesUsed = 0;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-chaos-'));
  const config = shapesConfig({ deadlines: { ...shapesConfig().deadlines, heartbeatSeconds: 1 } });
  const shared = await writeFederation(root, { config });
  programs = await bundlePrograms(
    ['coordinator-process', 'worker-process'].map((name) => new URL(`../e2e/${name}.ts`, import.meta.url)),
    // Where the one module that stays outside is found.
    new URL('../../packages/worker/node_modules/', import.meta.url),
    ['sharp'],
  );
  options = { root, programs, shared, sites: FAST_SITES, rounds: ROUNDS };
  undisturbed = inLane(() => playWithKills('undisturbed', options));
  undisturbedTrainer = inLane(() =>
    playWithKills('undisturbed-trainer', { ...options, sites: TRAINER_SITES }),
  );
  unmasked = inLane(() => playWithKills('unmasked', { ...options, sites: MASKED_SITES }));
  for (const one of [undisturbed, undisturbedTrainer, unmasked]) one.catch(() => undefined);
  if (noNats === undefined) nats = await startNatsServer();
}, 60_000);
afterAll(async () => {
  await nats?.stop();
  await rm(programs.folder, { recursive: true, force: true });
  await rm(root, { recursive: true, force: true });
});

describe.concurrent('a federation whose processes are killed ends with the same weights', () => {
  test.each(COORDINATOR_POINTS)(
    'at %s',
    (at) => expectSame(at, { points: [{ who: 'coordinator', at }] }),
    300_000,
  );
  test.each(AGENT_POINTS)('at %s', (at) => expectSame(at, { points: [{ who: 'harbour', at }] }), 300_000);
  test.each(TRAINER_POINTS)(
    'at %s',
    (at) => expectSame(at, { points: [{ who: 'harbour', at }], sites: TRAINER_SITES }, 'trainer'),
    300_000,
  );
  test.each(Object.entries(EVENT_KILLS))('%s', (name, onEvents) => expectSame(name, { onEvents }), 300_000);
  test.each(Object.entries(TRAINER_KILLS))(
    '%s',
    (name, onEvents) => expectSame(name, { onEvents, sites: TRAINER_SITES }),
    300_000,
  );
});

describe.concurrent('a federation that sums updates under masks ends with their mean, and trains nothing twice', () => {
  test.each(MASKED_COORDINATOR_POINTS)(
    'killed at %s',
    (at) => expectMean(at, { points: [{ who: 'coordinator', at }] }),
    300_000,
  );
  test.each(MASKED_AGENT_POINTS)(
    'killed at %s',
    (at) => expectMean(at, { points: [{ who: 'harbour', at }] }),
    300_000,
  );
  test.each(Object.entries(MASKED_KILLS))(
    'killed: %s',
    (name, onEvents) => expectMean(name, { onEvents }),
    300_000,
  );
  test.skipIf(noNats !== undefined).each(MASKED_NATS_POINTS)(
    'over NATS, killed at %s',
    (at) => {
      const who = at.startsWith('agent:') ? 'harbour' : 'coordinator';
      return expectMean(`nats ${at}`, { points: [{ who, at }], natsPort: nats!.port });
    },
    300_000,
  );
});

test('every crash point in the sources is killed at', async () => {
  const named = new Set<string>();
  for (const area of ['coordinator', 'worker']) {
    const source = fileURLToPath(new URL(`../../packages/${area}/src/`, import.meta.url));
    for (const file of await readdir(source, { recursive: true })) {
      if (!file.endsWith('.ts')) continue;
      const text = await readFile(join(source, file), 'utf8');
      for (const [, name] of text.matchAll(/'((?:coordinator|agent|trainer):[a-z-]+)'/g))
        named.add(name ?? '');
    }
  }
  // A file's name for two points: when its bytes are written, and when it has its name.
  if (named.delete('coordinator:checkpoint')) {
    named.add('coordinator:checkpoint-written').add('coordinator:checkpoint-renamed');
  }
  const killedAt = [
    ...[COORDINATOR_POINTS, AGENT_POINTS, TRAINER_POINTS].flat(),
    ...[MASKED_COORDINATOR_POINTS, MASKED_AGENT_POINTS].flat(),
  ].map((at) => at.split('#')[0]);
  expect([...named].sort()).toEqual([...new Set(killedAt)].sort());
});

async function expectSame(label: string, extra: Partial<ChaosOptions>, victim?: 'trainer'): Promise<void> {
  const all = { ...options, ...extra };
  const outcome = await inLane(() => playWithKills(label.replaceAll(/\W+/g, '-'), all));
  const expected = await (all.sites === TRAINER_SITES ? undisturbedTrainer : undisturbed);
  expect(expected.killed).toEqual([]);
  // The kill happened: a case whose point is never reached would prove nothing.
  if (victim === 'trainer') expect(outcome.events.harbour.some(is('trainer-crashed'))).toBe(true);
  else expect([...outcome.killed].sort()).toEqual(victims(all).sort());
  expect(outcome.weights).toBe(expected.weights);
  const commits = outcome.events.coordinator.filter(is('committed'));
  for (const commit of commits) expect(commit).toMatchObject({ updates: Object.keys(all.sites).length });
}

/** Of the 16 bits over ±1 that a value has by default. */
const STEP = 2 / (2 ** 16 - 2);

async function expectMean(label: string, extra: Partial<ChaosOptions>): Promise<void> {
  // A unit of weight is one example, so nothing but the values is rounded.
  const privacy = { secureAggregation: { maxExamples: 1000 } };
  const all = { ...options, sites: MASKED_SITES, config: { privacy }, ...extra };
  const outcome = await inLane(() => playWithKills(`masked-${label.replaceAll(/\W+/g, '-')}`, all));
  expect([...outcome.killed].sort()).toEqual(victims(all).sort());
  const mean = await weightsOf(await unmasked);
  // A value of the sum is off by less than a step a round; the updates of the next one are nearer by an eighth.
  const off = (await weightsOf(outcome)).map((value, i) => Math.abs(value - mean[i]!));
  expect(Math.max(...off)).toBeLessThan(ROUNDS * STEP);
  expect(verifyRun(outcome.runDir).findings).toEqual([]);
  const names = Object.keys(MASKED_SITES) as (keyof typeof MASKED_SITES)[];
  for (const commit of outcome.events.coordinator.filter(is('committed')))
    expect(commit).toMatchObject({ updates: names.length });
  for (const name of names)
    for (let round = 1; round <= ROUNDS; round++)
      expect(outcome.events[name].filter(is('spooled', round)).length, name).toBeLessThanOrEqual(1);
  for (const name of names)
    expect(outcome.events[name].filter((event) => event.type === 'refused')).toEqual([]);
}

async function weightsOf({ runDir }: Outcome): Promise<number[]> {
  const { tensors } = decodeSafetensors(await readFile(runPaths(runDir).checkpoint(ROUNDS)));
  return tensors.flatMap(({ data }) => [...(data as Float32Array)]);
}

function victims({ points = [], onEvents = [] }: ChaosOptions): (Name | 'trainer')[] {
  return [...points.map(({ who }) => who), ...onEvents.flatMap(({ kill }) => kill)];
}

async function inLane<T>(play: () => Promise<T>): Promise<T> {
  if (lanesUsed >= LANES) await new Promise<void>((free) => laneFree.push(free));
  lanesUsed++;
  try {
    return await play();
  } finally {
    lanesUsed--;
    laneFree.shift()?.();
  }
}
