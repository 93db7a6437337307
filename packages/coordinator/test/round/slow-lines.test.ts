import { encodeFrame, type MessageOf } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import { adds, startRun, tensor } from '../federation.ts';

/** One site of two suffices; both are there when the round begins. */
const oneOfTwo = { rounds: 1, cohort: { quorum: 1 }, evaluation: { sites: false } };
const CHUNK_BYTES = 64;
const frame = encodeFrame([tensor('dense/kernel', [1, 1, 1, 1], [2, 2]), tensor('dense/bias', [1])]);

function chunk(message: MessageOf<'chunk'>) {
  const at = message.index * CHUNK_BYTES;
  return {
    message: { ...message, type: 'chunk-data' as const },
    body: frame.subarray(at, at + CHUNK_BYTES),
  };
}

describe('an update on a slow line', () => {
  it('that is arriving when the time of the round is up still counts', async () => {
    const run = await startRun({ ...oneOfTwo, deadlines: { roundSeconds: 2 } });
    await run.join('quick', { train: adds(1) });
    await run.join('slow', {
      train: () => ({ numExamples: 10, frame, ref: { chunkBytes: CHUNK_BYTES } }),
      async onChunk(message) {
        // The first has arrived; the others come once the time is up.
        if (message.index > 0) await run.event('warning');
        return chunk(message);
      },
    });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    expect(run.events.find((e) => e.type === 'committed')).toMatchObject({ updates: 2 });
    expect(run.events.flatMap((e) => (e.type === 'warning' ? [e.message] : []))).toEqual([
      expect.stringContaining('the update of slow is still arriving; the round stays open while it moves'),
    ]);
  });

  it('holds the round up no longer than it may last anyway', async () => {
    const run = await startRun({ ...oneOfTwo, deadlines: { roundSeconds: 0.2 } });
    await run.join('quick', { train: adds(1) });
    await run.join('slow', {
      train: () => ({ numExamples: 10, frame, ref: { chunkBytes: CHUNK_BYTES } }),
      async onChunk(message) {
        if (message.index > 0) await run.event('committed');
        return chunk(message);
      },
    });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    expect(run.events.find((e) => e.type === 'committed')).toMatchObject({ updates: 1 });
    expect(run.events.find((e) => e.type === 'update-refused')).toMatchObject({
      name: 'slow',
      code: 'FED_UPDATE_LATE',
    });
  });

  it('that is offered twice over one link is fetched once', async () => {
    const run = await startRun({ rounds: 1, cohort: { quorum: 1 }, evaluation: { sites: false } });
    const update = { numExamples: 10, frame, ref: { chunkBytes: CHUNK_BYTES } };
    const asked: number[] = [];
    const site = await run.join('slow', {
      train: () => update,
      async onChunk(message) {
        asked.push(message.index);
        if (message.index === 1) {
          const { model } = await site.until('plan');
          expect(await site.offer(1, model.digest, update)).toMatchObject({ decision: 'send' });
        }
        return chunk(message);
      },
    });
    expect(await run.coordinator.run()).toMatchObject({ reason: 'rounds' });
    const chunks = Math.ceil(frame.length / CHUNK_BYTES);
    expect(asked.sort((a, b) => a - b)).toEqual(Array.from({ length: chunks }, (_, i) => i));
  });
});
