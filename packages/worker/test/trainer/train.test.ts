import { loadEngine, tf } from '@tributary/engine';
import { artifactFromBuilder, type ModelArtifact, readWeights } from '@tributary/models';
import type { FederationView, Tensor } from '@tributary/shared-protocol';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type LocalModel, openLocalModel } from '../../src/trainer/local-model.ts';
import {
  evaluateModel,
  roundSeed,
  type TrainingData,
  type TrainResult,
  trainRound,
} from '../../src/trainer/train.ts';
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

const ADAM = { name: 'adam', learningRate: 0.01 } as const;
const SGD = { name: 'sgd', learningRate: 0.1 } as const;
const TWO = ['cat', 'dog'];
const THREE = ['a', 'b', 'c'];

let local: LocalModel | undefined;
beforeAll(async () => {
  await loadEngine({ prefer: 'wasm' });
});
afterEach(() => {
  local?.dispose();
  local = undefined;
});

interface Site {
  readonly artifact: ModelArtifact;
  readonly federation: FederationView;
  train(
    round?: number,
    options?: { signal?: AbortSignal; global?: Tensor[]; siteName?: string },
  ): Promise<TrainResult>;
  evaluate(global?: readonly Tensor[]): ReturnType<typeof evaluateModel>;
}

async function openSite(
  build: () => tf.LayersModel,
  classes: readonly string[],
  training: object,
  data: { train: Examples; test?: Examples; batchSize?: number } | TrainingData,
  rest: Partial<FederationView> = {},
): Promise<Site> {
  const artifact = await artifactFromBuilder(build, 11);
  const federation = federationFor(artifact.topology, classes, training, rest);
  const opened = await openLocalModel(federation);
  local = opened;
  const source =
    'trainBatches' in data ? data : memoryData(data.train, data.test ?? data.train, data.batchSize ?? 8);
  return {
    artifact,
    federation,
    train: (round = 1, { signal, global = artifact.weights, siteName = 'site-1' } = {}) => {
      const learningRate = federation.training.optimizer.learningRate;
      const context = { federation, siteName, local: opened, data: source };
      return trainRound(context, { round, global, learningRate }, signal === undefined ? {} : { signal });
    },
    evaluate: (global = artifact.weights) =>
      evaluateModel({ federation, siteName: 'site-1', local: opened, data: source }, { global }),
  };
}

const dense = (units: number, activation: 'sigmoid' | 'softmax' | 'linear', inputShape: number[]) => () =>
  tf.sequential({ layers: [tf.layers.dense({ units, activation, inputShape, name: 'd' })] });

function residualCnn(): tf.LayersModel {
  const input = tf.input({ shape: [8, 8, 1], name: 'image' });
  let x = tf.layers
    .conv2d({ filters: 6, kernelSize: 3, padding: 'same', name: 'c' })
    .apply(input) as tf.SymbolicTensor;
  const shortcut = x;
  x = tf.layers.batchNormalization({ name: 'bn' }).apply(x) as tf.SymbolicTensor;
  x = tf.layers.reLU({ name: 'r' }).apply(x) as tf.SymbolicTensor;
  x = tf.layers.depthwiseConv2d({ kernelSize: 3, padding: 'same', name: 'dw' }).apply(x) as tf.SymbolicTensor;
  x = tf.layers.add({ name: 'sum' }).apply([shortcut, x]) as tf.SymbolicTensor;
  x = tf.layers.maxPooling2d({ poolSize: 2, name: 'p' }).apply(x) as tf.SymbolicTensor;
  x = tf.layers.flatten({ name: 'f' }).apply(x) as tf.SymbolicTensor;
  x = tf.layers.dropout({ rate: 0.2, seed: 5, name: 'drop' }).apply(x) as tf.SymbolicTensor;
  const output = tf.layers
    .dense({ units: 3, activation: 'softmax', name: 'out' })
    .apply(x) as tf.SymbolicTensor;
  return tf.model({ inputs: input, outputs: output, name: 'residual' });
}

