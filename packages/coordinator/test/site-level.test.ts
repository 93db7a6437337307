/** The privacy of sites with the noise at the coordinator: what is committed has it, and every time it is drawn counts. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { auditMechanism, epsilonSpent, gaussianEpsilon } from '@tributary/privacy';
import { decodeSafetensors, encodeFrame } from '@tributary/shared-protocol';
import { type ScriptedJob, type ScriptedUpdate, seededWords } from '@tributary/testkit';
import { describe, expect, it } from 'vitest';
import { createFold } from '../src/aggregate/fold.ts';
import {
  createStrategy,
  type FederationConfig,
  type ModelArtifact,
  type RunSummary,
  resolveFederation,
  verifyRun,
} from '../src/index.ts';
import type { RunContext } from '../src/round/context.ts';
import { type LogEntry, replay } from '../src/run/records.ts';
import { releaseMean } from '../src/site-level.ts';
import {
  adds,
  artifact,
  baseConfig,
  records,
  startRun,
  type TestRun,
  temporaryDir,
  tensor,
} from './federation.ts';

const DELTA = 1e-5;
const SIZE = 40_000;
/** One tensor of 40,000 zeros: the committed model is the sum of all that was ever added. */
const wide: ModelArtifact = { ...artifact, weights: [tensor('w', new Array<number>(SIZE).fill(0))] };

type Central = Extract<
  NonNullable<FederationConfig['privacy']>['differentialPrivacy'],
  { noise: 'coordinator' }
>;
const central = (more: Partial<Central> = {}): Central => ({
  unit: 'site',
  noise: 'coordinator',
  clippingNorm: 2,
  noiseMultiplier: 3,
  ...more,
});
const config = (
  differentialPrivacy: Central = central(),
  more: Partial<FederationConfig> = {},
): Partial<FederationConfig> => ({
  rounds: 1,
  cohort: { quorum: 1 },
  privacy: { differentialPrivacy, budget: { epsilon: 1e9, delta: DELTA } },
  ...more,
});
/** What so many rounds cost a site. */
const costOf = (rounds: number, noiseMultiplier = 3) =>
  epsilonSpent(
    Array.from({ length: rounds }, () => ({ unit: 'site' as const, noiseMultiplier })),
    DELTA,
  );
/** A site whose update is `value` everywhere: of norm 200 |value|, as sqrt(40,000) = 200. */
const everywhere = (value: number, numExamples = 10) => ({ train: adds(value, numExamples) });

const committed = (runDir: string, round: number) =>
  decodeSafetensors(readFileSync(join(runDir, `checkpoints/round-000${round}.safetensors`))).tensors.find(
    ({ name }) => !name.startsWith('//'),
  )!.data as Float32Array;
const ofType = <T extends LogEntry['type']>(run: Pick<TestRun, 'runDir'>, type: T) =>
  records(run as TestRun).filter(
    (record): record is Extract<typeof record, { type: T }> => record.type === type,
  );

function moments(values: Float32Array): { readonly mean: number; readonly stdDev: number } {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  return { mean, stdDev: Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length) };
}
/** Holds the values against N(mean, stdDev^2), five standard deviations of either estimate. */
function expectGaussian(values: Float32Array, mean: number, stdDev: number): void {
  const seen = moments(values);
  expect(Math.abs(seen.mean - mean)).toBeLessThan((5 * stdDev) / Math.sqrt(values.length));
  expect(Math.abs(seen.stdDev - stdDev)).toBeLessThan((5 * stdDev) / Math.sqrt(2 * values.length));
}

