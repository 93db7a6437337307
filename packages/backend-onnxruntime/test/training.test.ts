/** All that a user does with a model works: every way to train, to read, to keep; with one flush a step and no leak. */
import * as tf from '@tensorflow/tfjs-core';
import * as layers from '@tensorflow/tfjs-layers';
import { beforeEach, describe, expect, it } from 'vitest';
import { type BackendOptions, type OnnxRuntimeBackend, registerOnnxRuntime } from '../src/index.ts';
import {
  lstmNetwork,
  residualNetwork,
  seedNetwork,
  separableNetwork,
  type Task,
  transformer,
} from './nets.ts';

async function start(options: BackendOptions = {}): Promise<OnnxRuntimeBackend> {
  registerOnnxRuntime({ threads: 2, warn: false, ...options });
  await tf.setBackend('onnxruntime');
  return tf.backend() as OnnxRuntimeBackend;
}

function smallNet(): layers.LayersModel {
  const init = (seed: number) => layers.initializers.heNormal({ seed });
  const model = layers.sequential({
    layers: [
      layers.layers.conv2d({
        filters: 8,
        kernelSize: 3,
        padding: 'same',
        activation: 'relu',
        inputShape: [8, 8, 1],
        kernelInitializer: init(1),
      }),
      layers.layers.maxPooling2d({ poolSize: 2 }),
      layers.layers.flatten(),
      layers.layers.dense({ units: 3, activation: 'softmax', kernelInitializer: init(2) }),
    ],
  });
  model.compile({ optimizer: tf.train.adam(0.01), loss: 'categoricalCrossentropy', metrics: ['accuracy'] });
  return model;
}

function data(rows: number): { xs: tf.Tensor4D; ys: tf.Tensor2D } {
  const xs = tf.randomUniform<tf.Rank.R4>([rows, 8, 8, 1], 0, 1, 'float32', 3);
  const classes = Array.from({ length: rows }, (_, i) => Array.from({ length: 3 }, (_, c) => +(i % 3 === c)));
  return { xs, ys: tf.tensor2d(classes) };
}

/** The same on both backends. */
async function onBoth<T>(run: () => Promise<T>): Promise<{ expected: T; actual: T }> {
  await tf.setBackend('cpu');
  const expected = await run();
  await start();
  return { expected, actual: await run() };
}

function expectClose(actual: readonly number[], expected: readonly number[], tolerance = 1e-5): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(
      tolerance * Math.max(1e-2, Math.abs(expected[i]!)),
    );
  });
}