function words(): tf.LayersModel {
  return tf.sequential({
    layers: [
      tf.layers.embedding({ inputDim: 10, outputDim: 4, inputLength: 6, name: 'e' }),
      tf.layers.lstm({ units: 5, dropout: 0.1, recurrentDropout: 0.1, name: 'l' }),
      tf.layers.dense({ units: 1, activation: 'sigmoid', name: 'o' }),
    ],
  });
}

/** Sequences of words 0-4 (class 0) or 5-9 (class 1). */
function sentences(count: number): Examples {
  const labels = Array.from({ length: count }, (_, i) => i % 2);
  const values = labels.map((label, i) =>
    Float32Array.from({ length: 6 }, (_, j) => label * 5 + ((i * 3 + j * 7) % 5)),
  );
  return { exampleShape: [6], values, labels };
}

describe('trainRound: the numbers', () => {
  // One example x = (1, 2) of class 1, weights and bias zero, one sigmoid: p = 1/2, so the gradient of the logit is
  // p - 1 = -1/2, that of w is (-1/2, -1), that of b is -1/2.
  const bce = { loss: 'binaryCrossentropy', optimizer: SGD };

  it('sgd: the update is local - global, minus the learning rate times the gradient', async () => {
    const site = await openSite(oneSigmoid, TWO, { ...bce, steps: 1 }, { train: oneExample });
    const { update, numExamples, metrics } = await site.train();
    // -0.1 * (-1/2, -1) and -0.1 * -1/2
    expect(tensorOf(update, 'd/kernel')).toEqual([expect.closeTo(0.05, 6), expect.closeTo(0.1, 6)]);
    expect(tensorOf(update, 'd/bias')).toEqual([expect.closeTo(0.05, 6)]);
    expect(numExamples).toBe(1);
    // -log(1/2); the output 1/2 is not above 1/2, so the class is 0: wrong.
    expect(metrics).toEqual({ loss: expect.closeTo(Math.LN2, 5), accuracy: 0 });
  });

  it('class weights: scale the loss of their class', async () => {
    const training = { ...bce, steps: 1, classWeights: { dog: 3 } };
    const site = await openSite(oneSigmoid, TWO, training, { train: oneExample });
    const { update, metrics } = await site.train();
    expect(tensorOf(update, 'd/kernel')).toEqual([expect.closeTo(0.15, 6), expect.closeTo(0.3, 6)]);
    expect(metrics['loss']).toBeCloseTo(3 * Math.LN2, 5);
  });

  it('weight decay: shrinks the weights apart from the gradient', async () => {
    // Labels 0 and 1 on x = 0: the kernel's gradient is 0, so what moves it is decay alone.
    const still: Examples = {
      exampleShape: [2],
      values: [new Float32Array(2), new Float32Array(2)],
      labels: [0, 1],
    };
    const site = await openSite(
      dense(1, 'sigmoid', [2]),
      TWO,
      { ...bce, steps: 1, weightDecay: 0.5 },
      { train: still },
    );
    const { update } = await site.train();
    const kernel = tensorOf(site.artifact.weights, 'd/kernel');
    // w * (1 - 0.1 * 0.5) - w
    expect(tensorOf(update, 'd/kernel')).toEqual(kernel.map((w) => expect.closeTo(-0.05 * w, 5)));
  });

  it('regularizers of layers are part of the loss', async () => {
    const regularized = () =>
      tf.sequential({
        layers: [
          tf.layers.dense({
            units: 1,
            activation: 'sigmoid',
            inputShape: [2],
            kernelInitializer: 'ones',
            kernelRegularizer: tf.regularizers.l2({ l2: 0.01 }),
            name: 'd',
          }),
        ],
      });
    const still: Examples = { exampleShape: [2], values: [new Float32Array(2)], labels: [1] };
    const site = await openSite(regularized, TWO, { ...bce, steps: 1 }, { train: still });
    const { update, metrics } = await site.train();
    // log 2 + 0.01 * (1 + 1); gradient 2 * 0.01 * 1
    expect(metrics['loss']).toBeCloseTo(Math.LN2 + 0.02, 5);
    expect(tensorOf(update, 'd/kernel')).toEqual([expect.closeTo(-0.002, 6), expect.closeTo(-0.002, 6)]);
  });

  it('constraints of layers hold after every step', async () => {
    const constrained = () =>
      tf.sequential({
        layers: [
          tf.layers.dense({
            units: 1,
            activation: 'sigmoid',
            inputShape: [2],
            kernelInitializer: 'zeros',
            kernelConstraint: 'nonNeg',
            name: 'd',
          }),
        ],
      });
    const negative: Examples = { exampleShape: [2], values: [Float32Array.of(-1, 2)], labels: [1] };
    const site = await openSite(constrained, TWO, { ...bce, steps: 1 }, { train: negative });
    // Without the constraint the first weight would be -0.05.
    expect(tensorOf((await site.train()).update, 'd/kernel')).toEqual([0, expect.closeTo(0.1, 6)]);
  });

  it.each([
    { name: 'sgd', learningRate: 0.1, momentum: 0.9, nesterov: true },
    { name: 'adam', learningRate: 0.05 },
    { name: 'rmsprop', learningRate: 0.02, momentum: 0.5 },
    { name: 'adagrad', learningRate: 0.2 },
  ])('$name: learns bands of three classes', async (optimizer) => {
    const train = bandedExamples(60, [12], 3, 1);
    const test = bandedExamples(30, [12], 3, 2);
    const training = { optimizer, loss: 'categoricalCrossentropy', epochs: 12 };
    const site = await openSite(dense(3, 'softmax', [12]), THREE, training, { train, test });
    const { update, metrics } = await site.train();
    expect(metrics['accuracy']).toBeGreaterThan(0.9);
    const { metrics: tested, numExamples } = await site.evaluate(added(site.artifact.weights, update));
    expect(numExamples).toBe(30);
    expect(tested['accuracy']).toBeGreaterThan(0.9);
  });
});

