import { describe, expect, it } from 'vitest';
import { readCheckpoint, runPaths, verifyRunLog } from '../../src/index.ts';
import { adds, artifact, startRun, type TestRun } from '../federation.ts';

const shapes = artifact.weights.map(({ name, shape }) => ({ name, shape }));
/** Of three sites two suffice: 0.6 * 3 = 1.8, rounded up. */
const twoOfThree = { rounds: 2, cohort: { quorum: 2, target: 0.6 }, evaluation: { sites: false } };

function refusalsOf(run: TestRun) {
  const log = verifyRunLog(runPaths(run.runDir).log, run.coordinator.logPublicKey);
  return log.flatMap((record) => (record.type === 'update-refused' ? [record] : []));
}

function commitsOf(run: TestRun) {
  return run.events.flatMap((e) => (e.type === 'committed' ? [e.updates] : []));
}

/** A promise and what resolves it. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

describe('a straggler past the target', () => {
  it('that offers once the round has closed is late, is told so, and is in the next round', async () => {
    const evaluated = gate();
    const run = await startRun(twoOfThree, {
      evaluateCentrally: async () => {
        await evaluated.opened;
        return { loss: 1 };
      },
    });
    await run.join('a', { train: adds(1) });
    await run.join('b', { train: adds(1) });
    // It has its plan for the first round and says nothing; the second it follows.
    const slow = await run.join('slow', { train: (job) => (job.round === 1 ? undefined : adds(7)(job)) });
    const running = run.coordinator.run();
    const { model } = await slow.until('plan');
    await Promise.all(['a', 'b'].map((name) => run.event('update-accepted', (e) => e.name === name)));

    const late = { numExamples: 10, tensors: artifact.weights };
    const receipt = await slow.offer(1, model.digest, late);
    expect(receipt).toMatchObject({
      decision: 'refused',
      code: 'FED_UPDATE_LATE',
      reason: 'round 1 has closed without this update; the next plan brings a new model',
    });
    expect(refusalsOf(run)).toMatchObject([
      { round: 1, name: 'slow', code: 'FED_UPDATE_LATE', reason: receipt.reason },
    ]);
    expect(run.events.find((e) => e.type === 'update-refused')).toMatchObject({
      name: 'slow',
      code: 'FED_UPDATE_LATE',
      reason: receipt.reason,
    });

    evaluated.open();
    const summary = await running;
    expect(summary).toMatchObject({ reason: 'rounds', rounds: 2 });
    expect(run.events.flatMap((e) => (e.type === 'round-started' ? [e.cohort] : []))).toEqual([
      ['a', 'b', 'slow'],
      ['a', 'b', 'slow'],
    ]);
    expect(commitsOf(run)[0]).toBe(2);
    // The late weights are nowhere: the first round added 1 to the bias, which was 0.
    const { tensors } = readCheckpoint(runPaths(run.runDir).checkpoint(1), shapes);
    expect([...tensors[1]!.data]).toEqual([1]);
  });

  it('whose bytes are on their way when the round closes hears it by a verdict', async () => {
    const stuck = gate();
    const run = await startRun(twoOfThree);
    // The honest ones wait until its first chunk has been asked for.
    const asked = gate();
    const quick = (name: string) =>
      run.join(name, {
        async train(job) {
          await asked.opened;
          return adds(1)(job);
        },
      });
    await quick('a');
    await quick('b');
    const slow = await run.join('slow', {
      train: (job) => (job.round === 1 ? adds(100)(job) : undefined),
      async onChunk(message, body) {
        asked.open();
        await stuck.opened;
        return { message, body };
      },
    });
    const summary = await run.coordinator.run();
    stuck.open();
    expect(await slow.until('verdict')).toMatchObject({
      round: 1,
      accepted: false,
      code: 'FED_UPDATE_LATE',
      reason: 'round 1 closed before all of this update was here',
    });
    expect(summary).toMatchObject({ reason: 'rounds', rounds: 2 });
    expect(commitsOf(run)).toEqual([2, 2]);
    expect(refusalsOf(run)).toMatchObject([{ round: 1, name: 'slow', code: 'FED_UPDATE_LATE' }]);
    const { tensors } = readCheckpoint(summary.lastCheckpoint, shapes);
    expect([...tensors[1]!.data]).toEqual([2]);
  });

  it('that comes when another round is open is stale', async () => {
    const run = await startRun(twoOfThree);
    const second = gate();
    const quick = (name: string) =>
      run.join(name, {
        async train(job) {
          if (job.round === 2) await second.opened;
          return adds(1)(job);
        },
      });
    await quick('a');
    await quick('b');
    const slow = await run.join('slow');
    const running = run.coordinator.run();
    const { model } = await slow.until('plan');
    await slow.until('plan', (plan) => plan.round === 2);
    const receipt = await slow.offer(1, model.digest, { numExamples: 10, tensors: artifact.weights });
    expect(receipt).toMatchObject({ decision: 'refused', code: 'FED_UPDATE_STALE' });
    expect(refusalsOf(run)).toMatchObject([
      { name: 'slow', code: 'FED_UPDATE_STALE', reason: receipt.reason },
    ]);
    second.open();
    expect(await running).toMatchObject({ reason: 'rounds', rounds: 2 });
    expect(commitsOf(run)).toEqual([2, 2]);
  });
});