describe('models', () => {
  it('fit: gives the whole history of cpu, with a short last batch and validation', async () => {
    const { expected, actual } = await onBoth(async () => {
      const { xs, ys } = data(7);
      const model = smallNet();
      const { history } = await model.fit(xs, ys, {
        epochs: 3,
        batchSize: 3,
        shuffle: false,
        validationData: [xs, ys],
      });
      return history as Record<string, number[]>;
    });
    expect(Object.keys(actual)).toEqual(['val_loss', 'val_acc', 'loss', 'acc']);
    for (const [name, values] of Object.entries(actual)) expectClose(values, expected[name]!);
  });

  it('fitDataset, evaluateDataset and predict: agree with cpu', async () => {
    const { expected, actual } = await onBoth(async () => {
      const { xs, ys } = data(6);
      const iterator = async () => {
        let taken = 0;
        const next = async () => {
          if (taken === 3) return { done: true, value: null };
          const start = 2 * taken++;
          return { done: false, value: { xs: tf.slice(xs, start, 2), ys: tf.slice(ys, start, 2) } };
        };
        return { next };
      };
      const model = smallNet();
      const dataset = { size: 3, iterator } as unknown as Parameters<typeof model.fitDataset>[0];
      const { history } = await model.fitDataset(dataset, { epochs: 2, verbose: 0 });
      const [loss] = (await model.evaluateDataset(dataset as never, { verbose: 0 } as never)) as tf.Scalar[];
      const probabilities = (model.predict(xs) as tf.Tensor).dataSync();
      return [...(history['loss'] as number[]), loss!.dataSync()[0]!, ...probabilities];
    });
    expectClose(actual, expected);
  });

  it('save and load: the loaded model predicts and goes on training alike', async () => {
    await start();
    const { xs, ys } = data(4);
    const model = smallNet();
    await model.trainOnBatch(xs, ys);
    let saved: tf.io.ModelArtifacts | undefined;
    await model.save(
      tf.io.withSaveHandler(async (artifacts) => {
        saved = artifacts;
        return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: 'JSON' } };
      }),
    );
    const loaded = await layers.loadLayersModel(tf.io.fromMemory(saved!));
    expect([...(loaded.predict(xs) as tf.Tensor).dataSync()]).toEqual([
      ...(model.predict(xs) as tf.Tensor).dataSync(),
    ]);
    loaded.compile({ optimizer: 'sgd', loss: 'categoricalCrossentropy' });
    const before = (loaded.evaluate(xs, ys) as tf.Scalar).dataSync()[0]!;
    for (let i = 0; i < 5; i++) await loaded.trainOnBatch(xs, ys);
    expect((loaded.evaluate(xs, ys) as tf.Scalar).dataSync()[0]).toBeLessThan(before);
  });

  it('weights move between backends as they are', async () => {
    await tf.setBackend('cpu');
    const { xs } = data(2);
    const model = smallNet();
    const expected = [...(model.predict(xs) as tf.Tensor).dataSync()];
    await start();
    expectClose([...(model.predict(xs) as tf.Tensor).dataSync()], expected);
    await tf.setBackend('cpu');
    expectClose([...(model.predict(xs) as tf.Tensor).dataSync()], expected);
  });

  it.each(['sgd', 'momentum', 'adagrad', 'rmsprop', 'adamax', 'adadelta'])(
    'optimizer %s: agrees with cpu',
    async (name) => {
      const { expected, actual } = await onBoth(async () => {
        const optimizer = name === 'momentum' ? tf.train.momentum(0.01, 0.9) : tf.train[name as 'sgd'](0.01);
        const { xs, ys } = data(4);
        const model = smallNet();
        model.compile({ optimizer, loss: 'categoricalCrossentropy' });
        const losses: number[] = [];
        for (let i = 0; i < 4; i++) losses.push((await model.trainOnBatch(xs, ys)) as number);
        return losses;
      });
      expectClose(actual, expected);
    },
  );
});

describe('flushes', () => {
  const perStep = async (backend: OnnxRuntimeBackend, steps: number, step: () => unknown) => {
    await step();
    await step();
    backend.flush();
    const before = backend.counters;
    for (let i = 0; i < steps; i++) await step();
    backend.flush();
    const { flushes, compilations } = backend.counters;
    return { flushes: (flushes - before.flushes) / steps, compilations: compilations - before.compilations };
  };

  it('trainOnBatch: one a step, and no graph is compiled twice', async () => {
    const backend = await start();
    const { xs, ys } = data(4);
    const model = smallNet();
    expect(await perStep(backend, 5, () => model.trainOnBatch(xs, ys))).toEqual({
      flushes: 1,
      compilations: 0,
    });
  });

  it.each([
    ['LSTM', lstmNetwork],
    ['batch normalisation', residualNetwork],
  ])('trainOnBatch with %s: one a step', async (_, makeTask) => {
    const backend = await start();
    const task = makeTask();
    const [xs, ys, model] = [task.x(), task.y(), task.build()];
    expect(await perStep(backend, 3, () => model.trainOnBatch(xs, ys))).toEqual({
      flushes: 1,
      compilations: 0,
    });
  });

  it('a custom loop that never reads: one a step, where the next step reads a variable', async () => {
    const backend = await start();
    const { variables, loss } = transformer();
    const optimizer = tf.train.adam(0.01);
    const step = () => optimizer.minimize(loss, false, [...variables]);
    expect(await perStep(backend, 5, step)).toEqual({ flushes: 1, compilations: 0 });
    expect(backend.flushRecords.at(-2)).toMatchObject({ reason: 'variable', compiled: false });
  });

  it('variableGrads with other numbers each step: the learning rate is data, not structure', async () => {
    const backend = await start();
    const w = tf.variable(tf.tensor1d([1, 2, 3]));
    let rate = 0.1;
    const step = () =>
      tf.tidy(() => {
        const { grads } = tf.variableGrads(() => tf.sum(tf.square(w)) as tf.Scalar, [w]);
        rate *= 0.5;
        w.assign(tf.sub(w, tf.mul(grads[w.name]!, rate)));
      });
    expect(await perStep(backend, 4, step)).toEqual({ flushes: 1, compilations: 0 });
  });

  it('fit: about one a batch, and nothing new in later epochs', async () => {
    const backend = await start();
    const { xs, ys } = data(12);
    const model = smallNet();
    await model.fit(xs, ys, { epochs: 2, batchSize: 4, shuffle: false, yieldEvery: 'never' });
    const before = backend.counters;
    await model.fit(xs, ys, { epochs: 3, batchSize: 4, shuffle: false, yieldEvery: 'never' });
    const { flushes, compilations } = backend.counters;
    expect(compilations - before.compilations).toBeLessThanOrEqual(2);
    expect(flushes - before.flushes).toBeLessThanOrEqual(3 * 3 + 6);
  });

  it('a loop that never ends and never reads: runs when the graph has grown long', async () => {
    const backend = await start({ maxPendingNodes: 50 });
    let x = tf.tensor1d([1]);
    for (let i = 0; i < 120; i++) x = tf.mul(x, 1.01);
    expect(backend.counters.flushes).toBe(2);
    expect(backend.flushRecords[0]).toMatchObject({ reason: 'length', nodes: 51 });
    expect(x.dataSync()[0]).toBeCloseTo(1.01 ** 120, 4);
  });
});