describe('trainRound: many kinds of model', () => {
  const banded = { train: bandedExamples(48, [8, 8, 1], 3, 1), test: bandedExamples(24, [8, 8, 1], 3, 2) };
  const cases = {
    'residual, batch normalisation, depthwise, dropout': {
      open: (training: object = {}, rest: Partial<FederationView> = {}) =>
        openSite(
          residualCnn,
          THREE,
          { optimizer: ADAM, loss: 'sparse_categorical_crossentropy', epochs: 6, ...training },
          banded,
          rest,
        ),
      target: 0.9,
    },
    'embedding and LSTM with dropout': {
      open: (training: object = {}) =>
        openSite(
          words,
          TWO,
          {
            optimizer: { ...ADAM, learningRate: 0.05 },
            loss: 'binary_crossentropy',
            epochs: 10,
            ...training,
          },
          { train: sentences(40) },
        ),
      target: 0.9,
    },
  };

  for (const [name, { open, target }] of Object.entries(cases)) {
    it(`${name}: learns`, async () => {
      const site = await open();
      const { update } = await site.train();
      const { metrics } = await site.evaluate(added(site.artifact.weights, update));
      expect(metrics['accuracy']).toBeGreaterThanOrEqual(target);
    });

    it(`${name}: a round made again gives the same bytes, another round or site others`, async () => {
      const site = await open({ epochs: 1 });
      const first = await site.train(2);
      await site.train(3);
      expect(await site.train(2)).toEqual(first);
      expect((await site.train(3)).update).not.toEqual(first.update);
      expect((await site.train(2, { siteName: 'site-2' })).update).not.toEqual(first.update);
    });

    it(`${name}: no tensors are left over after rounds`, async () => {
      const site = await open({ epochs: 1 });
      await site.train(1);
      await site.evaluate();
      const before = tf.memory().numTensors;
      for (let round = 2; round <= 4; round++) {
        await site.train(round);
        await site.evaluate();
      }
      expect(tf.memory().numTensors).toBe(before);
    });
  }

  it('moving statistics of batch normalisation are part of the update', async () => {
    const site = await cases['residual, batch normalisation, depthwise, dropout'].open({ epochs: 1 });
    const { update } = await site.train();
    expect(update.map(({ name }) => name)).toEqual(site.artifact.weights.map(({ name }) => name));
    expect(tensorOf(update, 'bn/moving_mean').some((value) => value !== 0)).toBe(true);
    expect(tensorOf(update, 'bn/moving_variance').some((value) => value !== 0)).toBe(true);
  });

  it('frozen layers: stay as they are, batch statistics included, and are left out of the update', async () => {
    const frozenLayers = ['c', 'bn'];
    const site = await cases['residual, batch normalisation, depthwise, dropout'].open(
      { epochs: 1, frozenLayers },
      {
        frozenWeights: ['c/kernel', 'c/bias', 'bn/gamma', 'bn/beta', 'bn/moving_mean', 'bn/moving_variance'],
      },
    );
    const { update } = await site.train();
    expect(update.map(({ name }) => name)).toEqual([
      'dw/depthwise_kernel',
      'dw/bias',
      'out/kernel',
      'out/bias',
    ]);
    const after = await artifactWeights(local!);
    for (const name of ['c/kernel', 'bn/gamma', 'bn/moving_mean', 'bn/moving_variance']) {
      expect(tensorOf(after, name)).toEqual(tensorOf(site.artifact.weights, name));
    }
    expect(tensorOf(update, 'out/kernel').some((value) => value !== 0)).toBe(true);
  });

  it('a frozen layer whose weights are exchanged all the same has an update of zeros', async () => {
    const site = await cases['residual, batch normalisation, depthwise, dropout'].open({
      epochs: 1,
      frozenLayers: ['c'],
    });
    expect(new Set(tensorOf((await site.train()).update, 'c/kernel'))).toEqual(new Set([0]));
  });

  it('a frozen layer is a constant to the others: they train as on its outputs', async () => {
    // y = x K for the first layer; a model of the second alone, on those outputs, has to learn the same.
    const kernel = [
      [1, -0.5, 2],
      [0.25, 1, -1],
    ];
    const train = bandedExamples(24, [2], 2, 3);
    const projected: Examples = {
      ...train,
      exampleShape: [3],
      values: train.values.map(([a = 0, b = 0]) =>
        Float32Array.from(kernel[0]!, (k, i) => a * k + b * kernel[1]![i]!),
      ),
    };
    const head = (inputShape?: number[]) =>
      tf.layers.dense({
        units: 1,
        activation: 'sigmoid',
        kernelInitializer: 'ones',
        name: 'head',
        ...(inputShape === undefined ? {} : { inputShape }),
      });
    const whole = () => {
      const first = tf.layers.dense({ units: 3, useBias: false, inputShape: [2], name: 'first' });
      const model = tf.sequential({ layers: [first, head()] });
      first.setWeights([tf.tensor2d(kernel)]);
      return model;
    };
    const training = { optimizer: ADAM, loss: 'binaryCrossentropy', epochs: 5, weightDecay: 0.1 };
    const site = await openSite(
      whole,
      TWO,
      { ...training, frozenLayers: ['first'] },
      { train },
      {
        frozenWeights: ['first/kernel'],
      },
    );
    // The builder of an artifact draws weights anew; these are the ones meant.
    const global = site.artifact.weights.map((weight) =>
      weight.name === 'first/kernel' ? { ...weight, data: Float32Array.from(kernel.flat()) } : weight,
    );
    const { update, metrics } = await site.train(1, { global });
    expect(update.map(({ name }) => name)).toEqual(['head/kernel', 'head/bias']);
    local?.dispose();

    const alone = await openSite(() => tf.sequential({ layers: [head([3])] }), TWO, training, {
      train: projected,
    });
    const reference = await alone.train();
    for (const name of ['head/kernel', 'head/bias']) {
      const expected = tensorOf(reference.update, name);
      expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(0.05);
      expect(tensorOf(update, name)).toEqual(expected.map((value) => expect.closeTo(value, 5)));
    }
    expect(metrics['loss']).toBeCloseTo(reference.metrics['loss']!, 5);
  });

  it('a constraint of a frozen layer does not touch its weights', async () => {
    const bounded = () =>
      tf.sequential({
        layers: [
          // Initial columns of norm sqrt(2), above 1: the constraint would shrink them.
          tf.layers.dense({
            units: 3,
            inputShape: [2],
            kernelInitializer: 'ones',
            kernelConstraint: tf.constraints.maxNorm({ maxValue: 1 }),
            name: 'first',
          }),
          tf.layers.dense({ units: 1, activation: 'sigmoid', name: 'head' }),
        ],
      });
    const training = { optimizer: SGD, loss: 'binaryCrossentropy', steps: 2, frozenLayers: ['first'] };
    const site = await openSite(bounded, TWO, training, { train: bandedExamples(8, [2], 2, 3) });
    await site.train();
    expect(tensorOf(await artifactWeights(local!), 'first/kernel')).toEqual([1, 1, 1, 1, 1, 1]);
  });

  it('trains what a site can compute with as well: the wasm update is near that of the cpu', async () => {
    const update = async () => {
      const site = await cases['residual, batch normalisation, depthwise, dropout'].open({
        optimizer: SGD,
        steps: 2,
      });
      return (await site.train()).update;
    };
    const onWasm = await update();
    local?.dispose();
    await loadEngine({ prefer: 'cpu' });
    try {
      const onCpu = await update();
      for (const [i, { data }] of onCpu.entries()) {
        const other = onWasm[i]!.data as Float32Array;
        (data as Float32Array).forEach((value, j) => {
          expect(Math.abs(value - other[j]!)).toBeLessThan(1e-4);
        });
      }
      local?.dispose();
      local = undefined;
    } finally {
      await loadEngine({ prefer: 'wasm' });
    }
  });
});

