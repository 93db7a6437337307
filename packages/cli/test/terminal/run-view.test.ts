import type { RunEvent } from '@tributary/shared-protocol';
import pc from 'picocolors';
import { describe, expect, test } from 'vitest';
import { createRunView } from '../../src/terminal/run-view.ts';

function view(options: { quiet?: boolean } = {}) {
  const lines: string[] = [];
  const shown = createRunView({
    colours: pc.createColors(false),
    rounds: 12,
    print: (text) => lines.push(text),
    ...options,
  });
  return { lines, on: shown.on, live: shown.live };
}

const evaluated: RunEvent = {
  at: 3500,
  type: 'evaluated',
  round: 1,
  metrics: { loss: 0.5, accuracy: 0.9 },
  sites: [
    { name: 'b', numExamples: 10, metrics: { accuracy: 0.8 } },
    { name: 'a', numExamples: 10, metrics: { accuracy: 1 } },
  ],
  central: { loss: 0.4, accuracy: 0.85 },
};
const started: RunEvent = {
  at: 1000,
  type: 'round-started',
  round: 1,
  cohort: ['a', 'b'],
  modelBytes: 10,
  deadlineAt: null,
};
const committed: RunEvent = {
  at: 4000,
  type: 'committed',
  round: 1,
  digest: '',
  numExamples: 8500,
  updates: 2,
  seconds: 60,
  best: true,
};

describe('run view', () => {
  test('a round is one row: cohort, examples, loss, accuracy of all, of each site and central, and its own time', () => {
    const { lines, on } = view();
    for (const event of [started, evaluated, committed]) on(event);
    expect(lines).toEqual([
      '\n  round  cohort  examples    loss  accuracy       a       b  central    time',
      // 4000 - 1000 millis: the wait before the round (part of the 60 s) is not its work.
      '      1     2/2     8,500  0.5000    0.9000  1.0000  0.8000   0.8500   3.0 s ●',
    ]);
  });

  test('more sites than fit share the accuracy column', () => {
    const { lines, on } = view();
    const sites = Array.from({ length: 5 }, (_, i) => ({
      name: `site${i}`,
      numExamples: 1,
      metrics: { accuracy: 1 },
    }));
    for (const event of [started, { ...evaluated, sites }, committed]) on(event);
    expect(lines[0]).toBe('\n  round  cohort  examples    loss  accuracy  central    time');
  });

  test('a refused update is said at once, with its code', () => {
    const { lines, on } = view();
    on({
      at: 0,
      type: 'update-refused',
      round: 2,
      name: 'a',
      code: 'FED_UPDATE_NON_FINITE',
      reason: 'NaN in conv1/kernel',
    });
    expect(lines.join()).toContain('a: update of round 2 refused: NaN in conv1/kernel FED_UPDATE_NON_FINITE');
  });

  test('an unchanged wait is said once', () => {
    const { lines, on } = view();
    const waiting: RunEvent = {
      at: 0,
      type: 'waiting',
      round: 1,
      here: ['a'],
      missing: 1,
      next: 'round 1 starts',
    };
    on(waiting);
    on({ ...waiting, at: 5 });
    expect(lines).toEqual(['  … waiting (here: a): round 1 starts']);
  });

  test('live: a line a site; one whose update is in stays done though it rests', () => {
    const { on, live } = view();
    on(started);
    on({ at: 2000, type: 'progress', round: 1, name: 'a', state: 'training', progress: 0.5 });
    on({ at: 2000, type: 'update-accepted', round: 1, name: 'b', numExamples: 5, bytes: 2048, metrics: {} });
    on({ at: 2500, type: 'progress', round: 1, name: 'b', state: 'idle', progress: 0 });
    expect(live(3000)).toEqual([
      '',
      '  round 1 of 12  2.0 s',
      `  a  ${'█'.repeat(12)}${'·'.repeat(12)}  training`,
      `  b  ${'█'.repeat(24)}  done, 2.0 KiB received`,
    ]);
  });

  test('quiet: rows and warnings only', () => {
    const { lines, on } = view({ quiet: true });
    on({ at: 0, type: 'joined', clientId: 'x', name: 'a', rejoined: false });
    on({ at: 0, type: 'invite', invite: 'trib1.x', expiresAt: 0, uses: 1 });
    on({ at: 0, type: 'warning', message: 'the disk is nearly full' });
    expect(lines).toEqual(['  ! the disk is nearly full']);
  });
});