describe('a step that is repeated', () => {
  /** Least squares with momentum, `steps` times, the inputs of every fourth step being fewer. */
  async function fit(repeated: boolean, steps = 24) {
    const backend = await start();
    const weights = tf.variable(tf.randomNormal([3, 2], 0, 1, 'float32', 1));
    const optimizer = tf.train.momentum(0.05, 0.9);
    const body = (x: tf.Tensor2D, y: tf.Tensor2D) =>
      tf.tidy(() => {
        const loss = () => tf.losses.meanSquaredError(y, tf.matMul(x, weights)) as tf.Scalar;
        return { loss: optimizer.minimize(loss, true, [weights])! };
      });
    const step = backend.repeatable(body);
    const losses: number[] = [];
    const held: number[] = [];
    for (let i = 0; i < steps; i++) {
      const rows = i % 4 === 3 ? 5 : 8;
      const x = tf.randomUniform<tf.Rank.R2>([rows, 3], -1, 1, 'float32', i);
      const y = tf.randomUniform<tf.Rank.R2>([rows, 2], -1, 1, 'float32', i + 100);
      const { loss } = repeated ? step.run(x, y) : body(x, y);
      losses.push(loss.dataSync()[0]!);
      tf.dispose([x, y, loss]);
      held.push(tf.memory().numTensors, backend.numDataIds());
    }
    const result = [...weights.dataSync()];
    const { repeats } = step;
    step.dispose();
    optimizer.dispose();
    weights.dispose();
    return {
      losses,
      weights: result,
      repeats,
      held: held.slice(4),
      compilations: backend.counters.compilations,
    };
  }

  it('gives the same bits, after two traces of inputs of each shape', async () => {
    const traced = await fit(false);
    const repeated = await fit(true);
    expect(repeated.losses).toEqual(traced.losses);
    expect(repeated.weights).toEqual(traced.weights);
    expect(traced.repeats).toBe(0);
    // 18 and 6 steps; the first makes the optimizer's variables.
    expect(repeated.repeats).toBe(24 - 3 - 2);
    expect(new Set(repeated.held).size).toBeLessThanOrEqual(2);
  });

  it('sees what others assign meanwhile, and leaves copies of a variable alone', async () => {
    const backend = await start();
    const sum = tf.variable(tf.zeros([2]));
    const step = backend.repeatable((x: tf.Tensor) =>
      tf.tidy(() => {
        const next = tf.add(sum, x);
        sum.assign(next);
        return { twice: tf.mul(next, 2) };
      }),
    );
    const x = tf.tensor1d([1, 2]);
    const add = () => [...step.run(x).twice!.dataSync()];
    for (let i = 1; i <= 5; i++) expect(add()).toEqual([2 * i, 4 * i]);
    expect(step.repeats).toBeGreaterThan(0);
    const copy = sum.clone();
    expect(add()).toEqual([12, 24]);
    expect([...copy.dataSync()]).toEqual([5, 10]);
    sum.assign(tf.tensor1d([100, 100]));
    expect(add()).toEqual([202, 204]);
    expect([...sum.dataSync()]).toEqual([101, 102]);
  });

  it('keeps what it took from elsewhere', async () => {
    const backend = await start();
    const total = tf.variable(tf.zeros([1 << 19]));
    const constant = tf.add(tf.zeros([1 << 19]), 3);
    backend.flush();
    const step = backend.repeatable((x: tf.Tensor) =>
      tf.tidy(() => {
        const next = tf.add(total, tf.mul(constant, x));
        total.assign(next);
        return { first: tf.slice(next, 0, 1) };
      }),
    );
    const x = tf.tensor1d([2]);
    const add = () => step.run(x).first!.dataSync()[0];
    for (let i = 1; i <= 5; i++) expect(add()).toBe(6 * i);
    const { repeats } = step;
    expect(repeats).toBeGreaterThan(0);
    constant.dispose();
    tf.add(tf.zeros([1 << 19]), 1).dataSync();
    expect(add()).toBe(36);
    expect(step.repeats).toBe(repeats + 1);
    const before = process.memoryUsage().arrayBuffers;
    step.dispose();
    expect((before - process.memoryUsage().arrayBuffers) / 2 ** 20).toBeCloseTo(2, 0);
  });

  it.each<
    [string, (x: tf.Tensor, state: { count: number; sum: tf.Variable; kept: tf.Tensor[] }) => tf.Tensor]
  >([
    ['draws random numbers', (x) => tf.add(x, tf.randomUniform(x.shape))],
    ['counts', (x, state) => tf.mul(x, state.count)],
    ['reads on the way', (x) => (tf.sum(x).dataSync()[0]! > 0 ? tf.neg(x) : tf.abs(x))],
    [
      'keeps what it computed',
      (x, { kept }) => {
        kept.push(tf.keep(tf.exp(x)));
        return tf.neg(x);
      },
    ],
    ['returns its input', (x) => x],
  ])('is traced each time when it %s', async (_, compute) => {
    const backend = await start();
    const state = { count: 0, sum: tf.variable(tf.zeros([3])), kept: [] as tf.Tensor[] };
    const step = backend.repeatable((x: tf.Tensor) => {
      state.count++;
      return { y: compute(x, state) };
    });
    for (let i = 0; i < 12; i++) step.run(tf.tensor1d([i - 6, i, 1])).y!.dataSync();
    expect(state.count).toBe(12);
    expect(step.repeats).toBe(0);
  });
});

