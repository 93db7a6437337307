/**
 * A trainer that is quick and exact: its update is a fixed function of (global weights, site, round), as the real
 * one's is, so that runs can be compared bit by bit without paying for a real training step at every kill.
 */
import { createHash } from 'node:crypto';
import { open, readFile, rename } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { decodeFrame, encodeFrame, type Tensor } from '@tributary/shared-protocol';
import type { StartTrainer } from '@tributary/worker';

/** The same, which takes its time over an update, so that a fault can find it at work. */
export function slowFakeTrainer(trainMs: number): StartTrainer {
  return async (setup, events) => {
    const trainer = await startFakeTrainer(setup, events);
    return {
      ...trainer,
      async train(job, options) {
        await pause(trainMs, undefined, options);
        return await trainer.train(job, options);
      },
    };
  };
}

export const startFakeTrainer: StartTrainer = async ({ siteName }) => ({
  site: {
    trainExamples: examplesOf(siteName),
    testExamples: 5,
    trainExamplesByClass: [],
    unreadable: 0,
    engine: 'fake',
  },
  engineReason: 'chaos needs no arithmetic',
  async train({ round, globalFile, outFile }) {
    const { tensors } = decodeFrame(await readFile(globalFile));
    const update = tensors.map((tensor) => updateOf(tensor, siteName, round));
    const file = await open(`${outFile}.tmp`, 'w');
    await file.writeFile(encodeFrame(update));
    await file.sync();
    await file.close();
    await rename(`${outFile}.tmp`, outFile);
    return { numExamples: examplesOf(siteName), metrics: { loss: 1 / round } };
  },
  async evaluate({ globalFile }) {
    const { tensors } = decodeFrame(await readFile(globalFile));
    const data = tensors[0]?.data as Float32Array;
    return { numExamples: 5, metrics: { loss: Math.abs(data[0] ?? 0), accuracy: 0.5 } };
  },
  exited: new Promise(() => undefined),
  async close() {},
});

function updateOf(tensor: Tensor, site: string, round: number): Tensor {
  const seed = createHash('sha256').update(`${site}|${round}|${tensor.name}`).digest();
  const global = tensor.data as Float32Array;
  const data = global.map((weight, i) => ((seed[i % 32] ?? 0) - 128) / 1024 - weight / 8);
  return { ...tensor, data };
}

function examplesOf(site: string): number {
  return 10 + (createHash('sha256').update(site).digest()[0] ?? 0);
}
