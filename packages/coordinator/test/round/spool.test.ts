import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { encodeFrame, readFrameHeader, sha256 } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import { createFold, fedAvg, readCheckpoint, runPaths } from '../../src/index.ts';
import { adds, artifact, startRun, temporaryDir, tensor } from '../federation.ts';

const CHUNK_BYTES = 8;
const frame = encodeFrame([tensor('dense/kernel', [1, 1, 1, 1], [2, 2]), tensor('dense/bias', [1])]);
const { headerBytes } = readFrameHeader(frame, frame.length)!;

/** The first `length` bytes of the update with its last byte changed, as a power cut may leave them. */
function torn(length: number): Uint8Array {
  const part = frame.slice(0, length);
  part[length - 1]! ^= 1;
  return part;
}

describe('the spool', () => {
  it.each([
    ['in the header', torn(64)],
    ['in a tensor of which the rest is still to come', torn(headerBytes + CHUNK_BYTES)],
    ['in the last tensor, with all of it there', torn(frame.length - CHUNK_BYTES)],
  ])('that a crash tore %s costs a second fetch, not the update', async (_where, left) => {
    const run = await startRun({ rounds: 1, evaluation: { sites: false } });
    const asked: number[] = [];
    const site = await run.join('a', {
      train() {
        const name = `${site.welcome.clientId}-${sha256(frame).slice(0, 16)}.update.part`;
        const path = join(runPaths(run.runDir).roundSpool(1), name);
        mkdirSync(dirname(path), { recursive: true });
        writeFileSync(path, left);
        return { numExamples: 10, frame, ref: { chunkBytes: CHUNK_BYTES } };
      },
      onChunk(message) {
        asked.push(message.index);
        const at = message.index * CHUNK_BYTES;
        return {
          message: { ...message, type: 'chunk-data' },
          body: frame.subarray(at, at + CHUNK_BYTES),
        };
      },
    });
    await run.join('b', { train: adds(1) });
    const summary = await run.coordinator.run();
    expect(run.events.filter((e) => e.type === 'update-refused')).toEqual([]);
    // The chunks that the torn file seemed to hold were asked for too.
    const chunks = Math.ceil(frame.length / CHUNK_BYTES);
    expect([...new Set(asked)].sort((a, b) => a - b)).toEqual(Array.from({ length: chunks }, (_, i) => i));
    const shapes = artifact.weights.map(({ name, shape }) => ({ name, shape }));
    const { tensors } = readCheckpoint(summary.lastCheckpoint, shapes);
    expect(tensors.map((t) => [...t.data])).toEqual([[2, 3, 4, 5], [1]]);
  });

  it('that is gone when an update must be taken out ends the run, for its sums are wrong', async () => {
    const strategy = fedAvg({
      seed: 1,
      cohortSize: 'all',
      training: {
        optimizer: { name: 'sgd', learningRate: 0.1, momentum: 0, nesterov: false },
        learningRateSchedule: { kind: 'constant' },
      },
    });
    const fold = createFold([{ name: 'w', shape: [1] }], strategy);
    const update = encodeFrame([tensor('w', [3])]);
    const incoming = fold.begin({ name: 'a', numExamples: 1, metrics: {} }, update.length);
    incoming.write(update);
    await expect(incoming.undo(join(temporaryDir(), 'gone'))).rejects.toMatchObject({
      code: 'FED_RUN_STORAGE',
      message: expect.stringContaining("can't be read back"),
    });
  });
});
