/** What a run makes of its measurements: which checkpoint is the best, when to stop early, and numbers of its own. */
import { cpSync, existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createChannel, decodeFrame, PROTOCOL_VERSION, sha256 } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import { type FederationConfig, readCheckpoint, runPaths, verifyRunLog } from '../src/index.ts';
import { adds, artifact, startRun, type TestRun, temporaryDir } from './federation.ts';

const shapes = artifact.weights.map(({ name, shape }) => ({ name, shape }));
const alone = { cohort: { quorum: 1 } };
type Values = readonly Readonly<Record<string, number>>[];

/** A whole run of one site that adds 1 to every parameter; round r is measured there as `values[r - 1]`. */
async function play(values: Values, config: Partial<FederationConfig>) {
  const run = await startRun({ ...alone, rounds: values.length, ...config });
  const site = await run.join('a', {
    train: adds(1),
    evaluate: ({ round }) => ({ numExamples: 10, metrics: { ...values[round - 1] } }),
  });
  return { run, site, summary: await run.coordinator.run() };
}

/** A run that only its coordinator measures. */
async function playCentrally(values: Values, config: Partial<FederationConfig>) {
  let measured = 0;
  const run = await startRun(
    { ...alone, rounds: values.length, evaluation: { sites: false }, ...config },
    { evaluateCentrally: async () => ({ ...values[measured++] }) },
  );
  await run.join('a', { train: adds(1) });
  return { run, summary: await run.coordinator.run() };
}

const losses = (...values: number[]): Values => values.map((loss) => ({ loss }));

function commitsOf(run: TestRun) {
  const log = verifyRunLog(runPaths(run.runDir).log, run.coordinator.logPublicKey);
  return log.flatMap((record) => (record.type === 'committed' ? [record] : []));
}

function weightsAt(path: string): number[] {
  return readCheckpoint(path, shapes).tensors.flatMap((t) => [...t.data].map(Number));
}

/** The initial weights, each plus `sum`. */
const initialPlus = (sum: number) => [1, 2, 3, 4, 0].map((weight) => weight + sum);

describe('the best checkpoint', () => {
  it.each([
    ['the lowest loss unless said', losses(3, 1, 2), {}, [true, true, false]],
    [
      'the highest of a metric in mode max',
      [0.2, 0.9, 0.5].map((accuracy) => ({ accuracy })),
      { best: { metric: 'accuracy', mode: 'max' } },
      [true, true, false],
    ],
    ['the first of equal ones, mode min', losses(2, 1, 1, 3, 1), {}, [true, true, false, false, false]],
    [
      'the first of equal ones, mode max',
      losses(2, 2, 1),
      { best: { metric: 'loss', mode: 'max' } },
      [true, false, false],
    ],
    ['the last one while nothing was measured', [{}, {}, {}], {}, [true, true, true]],
    [
      'the first that was measured, once anything is',
      [{}, { loss: 5 }, {}, { loss: 6 }],
      {},
      [true, true, false, false],
    ],
    [
      'by the chosen metric and no other',
      [
        { loss: 1, accuracy: 0.1 },
        { loss: 2, accuracy: 0.2 },
      ],
      { best: { metric: 'accuracy', mode: 'max' } },
      [true, true],
    ],
  ] as const)('is %s', async (_what, values, config, best) => {
    const { run, summary } = await play(values, config);
    expect(run.events.flatMap((e) => (e.type === 'committed' ? [e.best] : []))).toEqual(best);
    expect(commitsOf(run).map((c) => c.best)).toEqual(best);
    const round = best.lastIndexOf(true) + 1;
    expect(summary).toMatchObject({ reason: 'rounds', rounds: values.length, bestRound: round });
    expect(run.coordinator.status().bestRound).toBe(round);
    // The file is kept to the end, and is that round's: one was added a round.
    expect(weightsAt(summary.bestCheckpoint)).toEqual(initialPlus(round));
    expect(weightsAt(summary.lastCheckpoint)).toEqual(initialPlus(values.length));
  });

  it('goes by the central evaluation where there is one, whatever the sites measure', async () => {
    const central = [1, 3, 2];
    const run = await startRun(
      { ...alone, rounds: 3 },
      { evaluateCentrally: async () => ({ loss: central.shift()! }) },
    );
    await run.join('a', {
      train: adds(1),
      evaluate: ({ round }) => ({ numExamples: 10, metrics: { loss: 10 - round } }),
    });
    expect(await run.coordinator.run()).toMatchObject({ bestRound: 1, metrics: { loss: 2 } });
  });

  it('is never one whose metric is not a number', async () => {
    const { summary } = await playCentrally(losses(2, Number.NaN, 3), {});
    expect(summary.bestRound).toBe(1);
  });

  it('is the same after a restart', async () => {
    const runDir = temporaryDir();
    const stop = new AbortController();
    const values = [2, 1, 3];
    const evaluateCentrally = async () => ({ loss: values.shift()! });
    const config = { ...alone, rounds: 3, evaluation: { sites: false } };
    const first = await startRun(config, {
      runDir,
      evaluateCentrally,
      signal: stop.signal,
      onEvent: (e) => e.type === 'committed' && e.round === 2 && stop.abort(),
    });
    const { credential } = await first.join('a', { train: adds(1) });
    expect(await first.coordinator.run()).toMatchObject({ reason: 'stopped', rounds: 2, bestRound: 2 });
    await first.coordinator.close();

    const second = await startRun(config, { runDir, evaluateCentrally });
    await second.join('a', { credential, train: adds(1) });
    expect(await second.coordinator.run()).toMatchObject({ reason: 'rounds', rounds: 3, bestRound: 2 });
  });
});