describe('trainRound: what goes wrong', () => {
  const train = bandedExamples(30, [12], 3, 1);

  it('a loss that is no number is FED_TRAINER_DIVERGED, with step, round and learning rate', async () => {
    const poisoned = {
      ...train,
      values: train.values.map((v, i) => (i === 3 ? v.map(() => Number.NaN) : v)),
    };
    const training = { optimizer: SGD, loss: 'categoricalCrossentropy' };
    const site = await openSite(dense(3, 'softmax', [12]), THREE, training, {
      train: poisoned,
      batchSize: 30,
    });
    const before = tf.memory().numTensors;
    await expect(site.train(4)).rejects.toMatchObject({
      code: 'FED_TRAINER_DIVERGED',
      message: expect.stringMatching(/became NaN at step 1 of round 4 \(learning rate 0\.1\)/),
    });
    expect(tf.memory().numTensors).toBe(before);
    await expect(site.train(4)).rejects.toMatchObject({ code: 'FED_TRAINER_DIVERGED' });
  });

  it('an abort ends the round with its reason, and the next round is as if nothing had been', async () => {
    const training = { optimizer: SGD, loss: 'categoricalCrossentropy', epochs: 2 };
    const site = await openSite(dense(3, 'softmax', [12]), THREE, training, { train });
    const undisturbed = await site.train(2);
    const before = tf.memory().numTensors;
    const controller = new AbortController();
    const training1 = site.train(1, { signal: controller.signal });
    controller.abort(new Error('the round closed'));
    await expect(training1).rejects.toThrow('the round closed');
    expect(tf.memory().numTensors).toBe(before);
    expect(await site.train(2)).toEqual(undisturbed);
  });

  it.each([
    ['FED_TRAINER_LOSS_UNKNOWN', { loss: 'crossentropy' }, /no loss "crossentropy".*categoricalCrossentropy/],
    ['FED_TRAINER_METRIC_UNKNOWN', { metrics: ['auc'] }, /no metric "auc"/],
    ['FED_TRAINER_METRIC_UNKNOWN', { metrics: ['constructor'] }, /no metric "constructor"/],
  ])('%s names what is unknown and what there is', async (code, change, message) => {
    const training = { optimizer: SGD, loss: 'categoricalCrossentropy', ...change };
    const site = await openSite(dense(3, 'softmax', [12]), THREE, training, { train });
    await expect(site.train()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('outputs that do not fit the classes are FED_TRAINER_OUTPUT', async () => {
    const training = { optimizer: SGD, loss: 'categoricalCrossentropy' };
    const site = await openSite(dense(4, 'softmax', [12]), THREE, training, { train });
    await expect(site.train()).rejects.toThrow(/4 outputs and the federation 3 classes/);
    const single = await openSite(dense(1, 'sigmoid', [12]), TWO, training, { train });
    await expect(single.train()).rejects.toThrow(/Use binaryCrossentropy/);
  });

  it('no training images is FED_TRAINER_NO_EXAMPLES', async () => {
    const none: Examples = { exampleShape: [12], values: [], labels: [] };
    const training = { optimizer: SGD, loss: 'categoricalCrossentropy' };
    const site = await openSite(dense(3, 'softmax', [12]), THREE, training, { train: none });
    await expect(site.train()).rejects.toMatchObject({ code: 'FED_TRAINER_NO_EXAMPLES' });
  });

  it('a frozen layer that the model has not is named', async () => {
    const training = { optimizer: SGD, loss: 'mse', frozenLayers: ['conv9'] };
    const opening = openSite(dense(3, 'softmax', [12]), THREE, training, { train });
    await expect(opening).rejects.toThrow(/no layer "conv9"/);
  });

  it('weights that do not fit the model are FED_MODEL_WEIGHTS', async () => {
    const training = { optimizer: SGD, loss: 'categoricalCrossentropy' };
    const site = await openSite(dense(3, 'softmax', [12]), THREE, training, { train });
    const global = site.artifact.weights.slice(1);
    await expect(site.train(1, { global })).rejects.toMatchObject({ code: 'FED_MODEL_WEIGHTS' });
  });
});

describe('evaluateModel', () => {
  it('averages over examples, not batches, and counts true against predicted classes', async () => {
    // The output is the input; two classes, so p > 1/2 is class 1.
    const identity = () =>
      tf.sequential({
        layers: [tf.layers.dense({ units: 1, kernelInitializer: 'ones', inputShape: [1], name: 'd' })],
      });
    const outputs = [0.9, 0.8, 0.2, 0.6, 0.1];
    const test: Examples = {
      exampleShape: [1],
      values: outputs.map((value) => Float32Array.of(value)),
      labels: [1, 1, 1, 0, 0],
    };
    const training = { optimizer: SGD, loss: 'mse', metrics: ['accuracy', 'mae'] };
    const site = await openSite(identity, TWO, training, { train: test, test, batchSize: 2 });
    const { numExamples, metrics, confusion } = await site.evaluate();
    expect(numExamples).toBe(5);
    // Errors 0.1, 0.2, 0.8, 0.6, 0.1: squares 0.01 + 0.04 + 0.64 + 0.36 + 0.01 = 1.06; sum 1.8
    expect(metrics).toEqual({
      loss: expect.closeTo(1.06 / 5, 5),
      accuracy: expect.closeTo(3 / 5, 5),
      mae: expect.closeTo(1.8 / 5, 5),
    });
    expect(confusion).toEqual([
      [1, 1],
      [1, 2],
    ]);
  });

  it('no test images: zero examples and no metrics', async () => {
    const none: Examples = { exampleShape: [12], values: [], labels: [] };
    const training = { optimizer: SGD, loss: 'categoricalCrossentropy' };
    const train = bandedExamples(3, [12], 3, 1);
    const site = await openSite(dense(3, 'softmax', [12]), THREE, training, { train, test: none });
    expect(await site.evaluate()).toMatchObject({ numExamples: 0, metrics: {} });
  });
});

it('roundSeed: the first four bytes of the hash of seed, site and round', () => {
  // sha256("42|site-1|3") begins with these bytes; another implementation can check it.
  expect(roundSeed(42, 'site-1', 3)).toBe(SEED_42_SITE_1_ROUND_3);
  expect(roundSeed(42, 'site-1', 4)).not.toBe(SEED_42_SITE_1_ROUND_3);
});
const SEED_42_SITE_1_ROUND_3 = 0xd53834c6;

function artifactWeights({ model }: LocalModel): Promise<Tensor[]> {
  return readWeights(model);
}