describe('repeatability and memory', () => {
  /** As large as it takes for several threads to share the work. */
  const networks: readonly (readonly [string, () => Task, BackendOptions])[] = [
    ['the seed network', () => seedNetwork(16, 48), {}],
    ['the seed network, its patches in pieces', () => seedNetwork(8, 48), { pieceBytes: 1 << 18 }],
    ['a residual network with batch normalisation', () => residualNetwork(16, 48), {}],
    ['a depthwise-separable network', () => separableNetwork(16, 48), {}],
    ['embedding and LSTM', () => lstmNetwork(64, 24), {}],
  ];

  async function weightsAfterFive(task: Task, options: BackendOptions): Promise<Float32Array[]> {
    const backend = await start(options);
    const model = task.build();
    const [xs, ys] = [task.x(), task.y()];
    for (let i = 0; i < 5; i++) await model.trainOnBatch(xs, ys);
    expect(backend.counters.sessionBytes).toBeGreaterThan(2 ** 23);
    return model.getWeights().map((weight) => Float32Array.from(weight.dataSync()));
  }

  it.each(networks)(
    '%s: the same weights, bit for bit, on repeat and with 1, 2 and 4 threads',
    async (_, makeTask, options) => {
      const once = await weightsAfterFive(makeTask(), { ...options, threads: 2 });
      for (const threads of [2, 1, 4]) {
        expect(await weightsAfterFive(makeTask(), { ...options, threads })).toEqual(once);
      }
    },
    60_000,
  );

  it('neither tensors nor data nor pending results grow over steps', async () => {
    const backend = await start();
    const { xs, ys } = data(4);
    const model = smallNet();
    await model.trainOnBatch(xs, ys);
    const { numTensors } = tf.memory();
    const numDataIds = backend.numDataIds();
    for (let i = 0; i < 20; i++) await model.trainOnBatch(xs, ys);
    expect(tf.memory().numTensors).toBe(numTensors);
    expect(backend.numDataIds()).toBe(numDataIds);
    expect(backend.counters.pendingTensors).toBe(0);
  });
});

beforeEach(() => {
  tf.disposeVariables();
});
