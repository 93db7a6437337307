/** Expelling sites, before, in and between the rounds of a run. */
import { describe, expect, it } from 'vitest';
import { revokeOffline, verifyRun } from '../../src/index.ts';
import { adds, records, startRun, type TestRun } from '../federation.ts';

const commits = (run: TestRun) =>
  records(run).flatMap((record) => (record.type === 'committed' ? [record] : []));
const namesIn = (run: TestRun) => commits(run).map(({ updates }) => updates.map(({ name }) => name));
const never = () => undefined;
const noEvaluation = { evaluation: { sites: false } } as const;

describe('an expelled site', () => {
  it('hears why, loses its link, and is let in by neither its key, its name nor its invite', async () => {
    const run = await startRun();
    const invite = run.coordinator.invite({ uses: 3 });
    const site = await run.join('a', { invite });
    run.coordinator.revoke('a', 'its labels were guessed');
    expect(await site.goodbye).toMatchObject({
      code: 'FED_JOIN_REVOKED',
      reason: expect.stringContaining('expelled "a" from this run: its labels were guessed'),
    });
    expect(await site.channel.closed).toContain('its labels were guessed');
    const { credential } = site;
    await expect(run.join('a', { credential })).rejects.toMatchObject({ code: 'FED_JOIN_REVOKED' });
    await expect(run.join('b', { credential, invite: run.coordinator.invite() })).rejects.toMatchObject({
      code: 'FED_JOIN_REVOKED',
    });
    await expect(run.join('b', { invite })).rejects.toMatchObject({ code: 'FED_INVITE_WITHDRAWN' });
    await expect(run.join('a')).rejects.toMatchObject({ code: 'FED_JOIN_NAME_TAKEN' });
    await run.join('b');
    expect(run.coordinator.status().members).toMatchObject([
      { name: 'a', publicKey: site.key.publicKey, revoked: { reason: 'its labels were guessed' } },
      { name: 'b', revoked: undefined, joinedAt: expect.any(Number) },
    ]);
  });

  it('is recorded once, and one that never joined is an error that names those that did', async () => {
    const run = await startRun();
    await run.join('a');
    for (const reason of ['first', 'second']) run.coordinator.revoke('a', reason);
    expect(records(run).filter(({ type }) => type === 'revoked')).toMatchObject([{ reason: 'first' }]);
    expect(() => run.coordinator.revoke('z', 'x')).toThrow(
      expect.objectContaining({
        code: 'FED_MEMBER_UNKNOWN',
        message: expect.stringContaining('joined: a'),
      }),
    );
  });

  it('stays out when the run goes on', async () => {
    const first = await startRun();
    const { credential } = await first.join('a');
    first.coordinator.revoke('a', 'x');
    await first.coordinator.close();
    const { runDir, transport } = first;
    const again = await startRun({}, { runDir, transport });
    await expect(again.join('a', { credential })).rejects.toMatchObject({ code: 'FED_JOIN_REVOKED' });
    expect(again.coordinator.status().clients).toEqual([]);
  });
});

