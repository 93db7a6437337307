import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  createStrategy,
  type FederationConfig,
  type MeanUpdate,
  type ModelArtifact,
  readCheckpoint,
  resolveFederation,
  runPaths,
  type StreamingStrategy,
} from '../../src/index.ts';
import { adds, artifact, baseConfig, startRun, temporaryDir, tensor } from '../federation.ts';

type StrategyConfig = NonNullable<FederationConfig['strategy']>;

function strategyFor(strategy: StrategyConfig, model: ModelArtifact = artifact): StreamingStrategy {
  return createStrategy(resolveFederation({ ...baseConfig, strategy }, model));
}

/** A mean that is given as it is. */
function meanOf(update: readonly number[]): MeanUpdate {
  return {
    updates: 1,
    totalWeight: 1,
    read: (offset, out) => out.set(update.slice(offset, offset + out.length)),
  };
}

const w = [tensor('w', [0, 0, 0])];

describe('server optimizers', () => {
  // Two rounds from 0, in which the sites' weights average [1, -2, 0.5], then [0.5, -1, 0.5]. With m and v from 0, the
  // first round is easy to follow: FedAvgM 1; FedAdagrad 0.1 * 1 / (1 + 0.001) = 0.0999; FedAdam and FedYogi have
  // m = 0.1, v = 0.01, so FedAdam 0.1 * 0.1 / (0.1 + 0.001) = 0.0990, FedYogi a tenth of it.
  it.each<[StrategyConfig, number[], number[]]>([
    [{ name: 'fed-avg-m' }, [1, -2, 0.5], [1.4, -2.8, 0.95]],
    [
      { name: 'fed-adagrad' },
      [0.0999000999, -0.099950025, 0.0998003992],
      [0.1370127062, -0.1409696845, 0.1621914864],
    ],
    [
      { name: 'fed-adam' },
      [0.099009901, -0.0995024876, 0.0980392157],
      [0.2191659685, -0.2225747102, 0.2291932903],
    ],
    // The first step times sqrt(1 - 0.99^2) / (1 - 0.9^2) = 0.74246.
    [
      { name: 'fed-adam', biasCorrection: 'flower' },
      [0.0735108701, -0.0738765959, 0.0727901753],
      [0.1507224735, -0.1525028416, 0.1565833166],
    ],
    [
      { name: 'fed-yogi' },
      [0.0099009901, -0.0099502488, 0.0098039216],
      [0.0222723666, -0.0223967385, 0.0230422289],
    ],
  ])('%j: two rounds with its defaults', (plan, first, second) => {
    const strategy = strategyFor(plan);
    const weights = new Float32Array(3);
    let state = strategy.init(w);
    for (const [average, expected] of [
      [[1, -2, 0.5], first],
      [[0.5, -1, 0.5], second],
    ] as const) {
      const update = average.map((value, i) => value - weights[i]!);
      state = strategy.aggregateTrain(state, [weights], meanOf(update));
      expect([...weights]).toEqual(expected.map((value) => expect.closeTo(value, 6)));
    }
    expect(state.numbers).toEqual({ rounds: 2 });
  });

  it.each<StrategyConfig['name']>(['fed-avg-m', 'fed-adagrad', 'fed-adam', 'fed-yogi'])(
    '%s: the state given is not changed, and the same round again gives the same bits',
    (name) => {
      const strategy = strategyFor({ name });
      const once = strategy.aggregateTrain(strategy.init(w), [new Float32Array(3)], meanOf([1, 2, 3]));
      const kept = structuredClone(once);
      const [a, b] = [new Float32Array(3), new Float32Array(3)];
      const next = [a, b].map((weights) => strategy.aggregateTrain(once, [weights], meanOf([3, 0.1, -2])));
      expect(once).toEqual(kept);
      expect(a).toEqual(b);
      expect(next[0]).toEqual(next[1]);
      expect(next[0]).not.toEqual(once);
    },
  );

  it('an update of zeros moves nothing, and divides by no zero', () => {
    for (const name of ['fed-avg-m', 'fed-adagrad', 'fed-adam', 'fed-yogi'] as const) {
      const strategy = strategyFor({ name });
      const weights = Float32Array.of(1, -2, 3);
      strategy.aggregateTrain(strategy.init(w), [weights], meanOf([0, 0, 0]));
      expect([...weights], name).toEqual([1, -2, 3]);
    }
  });

  it('running statistics of a batch normalisation are averaged, whatever the optimizer does to the rest', () => {
    const model = {
      ...artifact,
      weights: [
        tensor('d/kernel', [1, 1]),
        tensor('norm/moving_mean', [1]),
        tensor('norm/moving_variance', [4]),
        tensor('norm/gamma', [1]),
      ],
      // The order of what is trained differs from that of the model.
      frozenWeights: ['d/kernel'],
    };
    const strategy = strategyFor({ name: 'fed-adam' }, model);
    const weights = model.weights.slice(1).map((t) => Float32Array.from(t.data as Float32Array));
    const state = strategy.init(model.weights.slice(1));
    strategy.aggregateTrain(state, weights, meanOf([0.5, -3, 1]));
    expect([...weights[0]!]).toEqual([1.5]);
    expect([...weights[1]!]).toEqual([1]);
    // 1 + 0.1 * 0.1 / (0.1 + 0.001)
    expect(weights[2]![0]).toBeCloseTo(1.0990099, 6);
  });

  it('many blocks and tensors: each parameter has its own memory', () => {
    const sizes = [20_000, 1, 40_000];
    const model = {
      ...artifact,
      weights: sizes.map((size, i) => tensor(`t${i}`, new Array<number>(size).fill(0))),
    };
    const strategy = strategyFor({ name: 'fed-avg-m', serverMomentum: 0.5 }, model);
    const weights = sizes.map((size) => new Float32Array(size));
    const update = Array.from({ length: 60_001 }, (_, i) => i);
    let state = strategy.init(model.weights);
    for (let round = 0; round < 2; round++) state = strategy.aggregateTrain(state, weights, meanOf(update));
    // i, then 0.5 i + i more.
    const all = weights.flatMap((values) => [...values]);
    expect(all).toEqual(update.map((i) => Math.fround(2.5 * i)));
  });
});

