/** The bad line of `npm run chaos -- --slow-link`, with a tenth of the update and seconds in place of minutes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { playSlowLink, SLOW_LINK } from './harness/slow-link.ts';
import { openStage } from './harness/stage.ts';

test('an update of 10 MB over 10 Mbit/s, with loss and a cut, arrives without a chunk that had arrived being sent again', async () => {
  const root = await mkdtemp(join(tmpdir(), 'tributary-slow-'));
  const stage = await openStage({ root, diskKind: 'none' });
  onTestFinished(async () => {
    await stage.close();
    await rm(root, { recursive: true, force: true });
  });
  // A site is taken for lost after three heartbeats: the cut is longer, so another link has to take over.
  const report = await playSlowLink(
    stage,
    {
      ...SLOW_LINK,
      updateBytes: SLOW_LINK.updateBytes / 10,
      chunkBytes: SLOW_LINK.chunkBytes / 4,
      heartbeatSeconds: 1,
      cutMs: 5000,
    },
    { limitMs: 150_000 },
  );
  expect(report.violations).toEqual([]);
  // Every chunk, and again those that were on the line when it was cut: the window of 4, on each further link.
  expect(report.asked).toBeGreaterThanOrEqual(report.chunks);
  expect(report.asked).toBeLessThanOrEqual(report.chunks + 4 * (report.links - 1));
}, 200_000);
