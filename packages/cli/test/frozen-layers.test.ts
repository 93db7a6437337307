/** `training.frozenLayers` over a whole run: two sites with trainer processes of their own, from a configuration file. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCoordinator, readCheckpoint, runPaths } from '@tributary/coordinator';
import { decodeFrame, type RunEvent, type Tensor } from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { joinFederation, type StartTrainer, startTrainer } from '@tributary/worker';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDigits, writeDigits } from '../src/demo/digits.ts';
import { splitDigits } from '../src/demo/split.ts';
import { prepareFederation } from '../src/federation.ts';
import { ROOT } from './support.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-frozen-'));
const SITES = ['east', 'west'];
const ROUNDS = 3;

/** A stem to freeze: convolution, batch normalisation, a nested model; and a head. All in one configuration. */
const CONFIG = `
export default {
  name: 'frozen',
  classes: ['0', '1'],
  input: { height: 28, width: 28, channels: 1 },
  model({ tf, input }) {
    const inner = tf.sequential({ name: 'inner', layers: [
      tf.layers.dense({ name: 'deep', units: 4, activation: 'relu', inputShape: [18] }),
    ] });
    return tf.sequential({ layers: [
      tf.layers.conv2d({ name: 'stem', filters: 2, kernelSize: 3, strides: 4, activation: 'relu',
        inputShape: [input.height, input.width, input.channels] }),
      tf.layers.batchNormalization({ name: 'norm' }),
      tf.layers.maxPooling2d({ name: 'pool', poolSize: 2 }),
      tf.layers.flatten({ name: 'flat' }),
      inner,
      tf.layers.dense({ name: 'head', units: 1, activation: 'sigmoid' }),
    ] });
  },
  augmentation: { rescale: 1 / 255 },
  training: {
    optimizer: { name: 'adam', learningRate: 0.01 },
    batchSize: 8,
    weightDecay: 0.1,
    frozenLayers: FROZEN,
  },
  rounds: ${ROUNDS},
  cohort: { quorum: 2 },
  deadlines: { heartbeatSeconds: 1 },
};`;

const STEM = [
  'stem/kernel',
  'stem/bias',
  'norm/gamma',
  'norm/beta',
  'norm/moving_mean',
  'norm/moving_variance',
];
const INNER = ['inner/deep/kernel', 'inner/deep/bias'];
const HEAD = ['head/kernel', 'head/bias'];

beforeAll(async () => {
  const digits = await openDigits([ROOT]);
  const { counts } = digits;
  const split = splitDigits({
    seed: 1,
    sites: SITES,
    counts,
    digits: [0, 1],
    perDigit: 40,
    concentration: 5,
  });
  await writeDigits({ dir: join(dir, 'data'), files: split.files, digits: async () => digits });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Plays a run; returns every checkpoint by round, and what each trainer process wrote as its update. */
async function play(name: string, frozenLayers: readonly string[]) {
  const file = join(dir, `${name}.config.ts`);
  writeFileSync(file, CONFIG.replace('FROZEN', JSON.stringify(frozenLayers)));
  const runDir = join(dir, name);
  const { federation, artifact } = await prepareFederation(file, dir, { runDir });
  const transport = createMemoryTransport();
  const events: RunEvent[] = [];
  const coordinator = await createCoordinator({
    federation,
    artifact,
    runDir,
    transport,
    onEvent: (event) => events.push(event),
  });
  try {
    const updates: { site: string; round: number; tensors: readonly Tensor[] }[] = [];
    const watched: StartTrainer = async (setup, on) => {
      const trainer = await startTrainer(setup, on);
      return {
        ...trainer,
        async train(job, options) {
          const result = await trainer.train(job, options);
          const { tensors } = decodeFrame(readFileSync(job.outFile));
          updates.push({ site: setup.siteName, round: job.round, tensors });
          return result;
        },
      };
    };
    const sites = SITES.map((site) =>
      joinFederation({
        invite: coordinator.invite(),
        name: site,
        dataDir: join(dir, 'data', site),
        stateDir: join(dir, 'state', name, site),
        engine: 'cpu',
        transport,
        startTrainer: watched,
      }),
    );
    const summary = await coordinator.run();
    await Promise.all(sites);
    expect(summary).toMatchObject({ reason: 'rounds', rounds: ROUNDS });
    const checkpoints = Array.from({ length: ROUNDS + 1 }, (_, round) => {
      const { tensors } = readCheckpoint(runPaths(runDir).checkpoint(round), federation.tensors);
      return new Map(tensors.map((tensor) => [tensor.name, bytesOf(tensor).toString('hex')]));
    });
    return { federation, artifact, events, updates, checkpoints };
  } finally {
    await coordinator.close();
  }
}

describe('frozen layers, over a whole run', () => {
  test.each([
    ['a convolution and batch normalisation', ['stem', 'norm'], STEM, [...INNER, ...HEAD]],
    ['a nested model', ['inner'], INNER, [...STEM, ...HEAD]],
  ])(
    '%s: bit-identical from the first checkpoint to the last, and in no update',
    {
      timeout: 120_000,
    },
    async (_what, layers, frozen, trained) => {
      const { federation, updates, checkpoints, events } = await play(layers.join('-'), layers);
      expect(federation.frozenWeights).toEqual(frozen);
      expect(federation.tensors.map(({ name }) => name)).toEqual([...STEM, ...INNER, ...HEAD]);

      const [first, ...later] = checkpoints;
      for (const [i, checkpoint] of later.entries()) {
        for (const name of frozen) expect(checkpoint.get(name)).toBe(first!.get(name));
        for (const name of HEAD) expect(checkpoint.get(name)).not.toBe(checkpoints[i]!.get(name));
      }
      expect(updates.map(({ site, round }) => `${site} ${round}`).sort()).toEqual(
        SITES.flatMap((site) => [1, 2, 3].map((round) => `${site} ${round}`)),
      );
      for (const { tensors } of updates) expect(tensors.map(({ name }) => name)).toEqual(trained);
      expect(events.filter((event) => event.type === 'update-refused')).toEqual([]);
      expect(events.filter((event) => event.type === 'update-accepted').length).toBe(2 * ROUNDS);
    },
  );

  test('without them, the same run changes every weight', { timeout: 120_000 }, async () => {
    const { federation, updates, checkpoints } = await play('none', []);
    expect(federation.frozenWeights).toEqual([]);
    for (const name of [...STEM, ...INNER, ...HEAD])
      expect(checkpoints.at(-1)!.get(name)).not.toBe(checkpoints[0]!.get(name));
    for (const { tensors } of updates)
      expect(tensors.map(({ name }) => name)).toEqual([...STEM, ...INNER, ...HEAD]);
  });
});

/** The bits, not the values: -0 is not 0 here. */
function bytesOf({ data }: Tensor): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