describe('a run with a server optimizer', () => {
  const config = {
    rounds: 3,
    cohort: { quorum: 2 },
    evaluation: { sites: false },
    strategy: { name: 'fed-adam' },
  } as const;
  const model = { ...artifact, frozenWeights: ['dense/bias'] };

  /** Plays the run in `runDir` until `stopAfter` has been committed, with sites that come back. */
  async function play(runDir: string, stopAfter?: number) {
    const stop = new AbortController();
    const run = await startRun(config, {
      runDir,
      model,
      signal: stop.signal,
      onEvent: (event) => event.type === 'committed' && event.round === stopAfter && stop.abort(),
    });
    const known = new Map(
      run.coordinator.status().clients.map(({ name }) => [name, `credential of ${name}`]),
    );
    for (const [name, step] of [
      ['a', 0.25],
      ['b', -1],
    ] as const) {
      const train = adds(step, step > 0 ? 30 : 10);
      await run.join(name, {
        train: (job) => {
          const update = train(job) as ReturnType<typeof train> & { tensors: { name: string }[] };
          return { ...update, tensors: update.tensors!.filter((t) => t.name !== 'dense/bias') };
        },
        credential: `credential of ${name}`,
        ...(known.has(name) ? {} : { invite: run.coordinator.invite() }),
      });
    }
    const summary = await run.coordinator.run();
    await run.coordinator.close();
    return summary;
  }

  it('keeps its memory in the checkpoint: paused and gone on with, it ends in the same bytes', async () => {
    const [whole, parted] = [temporaryDir(), temporaryDir()];
    expect(await play(whole)).toMatchObject({ reason: 'rounds', rounds: 3 });
    expect(await play(parted, 2)).toMatchObject({ reason: 'stopped', rounds: 2 });
    expect(await play(parted)).toMatchObject({ reason: 'rounds', rounds: 3 });
    const bytes = (dir: string) => readFileSync(runPaths(dir).checkpoint(3));
    expect(bytes(parted).equals(bytes(whole))).toBe(true);

    const shapes = artifact.weights.map(({ name, shape }) => ({ name, shape }));
    const { tensors, state } = readCheckpoint(runPaths(whole).checkpoint(3), shapes);
    // Four trained parameters; the frozen bias has no memory and does not move.
    expect(state.tensors.map(({ name, shape }) => ({ name, shape }))).toEqual([
      { name: 'm', shape: [4] },
      { name: 'v', shape: [4] },
    ]);
    expect(state.numbers).toEqual({ rounds: 3 });
    expect([...tensors[1]!.data]).toEqual([0]);
    // Each round's mean is (30 * 0.25 - 10) / 40 = -1/16, so the kernel went down, the same at every place.
    const moved = [...(tensors[0]!.data as Float32Array)].map((value, i) => value - (i + 1));
    expect(moved.every((value) => value < -0.1)).toBe(true);
    expect(Math.max(...moved) - Math.min(...moved)).toBeLessThan(1e-6);
  });

  it('refuses a checkpoint whose memory is not its own', async () => {
    const strategy = strategyFor({ name: 'fed-adam' });
    const state = { tensors: [tensor('m', [0])], numbers: {} };
    expect(() => strategy.aggregateTrain(state, [new Float32Array(3)], meanOf([1, 1, 1]))).toThrow(
      'strategy state should hold "m" with 3 values and holds 1',
    );
  });
});

describe('the configuration of a strategy', () => {
  const resolved = (strategy: object) =>
    resolveFederation({ ...baseConfig, strategy: strategy as StrategyConfig }, artifact).strategy;

  it('has the defaults that docs/how-to/strategies.md names', () => {
    const page = readFileSync(join(import.meta.dirname, '../../../../docs/how-to/strategies.md'), 'utf8');
    const rows = [...page.matchAll(/^\| `(fed-[a-z-]+)` \|[^|]*\| ([^|]*) \|$/gm)];
    expect(rows.map(([, name]) => name)).toEqual([
      'fed-avg',
      'fed-avg-m',
      'fed-adagrad',
      'fed-adam',
      'fed-yogi',
    ]);
    for (const [, name, cell] of rows) {
      const told = Object.fromEntries(
        [...cell!.matchAll(/`(\w+)` ([^,]+)/g)].map(([, key, value]) => [
          key,
          Number.isNaN(Number(value)) ? value!.replaceAll('`', '').trim() : Number(value),
        ]),
      );
      const { name: _name, weighting: _weighting, ...own } = resolved({ name });
      expect(told, name).toEqual(own);
    }
  });

  it('names an option that is another strategy’s, and a value out of range', () => {
    expect(() => resolved({ name: 'fed-avg', tau: 1 })).toThrow('strategy.tau');
    expect(() => resolved({ name: 'fed-adam', beta1: 1 })).toThrow('strategy.beta1');
    expect(() => resolved({ name: 'fed-adams' })).toThrow('did you mean "fed-adam"?');
    expect(() => resolved({ name: 'fed-yogi', serverLearningRate: 0 })).toThrow(
      'strategy.serverLearningRate',
    );
  });
});