describe('early stopping', () => {
  const patient = (patience: number, more: object = {}) => ({ earlyStopping: { patience, ...more } });

  it.each([
    [
      'after as many evaluations without an improvement as its patience',
      losses(3, 2, 2.5, 2, 1),
      patient(2),
      4,
    ],
    [
      'in mode max',
      [0.5, 0.4, 0.9].map((accuracy) => ({ accuracy })),
      patient(1, { metric: 'accuracy', mode: 'max' }),
      2,
    ],
    // 1 to 0.95 to 0.91: neither is better than 1 by more than 0.1.
    [
      'when improvements are not larger than minDelta',
      losses(1, 0.95, 0.91, 0),
      patient(2, { minDelta: 0.1 }),
      3,
    ],
    // Measured in rounds 2 (1) and 4 (2).
    [
      'counting only rounds that were evaluated',
      losses(9, 1, 9, 2, 9, 0),
      { ...patient(1), evaluation: { everyRounds: 2 } },
      4,
    ],
    [
      'counting only rounds that report its metric',
      [{ loss: 1 }, {}, {}, { loss: 2 }, { loss: 0 }],
      patient(1),
      4,
    ],
  ] as const)('ends the run %s', async (_what, values, config, rounds) => {
    const { run, site, summary } = await play(values, config);
    expect(summary).toMatchObject({ reason: 'early-stopping', rounds });
    expect(commitsOf(run)).toHaveLength(rounds);
    expect(run.events.at(-1)).toMatchObject({ type: 'finished', reason: 'early-stopping', round: rounds });
    expect(await site.goodbye).toMatchObject({
      code: 'early-stopping',
      reason: `no improvement in ${config.earlyStopping.patience} evaluations; the best model is that of round ${summary.bestRound}`,
    });
  });

  it('lets a run that keeps improving play all rounds', async () => {
    // Two in a row without an improvement never come.
    const { summary } = await play(losses(5, 6, 4, 4.5, 3), patient(2));
    expect(summary).toMatchObject({ reason: 'rounds', rounds: 5, bestRound: 5 });
  });

  it('goes by the central evaluation where there is one', async () => {
    const { summary } = await playCentrally(losses(1, 2, 0), patient(1));
    expect(summary).toMatchObject({ reason: 'early-stopping', rounds: 2 });
  });

  it('holds when the coordinator is killed between the commit and the end', async () => {
    const [runDir, atCommit] = [temporaryDir(), temporaryDir()];
    const config = {
      ...alone,
      rounds: 5,
      ...patient(1),
      evaluation: { sites: false },
      deadlines: { rejoinSeconds: 0 },
    };
    const values = [1, 2];
    const run = await startRun(config, {
      runDir,
      evaluateCentrally: async () => ({ loss: values.shift()! }),
      // What a kill right after the second commit leaves: the directory as it is then, without its lock.
      onEvent(event) {
        if (event.type !== 'committed' || event.round !== 2) return;
        cpSync(runDir, atCommit, { recursive: true });
        rmSync(runPaths(atCommit).lock);
      },
    });
    await run.join('a', { train: adds(1) });
    await run.coordinator.run();

    // Nobody is there, and nobody is needed: no round is opened.
    const again = await startRun(config, { runDir: atCommit });
    expect(await again.coordinator.run()).toMatchObject({
      reason: 'early-stopping',
      rounds: 2,
      bestRound: 1,
    });
    expect(again.events.filter((e) => e.type === 'round-started')).toEqual([]);

    // And the run that has ended stays ended.
    await again.coordinator.close();
    const later = await startRun(config, { runDir: atCommit });
    expect(await later.coordinator.run()).toMatchObject({ reason: 'early-stopping', rounds: 2 });
  });
});