describe('noise at the coordinator', () => {
  it('is in the committed model: z C / m in each number, where no site changes anything', async () => {
    const run = await startRun(config(), { model: wide });
    for (const name of ['a', 'b', 'c']) await run.join(name, everywhere(0));
    await run.coordinator.run();
    expectGaussian(committed(run.runDir, 1), 0, (3 * 2) / 3);
  });

  // Of the realised number the mean would have the noise, and a missing site would show in all the others' weight.
  it('is divided by the sites that were asked, whoever answers; a missing one counts as zeros', async () => {
    const run = await startRun(config(), { model: wide });
    await run.join('a', everywhere(0.004));
    await run.join('b', everywhere(0.004));
    await run.join('c', {
      train: () => {
        throw new Error('no');
      },
    });
    await run.coordinator.run();
    // Norms of 0.8 are not clipped: (0.004 + 0.004) / 3.
    expectGaussian(committed(run.runDir, 1), 0.008 / 3, 2);
    expect(ofType(run, 'noised')).toMatchObject([
      { round: 1, sites: ['a', 'b'], clippingNorm: 2, expectedCohort: 3 },
    ]);
  });

  // Flower adds z C / n to a mean that is weighted by examples: who has most of them moves it by more.
  it('is of equal weights: a site with a thousand times the examples moves the mean no further', async () => {
    const run = await startRun(config(central({ noiseMultiplier: 1e-3 })), { model: wide });
    await run.join('large', everywhere(0.01, 100_000));
    await run.join('small', everywhere(-0.01, 100));
    await run.coordinator.run();
    expectGaussian(committed(run.runDir, 1), 0, (1e-3 * 2) / 2);
  });

  it('comes after a clip of its own: a site that does not clip moves the mean by C / m all the same', async () => {
    const run = await startRun(config(central({ noiseMultiplier: 1e-3 })), { model: wide });
    await run.join('a', everywhere(50));
    await run.join('b', everywhere(0));
    await run.coordinator.run();
    // Clipped to a norm of 2 over 40,000 numbers: 2 / 200 = 0.01 each, over two sites.
    expectGaussian(committed(run.runDir, 1), 0.005, 1e-3);
  });

  // disco PR#317 is about clipping weights in place of their difference: an untrained site would move the model.
  it('bounds the difference and not the weights, which may be of any size', async () => {
    const heavy = { ...artifact, weights: [tensor('w', new Array<number>(SIZE).fill(100))] };
    const run = await startRun(config(central({ noiseMultiplier: 1e-3 })), { model: heavy });
    await run.join('a', everywhere(0.001));
    await run.join('b', everywhere(0.001));
    await run.coordinator.run();
    expectGaussian(
      committed(run.runDir, 1).map((value) => value - 100),
      0.001,
      1e-3,
    );
  });

  it('is added once, whatever the strategy does with the mean', async () => {
    const run = await startRun(
      config(central(), { strategy: { name: 'fed-avg-m', serverMomentum: 0, serverLearningRate: 0.5 } }),
      { model: wide },
    );
    await run.join('a', everywhere(0));
    await run.coordinator.run();
    expectGaussian(committed(run.runDir, 1), 0, 0.5 * 3 * 2);
  });
});

