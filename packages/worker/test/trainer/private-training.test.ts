import { loadEngine, tf } from '@tributary/engine';
import { artifactFromBuilder } from '@tributary/models';
import type { FederationView, Tensor } from '@tributary/shared-protocol';
import { afterEach, beforeAll, expect, it } from 'vitest';
import { type LocalModel, openLocalModel } from '../../src/trainer/local-model.ts';
import type { Seen } from '../../src/trainer/private-gradients.ts';
import { type RecordPrivacy, trainPrivateRound } from '../../src/trainer/private-training.ts';
import { evaluateModel } from '../../src/trainer/train.ts';
import {
  added,
  bandedExamples,
  type Examples,
  federationFor,
  memoryData,
  oneExample,
  oneSigmoid,
  tensorOf,
} from './memory-data.ts';

/** So little noise that the rest shows. */
const SILENT = 1e-12;
const TWO = ['cat', 'dog'];

let local: LocalModel | undefined;
beforeAll(async () => {
  await loadEngine({ prefer: 'onnxruntime' });
});
afterEach(() => {
  local?.dispose();
  local = undefined;
});

async function openSite(build: () => tf.LayersModel, classes: string[], training: object, train: Examples) {
  const artifact = await artifactFromBuilder(build, 11);
  const federation: FederationView = federationFor(artifact.topology, classes, training);
  const opened = await openLocalModel(federation);
  local = opened;
  const context = { federation, siteName: 'site-1', local: opened, data: memoryData(train, train, 8) };
  const { learningRate } = federation.training.optimizer;
  return {
    async train(privacy: RecordPrivacy) {
      const seen: Seen[] = [];
      const job = { round: 1, learningRate, privacy, global: artifact.weights };
      const result = await trainPrivateRound(context, job, { onStep: (step) => seen.push(step) });
      return { ...result, seen };
    },
    evaluate: (update: readonly Tensor[]) =>
      evaluateModel(context, { global: added(artifact.weights, update) }),
  };
}

// One record x = (1, 2) of class 1, weights zero, one sigmoid: the gradient of the kernel is (-1/2, -1), that of the bias
// -1/2, and their norm together sqrt(1/4 + 1 + 1/4) = 1.2247.
const plan = { loss: 'binaryCrossentropy', optimizer: { name: 'sgd', learningRate: 0.1 }, steps: 1 };

it('a step goes along the clipped gradient; what leaves the site is the update, and no metric', async () => {
  const site = await openSite(oneSigmoid, TWO, plan, oneExample);
  const before = tf.memory().numTensors;
  const { update, metrics, spent, seen, numExamples } = await site.train({
    clippingNorm: 0.5,
    noiseMultiplier: SILENT,
  });
  // 0.1 * 0.5 / 1.2247 = 0.040825 of (1/2, 1) and 1/2
  expect(tensorOf(update, 'd/kernel')).toEqual([expect.closeTo(0.020412, 6), expect.closeTo(0.040825, 6)]);
  expect(tensorOf(update, 'd/bias')).toEqual([expect.closeTo(0.020412, 6)]);
  expect(metrics).toEqual({});
  expect(numExamples).toBe(1);
  expect(spent).toEqual({ samplingRate: 1, noiseMultiplier: SILENT, steps: 1 });
  expect(seen).toEqual([{ records: 1, clippedFraction: 1, loss: expect.closeTo(Math.LN2, 5) }]);
  expect(tf.memory().numTensors).toBe(before);
});

it('the optimizer gets the noised gradient: Adam’s first step is its learning rate, by sign', async () => {
  const adam = { ...plan, optimizer: { name: 'adam', learningRate: 0.01 } };
  const site = await openSite(oneSigmoid, TWO, adam, oneExample);
  const { update } = await site.train({ clippingNorm: 0.5, noiseMultiplier: 1000 });
  for (const value of [...tensorOf(update, 'd/kernel'), ...tensorOf(update, 'd/bias')]) {
    expect(Math.abs(value)).toBeCloseTo(0.01, 4);
  }
});

it('regularizers add their own gradient, unclipped and without noise; constraints hold', async () => {
  const heavy = () =>
    oneSigmoid({
      kernelInitializer: 'ones',
      kernelRegularizer: tf.regularizers.l2({ l2: 4 }),
      biasConstraint: tf.constraints.nonNeg(),
    });
  const still: Examples = { exampleShape: [2], values: [new Float32Array(2)], labels: [0] };
  const site = await openSite(heavy, TWO, plan, still);
  const { update } = await site.train({ clippingNorm: 0.1, noiseMultiplier: SILENT });
  // The kernel: 2 * 4 * 1 * 0.1. The bias would go to -0.1 * 0.1, which its constraint forbids.
  expect(tensorOf(update, 'd/kernel')).toEqual([expect.closeTo(-0.8, 5), expect.closeTo(-0.8, 5)]);
  expect(tensorOf(update, 'd/bias')).toEqual([0]);
});