describe('the central evaluation', () => {
  it('measures the weights that are committed, and its numbers are in record, event, status and file', async () => {
    const seen: string[] = [];
    const files: string[] = [];
    const left: string[] = [];
    const run = await startRun(
      { ...alone, rounds: 2 },
      {
        onEvent: (e) => e.type === 'evaluated' && left.push(...files.filter(existsSync)),
        async evaluateCentrally(file) {
          const bytes = readFileSync(file);
          files.push(file);
          seen.push(sha256(bytes));
          const sum = decodeFrame(bytes)
            .tensors.flatMap((t) => [...t.data].map(Number))
            .reduce((a, b) => a + b);
          return { loss: sum, accuracy: 0.5 };
        },
      },
    );
    await run.join('a', { train: adds(1), evaluate: () => ({ numExamples: 10, metrics: { loss: 7 } }) });
    const summary = await run.coordinator.run();

    // 1 + 2 + 3 + 4 + 0 = 10, and five more a round.
    const expected = [15, 20].map((loss) => ({ loss, accuracy: 0.5 }));
    const commits = commitsOf(run);
    expect(commits.map((c) => c.centralMetrics)).toEqual(expected);
    expect(commits.map((c) => c.siteMetrics)).toEqual([{ loss: 7 }, { loss: 7 }]);
    expect(commits.map((c) => c.model)).toEqual(seen);
    const evaluated = run.events.flatMap((e) => (e.type === 'evaluated' ? [e] : []));
    expect(evaluated.map((e) => e.central)).toEqual(expected);
    expect(evaluated.map((e) => e.metrics)).toEqual([{ loss: 7 }, { loss: 7 }]);
    const written = readFileSync(runPaths(run.runDir).metrics, 'utf8').trim().split('\n');
    const lines = written.map((line) => JSON.parse(line) as { type: string; central?: unknown });
    expect(lines.filter((e) => e.type === 'evaluated').map((e) => e.central)).toEqual(expected);
    expect(summary.metrics).toEqual(expected[1]);
    expect(await statusOverTheWire(run)).toMatchObject({ round: 2, metrics: expected[1], bestRound: 1 });
    expect(left).toEqual([]);
  });

  it('is made in the rounds that are evaluated, and status shows the last of them', async () => {
    const values = [4, 3];
    const run = await startRun(
      { ...alone, rounds: 5, evaluation: { sites: false, everyRounds: 3 } },
      { evaluateCentrally: async () => ({ loss: values.shift()! }) },
    );
    await run.join('a', { train: adds(1) });
    const fifth = run.event('round-started', (e) => e.round === 5);
    const running = run.coordinator.run();
    await fifth;
    expect(run.coordinator.status().metrics).toEqual({ loss: 4 });
    await running;
    // The third, and the last as always.
    expect(commitsOf(run).map((c) => c.centralMetrics)).toEqual([null, null, { loss: 4 }, null, { loss: 3 }]);
    expect(run.coordinator.status().metrics).toEqual({ loss: 3 });
  });

  it('that fails ends the call before the commit; the same call takes the round up again', async () => {
    const runDir = temporaryDir();
    const config = { ...alone, rounds: 2, evaluation: { sites: false } };
    const first = await startRun(config, {
      runDir,
      evaluateCentrally: async () => {
        throw new Error('the test images are gone');
      },
    });
    const { credential } = await first.join('a', { train: adds(1) });
    await expect(first.coordinator.run()).rejects.toThrow('the test images are gone');
    expect(commitsOf(first)).toEqual([]);
    await first.coordinator.close();

    const second = await startRun(config, { runDir, evaluateCentrally: async () => ({ loss: 1 }) });
    const site = await second.join('a', { credential, train: adds(1) });
    const summary = await second.coordinator.run();
    expect(summary).toMatchObject({ reason: 'rounds', rounds: 2 });
    expect(weightsAt(summary.lastCheckpoint)).toEqual(initialPlus(2));
    // The first round's update was kept: only the second was asked for.
    expect(site.plans.map(({ task, round }) => ({ task, round }))).toEqual([{ task: 'train', round: 2 }]);
  });

  it('during which the run is paused is the last thing that happens: no site is asked any more', async () => {
    const stop = new AbortController();
    const run = await startRun(
      { ...alone, rounds: 1 },
      {
        signal: stop.signal,
        async evaluateCentrally() {
          stop.abort();
          return { loss: 1 };
        },
      },
    );
    // It never answers an evaluation: waiting for it would take the whole deadline.
    const site = await run.join('a', { train: adds(1), site: { testExamples: 10 } });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'stopped', rounds: 0 });
    expect(site.plans.map((p) => p.task)).toEqual(['train']);
  });
});

/** The status as `tributary status` gets it: over a link, with the operator's credential. */
async function statusOverTheWire(run: TestRun): Promise<unknown> {
  const channel = createChannel(await run.transport.connect(run.coordinator.url));
  const credential = readFileSync(join(run.runDir, 'admin.key'), 'utf8').trim();
  await channel.call(
    {
      type: 'hello',
      protocol: PROTOCOL_VERSION,
      software: 'test',
      role: 'admin',
      name: 'admin',
      credential,
      clockMs: Date.now(),
    },
    'welcome',
  );
  const { status } = await channel.call({ type: 'get-status' }, 'status');
  await channel.close();
  return status;
}