describe('a round that loses a site', () => {
  it('drops its accepted update, and keeps those of the others', async () => {
    const run = await startRun({ rounds: 1, cohort: { quorum: 2 }, ...noEvaluation });
    await run.join('a', { train: adds(1) });
    await run.join('b', { train: adds(100) });
    let go: () => void = never;
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    const train = adds(3);
    await run.join('c', {
      async train(job) {
        await held;
        return train(job);
      },
    });
    const done = run.coordinator.run();
    for (const name of ['a', 'b']) await run.event('update-accepted', (event) => event.name === name);
    run.coordinator.revoke('b', 'x');
    go();
    await done;
    await run.coordinator.close();
    expect(namesIn(run)).toEqual([['a', 'c']]);
    // Ten examples each: the mean of 1 and 3. The update of "a" was folded in from the spool.
    expect(records(run).filter(({ type }) => type === 'update-accepted')).toHaveLength(3);
    expect(run.events.filter(({ type }) => type === 'update-accepted')).toHaveLength(3);
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true, rounds: 1, checkpoints: 2 });
  });

  it('with too few left, waits for others and is started once more with what it has', async () => {
    const run = await startRun({ rounds: 1, cohort: { quorum: 2 }, ...noEvaluation });
    await run.join('a', { train: adds(1) });
    const b = await run.join('b', { train: never });
    const done = run.coordinator.run();
    await run.event('update-accepted');
    await b.until('plan');
    run.coordinator.revoke('b', 'x');
    await run.event('waiting', ({ here }) => here.join() === 'a');
    await run.join('c', { train: adds(3) });
    await done;
    await run.coordinator.close();
    expect(namesIn(run)).toEqual([['a', 'c']]);
    expect(
      records(run).flatMap((record) => (record.type === 'round-started' ? [record.cohort] : [])),
    ).toEqual([
      ['a', 'b'],
      ['a', 'c'],
    ]);
    // "a" trained once.
    expect(records(run).filter(({ type }) => type === 'update-accepted')).toHaveLength(2);
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true, rounds: 1 });
  });

  it('is made anew without it also when its update is in the model already', async () => {
    const run = await startRun({ rounds: 2, cohort: { quorum: 2 } });
    for (const [name, step] of [
      ['a', 1],
      ['c', 3],
    ] as const)
      await run.join(name, { train: adds(step), evaluate: () => ({ numExamples: 1, metrics: { loss: 1 } }) });
    // Never answers the plan to evaluate, so the round waits for it with its update in the model.
    const b = await run.join('b', { train: adds(100), evaluate: never });
    const done = run.coordinator.run();
    await b.until('plan', ({ task }) => task === 'evaluate');
    run.coordinator.revoke('b', 'x');
    await done;
    await run.coordinator.close();
    expect(namesIn(run)).toEqual([
      ['a', 'c'],
      ['a', 'c'],
    ]);
    const report = verifyRun(run.runDir);
    expect(report).toMatchObject({ ok: true, rounds: 2, checkpoints: 3 });
    // As if it had never been there.
    const without = await startRun({ rounds: 2, cohort: { quorum: 2 } });
    for (const [name, step] of [
      ['a', 1],
      ['c', 3],
    ] as const)
      await without.join(name, {
        train: adds(step),
        evaluate: () => ({ numExamples: 1, metrics: { loss: 1 } }),
      });
    await without.coordinator.run();
    expect(commits(run).map(({ model }) => model)).toEqual(commits(without).map(({ model }) => model));
  });

  it('takes an update that comes while others are waited for once it is started again', async () => {
    const run = await startRun({ rounds: 1, cohort: { quorum: 3 }, ...noEvaluation });
    const a = await run.join('a', { train: never });
    for (const name of ['b', 'c']) await run.join(name, { train: never });
    const done = run.coordinator.run();
    done.catch(never);
    const { model } = await a.until('plan');
    run.coordinator.revoke('b', 'x');
    await run.event('waiting', ({ missing }) => missing === 1);
    const update = adds(1)({ global: [], round: 1 } as never);
    expect(await a.offer(1, model.digest, update)).toMatchObject({
      decision: 'refused',
      code: 'FED_UPDATE_ROUND',
    });
  });
});

describe('revoking in a run that nobody has open', () => {
  it('appends to the log, which still verifies, and holds when the run goes on', async () => {
    const first = await startRun();
    const { credential } = await first.join('a');
    await expect(revokeOffline(first.runDir, { name: 'a', reason: 'x' })).rejects.toMatchObject({
      code: 'FED_RUN_LOCKED',
    });
    await first.coordinator.close();
    expect(await revokeOffline(first.runDir, { name: 'a', reason: 'x' })).toBe(true);
    expect(await revokeOffline(first.runDir, { name: 'a', reason: 'x' })).toBe(false);
    expect(verifyRun(first.runDir)).toMatchObject({ ok: true });
    const { runDir, transport } = first;
    const again = await startRun({}, { runDir, transport });
    await expect(again.join('a', { credential })).rejects.toMatchObject({ code: 'FED_JOIN_REVOKED' });
  });
});