it('a batch without a record is a step too', async () => {
  // Of 100 records one a batch: about 37 of 100 batches are empty, and none with a probability of 0.63^100 = 1e-20.
  const site = await openSite(
    () => oneSigmoid({ inputShape: [4] }),
    TWO,
    { ...plan, steps: 100, batchSize: 1 },
    bandedExamples(100, [4], 2, 1),
  );
  const { seen, spent } = await site.train({ clippingNorm: 1, noiseMultiplier: 1 });
  expect(seen.length).toBe(100);
  expect(spent).toEqual({ samplingRate: 0.01, noiseMultiplier: 1, steps: 100 });
  expect(seen.some(({ records }) => records === 0)).toBe(true);
  const records = seen.reduce((sum, step) => sum + step.records, 0);
  // Binomial of 10,000 at 0.01: mean 100, standard deviation 10.
  expect(Math.abs(records - 100)).toBeLessThan(60);
});

it('two rounds of the same are two releases: other batches, other noise', async () => {
  const site = await openSite(oneSigmoid, TWO, plan, oneExample);
  const privacy = { clippingNorm: 1, noiseMultiplier: 1 };
  const [first, second] = [await site.train(privacy), await site.train(privacy)];
  expect(tensorOf(first.update, 'd/kernel')).not.toEqual(tensorOf(second.update, 'd/kernel'));
});

it('NVFlare 343: no number of an update leaves without noise, also where the gradient is zero', async () => {
  const small = () =>
    tf.sequential({
      layers: [
        tf.layers.conv2d({ filters: 3, kernelSize: 3, activation: 'relu', inputShape: [8, 8, 1] }),
        tf.layers.flatten(),
        tf.layers.dense({ units: 3, activation: 'softmax' }),
      ],
    });
  const training = { loss: 'categoricalCrossentropy', optimizer: { name: 'sgd', learningRate: 1 }, steps: 1 };
  // Of black images no kernel has a gradient.
  const black: Examples = {
    exampleShape: [8, 8, 1],
    values: [new Float32Array(64), new Float32Array(64)],
    labels: [0, 1],
  };
  const site = await openSite(small, ['a', 'b', 'c'], training, black);
  const privacy = { clippingNorm: 1, noiseMultiplier: 1 };
  const rounds = [await site.train(privacy), await site.train(privacy), await site.train(privacy)];
  const [first, ...others] = rounds.map(({ update }) =>
    update.flatMap(({ data }) => [...(data as Float32Array)]),
  );
  // 9 * 3 + 3 and 108 * 3 + 3.
  expect(first!.length).toBe(357);
  // Noise is the same by chance once in 10^6; the same three times, for one of 357, once in 10^9.
  const still = first!.flatMap((value, i) => (others.every((other) => other[i] === value) ? [i] : []));
  expect(still).toEqual([]);
});

it('it learns: bands of light are told apart through clipping and noise', async () => {
  const small = () =>
    tf.sequential({
      layers: [
        tf.layers.conv2d({
          filters: 4,
          kernelSize: 3,
          strides: 2,
          activation: 'relu',
          inputShape: [8, 8, 1],
        }),
        tf.layers.flatten(),
        tf.layers.dense({ units: 3, activation: 'softmax' }),
      ],
    });
  const training = {
    loss: 'categoricalCrossentropy',
    optimizer: { name: 'sgd', learningRate: 1 },
    steps: 60,
    batchSize: 100,
  };
  const site = await openSite(small, ['a', 'b', 'c'], training, bandedExamples(300, [8, 8, 1], 3, 5));
  const { update } = await site.train({ clippingNorm: 0.5, noiseMultiplier: 1 });
  const { metrics } = await site.evaluate(update);
  expect(metrics['accuracy']).toBeGreaterThan(0.9);
});

it('a model with a batch normalisation is refused before a record is read', async () => {
  const normalised = () =>
    tf.sequential({
      layers: [
        tf.layers.batchNormalization({ inputShape: [2], name: 'bn' }),
        tf.layers.dense({ units: 1, activation: 'sigmoid' }),
      ],
    });
  const site = await openSite(normalised, TWO, plan, oneExample);
  await expect(site.train({ clippingNorm: 1, noiseMultiplier: 1 })).rejects.toMatchObject({
    code: 'FED_TRAINER_BATCH_NORM',
  });
});

it('a loss that is no number is told of, with step and round', async () => {
  const broken: Examples = { exampleShape: [2], values: [Float32Array.of(Number.NaN, 0)], labels: [1] };
  const site = await openSite(oneSigmoid, TWO, plan, broken);
  await expect(site.train({ clippingNorm: 1, noiseMultiplier: 1 })).rejects.toMatchObject({
    code: 'FED_TRAINER_DIVERGED',
    message: expect.stringContaining('step 1 of round 1'),
  });
});
