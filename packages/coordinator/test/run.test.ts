import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { readCheckpoint } from '../src/index.ts';
import { adds, artifact, startRun } from './federation.ts';

describe('a run', () => {
  it('weights updates by numExamples, commits every round and says goodbye', async () => {
    const run = await startRun();
    const a = await run.join('a', {
      train: adds(1, 10),
      evaluate: () => ({ numExamples: 10, metrics: { loss: 1 } }),
    });
    const b = await run.join('b', {
      train: adds(4, 20),
      evaluate: () => ({ numExamples: 30, metrics: { loss: 2 } }),
    });
    const summary = await run.coordinator.run();

    // Each round adds (10 * 1 + 20 * 4) / 30 = 3, and there are two.
    const shapes = artifact.weights.map(({ name, shape }) => ({ name, shape }));
    const { tensors } = readCheckpoint(summary.lastCheckpoint, shapes);
    expect(tensors.map((t) => [...t.data])).toEqual([[7, 8, 9, 10], [6]]);
    // (10 * 1 + 30 * 2) / 40 = 1.75
    expect(summary).toMatchObject({ reason: 'rounds', rounds: 2, bestRound: 1, metrics: { loss: 1.75 } });
    expect(await a.goodbye).toMatchObject({ code: 'rounds' });
    expect(await b.goodbye).toMatchObject({ code: 'rounds' });
  });

  it('that can not listen says why, and leaves nothing that would keep its process alive', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    onTestFinished(() => void vi.useRealTimers());
    const transport = {
      ...createMemoryTransport(),
      listen: () => Promise.reject(new Error('the server is not there')),
    };
    await expect(startRun({}, { transport })).rejects.toThrow('the server is not there');
    expect(vi.getTimerCount()).toBe(0);
  });
});