describe('a clipping norm that adapts', () => {
  const adapts = (more: object = {}, noiseMultiplier = 0.01) =>
    central({ clippingNorm: { initial: 1, countStdDev: 0.02, ...more }, noiseMultiplier });
  const normsOf = (run: TestRun) => ofType(run, 'noised').map(({ clippingNorm }) => clippingNorm);
  /** exp(-0.2 (b - 0.5)); the noise on b is 0.02 / 2, so a factor of 1 ± 5 x 0.2 x 0.01. */
  const near = (value: number) => expect.closeTo(value, 1.5);
  const within = (seen: number, expected: number) =>
    expect(Math.abs(seen / expected - 1), `${seen} is about ${expected}`).toBeLessThan(0.01);

  // Flower's wrappers had the sign the wrong way round: the norm shrank while all was clipped and grew while nothing was.
  it('grows while all is clipped, shrinks while nothing is, and stays where half is', async () => {
    const next = async (values: readonly number[]) => {
      const run = await startRun(config(adapts()), { model: wide });
      for (const [i, value] of values.entries()) await run.join(`s${i}`, everywhere(value));
      await run.coordinator.run();
      return ofType(run, 'committed')[0]!.nextClippingNorm!;
    };
    within(await next([1, 1]), Math.exp(0.1));
    within(await next([0.001, 0.001]), Math.exp(-0.1));
    within(await next([0.001, 1]), 1);
  });

  // Clipped to the norm by the site itself, an update tells by its length alone that it was clipped.
  it('tells the sites in each plan, and knows from what they send whether they had to clip', async () => {
    const told: (number | undefined)[] = [];
    const clips = ({ plan, global }: ScriptedJob): ScriptedUpdate => {
      told.push(plan.clippingNorm);
      const value = plan.clippingNorm! / (200 * (1 + 2 ** -23));
      return adds(value)({ plan, global } as ScriptedJob);
    };
    const run = await startRun(config(adapts(), { rounds: 3 }), { model: wide });
    await run.join('a', { train: clips });
    await run.join('b', { train: clips });
    await run.coordinator.run();
    const norms = normsOf(run);
    expect(norms[0]).toBe(1);
    within(norms[1]!, Math.exp(0.1));
    within(norms[2]!, norms[1]! * Math.exp(0.1));
    expect(told).toEqual(norms.flatMap((norm) => [norm, norm]));
    expect(ofType(run, 'committed').map(({ nextClippingNorm }) => nextClippingNorm)).toEqual([
      norms[1],
      norms[2],
      near(norms[2]! * Math.exp(0.1)),
    ]);
  });

  // Both of Flower's wrappers noise by the norm that the round has just changed.
  it('sizes a round’s noise by the norm that clipped it, not by the one that follows', async () => {
    // All is clipped and the norm grows by exp(4 x 0.5) = 7.4 each round; so little noise in the count leaves it at that.
    const z = 0.1;
    const run = await startRun(
      config(central({ clippingNorm: { initial: 0.5, learningRate: 4 }, noiseMultiplier: z }), { rounds: 2 }),
      { model: wide },
    );
    await run.join('a', everywhere(1000));
    await run.coordinator.run();
    const [first, second] = normsOf(run);
    expect(first).toBe(0.5);
    // One site: the count's noise is z, and z_D = z / sqrt(1 - 1/4).
    const sumMultiplier = z / Math.sqrt(0.75);
    const one = committed(run.runDir, 1);
    const two = committed(run.runDir, 2).map((value, i) => value - one[i]!);
    // Clipped to C over 40,000 numbers: C / 200 each.
    expectGaussian(one, 0.5 / 200, sumMultiplier * 0.5);
    expectGaussian(two, second! / 200, sumMultiplier * second!);
    expect(second).not.toBeCloseTo(0.5, 1);
  });

  it('goes on where it was after a restart, from the signed log', async () => {
    const runDir = temporaryDir();
    const settings = config(adapts({ learningRate: 1 }), { rounds: 3 });
    const first = await startRun(settings, { runDir, model: wide });
    let trained = 0;
    const site = await first.join('a', {
      train: (job) => {
        trained += 1;
        return trained > 1 ? undefined : adds(1)(job);
      },
    });
    const playing = first.coordinator.run();
    await first.event('committed');
    await first.coordinator.close();
    await playing.catch(() => undefined);
    const reached = ofType(first, 'committed')[0]!.nextClippingNorm!;

    const second = await startRun(settings, { runDir, model: wide });
    await second.join('a', { ...everywhere(1), credential: site.credential });
    await second.coordinator.run();
    const norms = normsOf(second);
    expect(norms).toHaveLength(3);
    expect(norms[1]).toBe(reached);
    expect(norms[1]).toBeGreaterThan(1.3);
  });

  it('costs a round what its noise multiplier says, count and all', async () => {
    const run = await startRun(config(adapts({}, 0.03)), { model: wide });
    await run.join('a', everywhere(1));
    await run.coordinator.run();
    expect(ofType(run, 'committed')[0]!.epsilonSpent).toEqual({ a: costOf(1, 0.03) });
  });
});

