import { describe, expect, it } from 'vitest';
import { adds, startRun } from '../federation.ts';

describe('a wait', () => {
  it('for the quorum says who is here, who is missing, and what happens next', async () => {
    const run = await startRun({ rounds: 1, evaluation: { sites: false } });
    await run.join('a', { train: adds(1) });
    const running = run.coordinator.run();
    expect(await run.event('waiting', (e) => e.here.length === 1)).toMatchObject({
      here: ['a'],
      missing: 1,
      next: expect.stringContaining('round 1 starts when 1 more site is ready'),
    });
    await run.join('b', { train: adds(1) });
    expect(await running).toMatchObject({ reason: 'rounds' });
  });

  it('for a quorum that never comes ends the run as failed', async () => {
    const run = await startRun({ deadlines: { quorumSeconds: 0.05, rejoinSeconds: 0 } });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'failed', rounds: 0 });
  });

  it('for updates below the quorum is extended, then ends the run as failed', async () => {
    const run = await startRun({ deadlines: { roundSeconds: 0.05, extensions: 2, rejoinSeconds: 0 } });
    await run.join('a', { train: adds(1) });
    await run.join('b');
    const summary = await run.coordinator.run();
    expect(summary).toMatchObject({
      reason: 'failed',
      rounds: 0,
      message: expect.stringContaining('1 of at least 2 updates'),
    });
    // On a busy machine the first update may still be arriving when the time is up, which is told too.
    const extended = (e: { type: string; message?: string }) => /opened again/.test(e.message ?? '');
    expect(run.events.filter((e) => e.type === 'warning' && extended(e))).toHaveLength(2);
  });

  it('for a lost site lets it come back within the round', async () => {
    const run = await startRun({ rounds: 1, evaluation: { sites: false } });
    await run.join('a', { train: adds(1) });
    const lost = await run.join('b');
    const running = run.coordinator.run();
    await lost.until('plan');
    await lost.close();
    expect(
      await run.event(
        'waiting',
        (e) => e.round === 1 && e.missing === 1 && e.next.includes('b may come back'),
      ),
    ).toBeTruthy();
    await run.join('b', { credential: lost.credential, train: adds(3) });
    expect(await running).toMatchObject({ reason: 'rounds' });
    expect(run.events.find((e) => e.type === 'committed')).toMatchObject({ updates: 2 });
  });
});