describe('the budget of a site', () => {
  it('ends the run before the round that would overdraw it', async () => {
    const run = await startRun(
      config(central(), {
        rounds: 10,
        privacy: { differentialPrivacy: central(), budget: { epsilon: costOf(3) + 1e-9, delta: DELTA } },
      }),
    );
    await run.join('a', { train: adds(0) });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'privacy-budget', rounds: 3 });
    expect(ofType(run, 'committed').map(({ epsilonSpent: spent }) => spent)).toEqual(
      [1, 2, 3].map((n) => ({ a: costOf(n) })),
    );
  });

  it('has spent what left a site, also when it was refused', async () => {
    const run = await startRun(config(central(), { deadlines: { extensions: 0 } }));
    await run.join('a', { train: (job) => ({ ...adds(0)(job), base: '0'.repeat(64) }) });
    await run.join('b', { train: adds(0) });
    await run.coordinator.run();
    expect(ofType(run, 'committed')[0]!.epsilonSpent).toEqual({ a: costOf(1), b: costOf(1) });
  });

  it('pays again for a round that is made again without a site that was expelled', async () => {
    const central2 = central();
    let measured = 0;
    const run: TestRun = await startRun(config(central2, { cohort: { quorum: 2 } }), {
      // Its update is in the model that is being measured.
      evaluateCentrally: async () => {
        measured += 1;
        if (measured === 1) run.coordinator.revoke('c', 'x');
        return { loss: 1 };
      },
    });
    for (const name of ['a', 'b', 'c']) await run.join(name, { train: adds(0) });
    await run.coordinator.run();
    await run.coordinator.close();
    expect(ofType(run, 'noised').map(({ sites }) => sites)).toEqual([
      ['a', 'b', 'c'],
      ['a', 'b'],
    ]);
    expect(ofType(run, 'committed')[0]!.epsilonSpent).toEqual({ a: costOf(2), b: costOf(2), c: costOf(1) });
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true });
  });

  it('does not pay twice for an update that a round keeps which is started again for want of sites', async () => {
    const run = await startRun(
      config(central(), {
        cohort: { quorum: 3 },
        privacy: { differentialPrivacy: central(), budget: { epsilon: costOf(1) + 1e-9, delta: DELTA } },
      }),
    );
    for (const name of ['a', 'b']) await run.join(name, { train: adds(0) });
    await run.join('c', { train: () => undefined });
    const done = run.coordinator.run();
    await run.event('update-accepted', ({ name }) => name === 'a');
    await run.event('update-accepted', ({ name }) => name === 'b');
    run.coordinator.revoke('c', 'x');
    await run.join('d', { train: adds(0) });
    expect(await done).toMatchObject({ reason: 'rounds', rounds: 1 });
    expect(ofType(run, 'noised').map(({ sites }) => sites)).toEqual([['a', 'b', 'd']]);
    expect(ofType(run, 'committed')[0]!.epsilonSpent).toEqual({ a: costOf(1), b: costOf(1), d: costOf(1) });
  });
});

const child = fileURLToPath(new URL('run/crash-child.ts', import.meta.url));

/** Three sites and three rounds in a process, which kills itself at that point. */
function play(runDir: string, epsilon: number, crashAt?: string) {
  const { TRIBUTARY_CRASH_AT: _none, ...env } = process.env;
  const more = { privacy: { differentialPrivacy: central(), budget: { epsilon, delta: DELTA } } };
  return spawnSync(
    process.execPath,
    ['--conditions=@tributary/source', '--import', 'tsx', child, runDir, JSON.stringify(more)],
    { encoding: 'utf8', env: crashAt === undefined ? env : { ...env, TRIBUTARY_CRASH_AT: crashAt } },
  );
}

describe('a coordinator that is killed', () => {
  it.each([
    ['before it draws noise', 'coordinator:before-aggregate#2', 3],
    ['with the noise in its memory only', 'coordinator:after-aggregate#2', 4],
    // The checkpoints are those of rounds 0 to 3.
    ['with the noised model on the disk', 'coordinator:checkpoint-renamed#3', 4],
    ['with all done but the commit', 'coordinator:before-commit#2', 4],
    ['after the commit', 'coordinator:after-commit#2', 3],
  ])('%s: each time that noise was drawn has been paid for', (_, point, drawn) => {
    const runDir = temporaryDir();
    expect(play(runDir, 1e9, point)).toMatchObject({ signal: 'SIGKILL' });
    const again = play(runDir, 1e9);
    expect(again.stderr).toBe('');
    expect(JSON.parse(again.stdout) as RunSummary).toMatchObject({ reason: 'rounds', rounds: 3 });
    const run = { runDir };
    expect(ofType(run, 'noised')).toHaveLength(drawn);
    const cost = costOf(drawn);
    expect(ofType(run, 'committed').at(-1)!.epsilonSpent).toEqual({ a: cost, b: cost, c: cost });
    expect(verifyRun(runDir)).toMatchObject({ ok: true });
  });

  it('makes the round again with other noise, and not at all when that can’t be afforded', () => {
    const runDir = temporaryDir();
    const affords = costOf(2) + 1e-9;
    expect(play(runDir, affords, 'coordinator:before-commit#2')).toMatchObject({ signal: 'SIGKILL' });
    const lost = [...committed(runDir, 2)];
    const refused = play(runDir, affords);
    expect(JSON.parse(refused.stdout) as RunSummary).toMatchObject({
      reason: 'privacy-budget',
      rounds: 1,
      message: expect.stringMatching(/no room for round 2/),
    });
    expect(ofType({ runDir }, 'noised')).toHaveLength(2);

    const other = temporaryDir();
    expect(play(other, 1e9, 'coordinator:before-commit#2')).toMatchObject({ signal: 'SIGKILL' });
    const before = [...committed(other, 2)];
    expect(play(other, 1e9).status).toBe(0);
    for (const [i, value] of committed(other, 2).entries()) expect(value).not.toBe(before[i]);
    expect(lost).not.toEqual(before);
  });
});

describe('a log whose noise does not fit its commits', () => {
  it('is called a contradiction', async () => {
    const run = await startRun(config());
    for (const name of ['a', 'b']) await run.join(name, { train: adds(0) });
    await run.coordinator.run();
    await run.coordinator.close();
    const { checkMeaning } = await import('../src/verify/meaning.ts');
    const log = records(run);
    const key = log.flatMap((record) => (record.type === 'run-started' ? [record.publicKey] : []))[0]!;
    const bent = (change: object) =>
      checkMeaning(
        log.map((record) => (record.type === 'noised' ? { ...record, ...change } : record)),
        key,
      ).map(({ what }) => what);
    expect(bent({})).toEqual([]);
    expect(bent({ sites: ['a'] })).toEqual([
      expect.stringMatching(/commits updates of a, b, and the noise was drawn for a$/),
    ]);
    expect(bent({ sites: ['a', 'b', 'z'] })[0]).toMatch(/an update of "z" that was not accepted/);
    expect(bent({ expectedCohort: 200 })).toEqual([
      expect.stringMatching(/over 200 sites, and 2 were asked/),
    ]);
    expect(bent({ round: 7 })[0]).toMatch(/draws noise for round 7, which is not open/);
  });
});

/** One round as rounds.ts plays it, from updates to the mean, with noise from `words`. */
function audited(more: {
  readonly words: () => number;
  readonly clip?: boolean;
  readonly weigh?: (n: number) => number;
}) {
  const model: ModelArtifact = { ...artifact, weights: [tensor('w', [0, 0])] };
  const federation = resolveFederation(
    { ...baseConfig, ...config(central({ clippingNorm: 2, noiseMultiplier: 1 })) },
    model,
  );
  const honest = createStrategy(federation);
  const { weigh } = more;
  const strategy = weigh
    ? { ...honest, weigh: ({ numExamples }: { numExamples: number }) => weigh(numExamples) }
    : honest;
  const manifest = federation.tensors;
  const fold = createFold(manifest, strategy);
  const context = { federation, manifest, state: replay([]), record() {} } as unknown as RunContext;
  // A hundred times the norm, and fifty times the examples that a weight of one stands for.
  const path = join(temporaryDir(), 'canary');
  const bytes = encodeFrame([tensor('w', [200, 0])]);
  writeFileSync(path, bytes);
  return async (names: readonly string[]): Promise<Float64Array> => {
    fold.clear(more.clip === false ? undefined : 2);
    for (const name of names) {
      const update = fold.begin({ name, numExamples: 500, metrics: {} }, bytes.length);
      update.write(bytes);
      await update.finish(path);
    }
    const { mean } = releaseMean(context, fold, fold.mean(), {
      round: 1,
      asked: 3,
      sites: names,
      random: more.words,
    });
    const out = new Float64Array(2);
    mean.read(0, out);
    return out;
  };
}

describe('an audit of the round that the coordinator plays', () => {
  /** The canary is in the releases of one half; they are made beforehand, as a release waits for the disk. */
  async function audit(more: Omit<Parameters<typeof audited>[0], 'words'>, trials: number) {
    const round = audited({ ...more, words: seededWords(trials) });
    const made = new Map<string, Float64Array[]>();
    for (const [key, names] of [
      ['without', []],
      ['with', ['canary']],
    ] as const) {
      const releases: Float64Array[] = [];
      for (let i = 0; i < trials; i++) releases.push(await round(names));
      made.set(key, releases);
    }
    return auditMechanism({
      release: (key: string) => made.get(key)!.pop()!,
      without: 'without',
      with: 'with',
      coordinate: 0,
      trials,
      claimedEpsilon: gaussianEpsilon(1, DELTA),
      delta: DELTA,
    });
  }

  it('finds no more than epsilon, and a good part of it', async () => {
    const { epsilonLowerBound, claimedEpsilon } = await audit({}, 2000);
    expect(epsilonLowerBound).toBeLessThan(claimedEpsilon);
    expect(epsilonLowerBound).toBeGreaterThan(0.3 * claimedEpsilon);
  });

  it.each([
    ['weights by examples', { weigh: (numExamples: number) => numExamples / 10 }],
    ['no clip at the coordinator', { clip: false }],
  ])('finds %s', async (_, bug) => {
    expect((await audit(bug, 1000)).verdict).toBe('refuted');
  });
});
