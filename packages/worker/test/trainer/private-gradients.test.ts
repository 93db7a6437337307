import { loadEngine, tf } from '@tributary/engine';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createObjective } from '../../src/trainer/objectives.ts';
import {
  createPrivateGradients,
  type PrivateModel,
  type Records,
} from '../../src/trainer/private-gradients.ts';

/** So little noise that the clipped sum shows. */
const SILENT = 1e-12;
const CLASSES = 3;

type Method = 'ghost' | 'microbatches';
const sequential = (layers: tf.layers.Layer[]) => tf.sequential({ layers });
const output = () => tf.layers.dense({ units: CLASSES, activation: 'softmax', name: 'out', ...seeded(9) });
const seeded = (seed: number) => ({
  kernelInitializer: tf.initializers.glorotNormal({ seed }),
  biasInitializer: tf.initializers.randomNormal({ stddev: 0.1, seed: seed + 50 }),
});

/** Models by what is to be seen in them, the shape of a record, and how they are computed. */
const MODELS: readonly [string, readonly number[], Method, () => tf.LayersModel][] = [
  [
    'dense layers, one without bias',
    [6],
    'ghost',
    () =>
      sequential([
        tf.layers.dense({ units: 5, activation: 'relu', inputShape: [6], ...seeded(1) }),
        tf.layers.dense({ units: 4, activation: 'tanh', useBias: false, ...seeded(2) }),
        output(),
      ]),
  ],
  [
    'convolutions with stride, same and valid padding',
    [9, 8, 2],
    'ghost',
    () =>
      sequential([
        tf.layers.conv2d({
          filters: 4,
          kernelSize: [3, 2],
          strides: [2, 1],
          padding: 'same',
          activation: 'relu',
          inputShape: [9, 8, 2],
          ...seeded(1),
        }),
        tf.layers.conv2d({ filters: 3, kernelSize: 2, activation: 'elu', ...seeded(2) }),
        tf.layers.conv2d({ filters: 40, kernelSize: [2, 3], padding: 'valid', useBias: false, ...seeded(3) }),
        tf.layers.maxPooling2d({ poolSize: [1, 2] }),
        tf.layers.flatten(),
        output(),
      ]),
  ],
  [
    'words: embedding, one-dimensional convolution, dense at each position',
    [7],
    'ghost',
    () =>
      sequential([
        tf.layers.embedding({
          inputDim: 4,
          outputDim: 6,
          inputLength: 7,
          embeddingsInitializer: tf.initializers.randomNormal({ stddev: 1, seed: 8 }),
        }),
        tf.layers.conv1d({ filters: 5, kernelSize: 3, strides: 2, padding: 'same', ...seeded(1) }),
        tf.layers.dense({ units: 30, activation: 'sigmoid', ...seeded(2) }),
        tf.layers.dense({ units: 30, activation: 'sigmoid', ...seeded(4) }),
        tf.layers.globalAveragePooling1d({}),
        output(),
      ]),
  ],
  [
    'a nested model with a shortcut and layer normalisation',
    [6, 6, 2],
    'ghost',
    () => {
      const input = tf.input({ shape: [6, 6, 2] });
      const inner = sequential([
        tf.layers.conv2d({ filters: 2, kernelSize: 3, padding: 'same', inputShape: [6, 6, 2], ...seeded(1) }),
        tf.layers.layerNormalization({
          gammaInitializer: tf.initializers.randomNormal({ mean: 1, seed: 5 }),
        }),
        tf.layers.reLU(),
      ]);
      const sum = tf.layers.add().apply([inner.apply(input) as tf.SymbolicTensor, input]);
      const flat = tf.layers.flatten().apply(sum) as tf.SymbolicTensor;
      return tf.model({ inputs: input, outputs: output().apply(flat) as tf.SymbolicTensor });
    },
  ],
  [
    'a mixed model, with a layer that has to go record by record',
    [5, 4],
    'microbatches',
    () =>
      sequential([
        tf.layers.dense({ units: 4, inputShape: [5, 4], ...seeded(1) }),
        tf.layers.lstm({ units: 3, kernelInitializer: tf.initializers.glorotNormal({ seed: 3 }) }),
        output(),
      ]),
  ],
  [
    'a layer that is applied twice',
    [4],
    'microbatches',
    () => {
      const input = tf.input({ shape: [4] });
      const shared = tf.layers.dense({ units: 4, activation: 'tanh', ...seeded(1) });
      const twice = shared.apply(shared.apply(input)) as tf.SymbolicTensor;
      return tf.model({ inputs: input, outputs: output().apply(twice) as tf.SymbolicTensor });
    },
  ],
];

function targetOf(model: tf.LayersModel, rest: Partial<PrivateModel> = {}): PrivateModel {
  const objective = createObjective({
    loss: 'categoricalCrossentropy',
    metrics: [],
    units: CLASSES,
    numClasses: CLASSES,
  });
  const trainable = model.trainableWeights.map((weight) => weight.read() as tf.Variable);
  return { model, trainable, objective, ...rest };
}

/** Records of any size; whole numbers for words. */
function recordsOf(count: number, shape: readonly number[]): Records {
  const length = shape.reduce((a, b) => a * b, 1);
  const words = shape.length === 1 && shape[0] === 7;
  const images = Float32Array.from({ length: count * length }, (_, i) =>
    // Each record larger than the one before, so that some are clipped and some are not.
    words ? (i * 7 + (i >> 2)) % 4 : Math.sin(i * 1.7) * (0.2 + Math.floor(i / length) / 3),
  );
  return {
    images,
    shape: [count, ...shape],
    labels: Int32Array.from({ length: count }, (_, i) => i % CLASSES),
  };
}

/** The same by definition: a gradient for each record, clipped, added up in double precision, divided. */
function byDefinition(target: PrivateModel, records: Records, clippingNorm: number, expected: number) {
  const sums = target.trainable.map(({ size }) => new Float64Array(size));
  const norms: number[] = [];
  const length = records.images.length / records.labels.length;
  for (const [i, label] of records.labels.entries()) {
    const image = records.images.slice(i * length, (i + 1) * length);
    const gradients = tf.tidy(() => {
      const { grads } = tf.variableGrads(() => {
        const outputs = target.model.apply(tf.tensor(image, [1, ...records.shape.slice(1)]), {
          training: true,
        }) as tf.Tensor2D;
        const loss = tf.sum(target.objective.loss(target.objective.encode(Int32Array.of(label)), outputs));
        return tf.mul(loss, target.classWeights?.[label] ?? 1) as tf.Scalar;
      }, [...target.trainable]);
      return target.trainable.map(({ name }) => grads[name]!.dataSync());
    });
    const norm = Math.sqrt(gradients.flatMap((g) => Array.from(g)).reduce((sum, x) => sum + x * x, 0));
    norms.push(norm);
    const factor = Math.min(1, clippingNorm / norm);
    for (const [j, gradient] of gradients.entries()) {
      gradient.forEach((x, k) => {
        sums[j]![k]! += (x * factor) / expected;
      });
    }
  }
  return { norms, sums };
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;

function valuesOf(target: PrivateModel, gradients: Record<string, tf.Tensor>): Float32Array[] {
  expect(Object.keys(gradients).sort()).toEqual(target.trainable.map(({ name }) => name).sort());
  const values = target.trainable.map(({ name }) => gradients[name]!.dataSync() as Float32Array);
  tf.dispose(gradients);
  return values;
}

/** To 1e-5 of the whole gradient's norm, and of each tensor's where that is not tiny. */
function expectSame(actual: readonly Float32Array[], expected: readonly Float64Array[]): void {
  const norm = (x: Iterable<number>) => Math.sqrt([...x].reduce((sum, v) => sum + v * v, 0));
  for (const [i, tensor] of expected.entries()) {
    expect(norm(tensor)).toBeGreaterThan(0);
    const error = norm(tensor.map((value, k) => value - actual[i]![k]!));
    expect(error / norm(tensor)).toBeLessThan(1e-5);
  }
}

const models: tf.LayersModel[] = [];
afterEach(() => {
  for (const model of models.splice(0)) model.dispose();
});
const opened = (model: tf.LayersModel) => {
  models.push(model);
  return model;
};

describe.each(['cpu', 'onnxruntime'] as const)('on %s', (engine) => {
  beforeAll(async () => {
    await loadEngine({ prefer: engine });
  });

  it.each(MODELS)('%s: as by definition', async (_, shape, method, build) => {
    const target = targetOf(opened(build()));
    const records = recordsOf(7, shape);
    // The median record's norm: three are clipped, one is at the norm, three are below.
    const clippingNorm = median(byDefinition(target, records, 1, 5).norms) * 1.0001;
    const { sums } = byDefinition(target, records, clippingNorm, 5);
    const settings = { clippingNorm, noiseMultiplier: SILENT, expectedBatchSize: 5 };

    const before = tf.memory().numTensors;
    const gradients = createPrivateGradients(target, settings);
    expect(gradients.method).toBe(method);
    await gradients.add(records);
    const { gradients: tensors, seen } = gradients.finish();
    expectSame(valuesOf(target, tensors), sums);
    expect(seen.records).toBe(7);
    expect(seen.clippedFraction).toBeCloseTo(3 / 7, 6);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('record by record, where it is asked for, is the same too', async () => {
    const target = targetOf(opened(MODELS[1]![3]()));
    const records = recordsOf(4, MODELS[1]![1]);
    const { sums } = byDefinition(target, records, 0.5, 4);
    const settings = { clippingNorm: 0.5, noiseMultiplier: SILENT, expectedBatchSize: 4 };
    const gradients = createPrivateGradients(target, settings, { method: 'microbatches' });
    expect(gradients.method).toBe('microbatches');
    await gradients.add(records);
    expectSame(valuesOf(target, gradients.finish().gradients), sums);
  });

  it('only the variables that train count: a frozen kernel is in neither norm nor gradients', async () => {
    const whole = targetOf(opened(MODELS[0]![3]()));
    const target = { ...whole, trainable: whole.trainable.slice(1) };
    const records = recordsOf(5, [6]);
    const { sums } = byDefinition(target, records, 0.3, 5);
    const gradients = createPrivateGradients(target, {
      clippingNorm: 0.3,
      noiseMultiplier: SILENT,
      expectedBatchSize: 5,
    });
    await gradients.add(records);
    expectSame(valuesOf(target, gradients.finish().gradients), sums);
  });
});

describe('the batch', () => {
  const settings = { clippingNorm: 0.5, noiseMultiplier: SILENT, expectedBatchSize: 8 };
  beforeAll(async () => {
    await loadEngine({ prefer: 'onnxruntime' });
  });

  it('may come in pieces, of any size, and is forgotten when it is finished', async () => {
    const target = targetOf(opened(MODELS[0]![3]()), { classWeights: Float32Array.of(1, 2, 0.5) });
    const gradients = createPrivateGradients(target, settings);
    await gradients.add(recordsOf(9, [6]));
    await gradients.add(recordsOf(0, [6]));
    await gradients.add(recordsOf(4, [6]));
    const parts = [9, 4].map((count) => byDefinition(target, recordsOf(count, [6]), 0.5, 8).sums);
    const sums = parts[0]!.map((tensor, i) => tensor.map((value, k) => value + parts[1]![i]![k]!));
    const first = gradients.finish();
    expect(first.seen.records).toBe(13);
    expectSame(valuesOf(target, first.gradients), sums);
    await gradients.add(recordsOf(2, [6]));
    expectSame(
      valuesOf(target, gradients.finish().gradients),
      byDefinition(target, recordsOf(2, [6]), 0.5, 8).sums,
    );
  });

  it('larger than what goes through at a time is computed in parts', async () => {
    const target = targetOf(opened(MODELS[0]![3]()));
    const gradients = createPrivateGradients(target, { ...settings, expectedBatchSize: 1000 });
    const [whole, parts] = [[1100], [600, 500]].map((counts) => counts.map((count) => recordsOf(count, [6])));
    // The same records, cut by hand.
    const { images, labels } = whole![0]!;
    parts![1] = { images: images.slice(600 * 6), shape: [500, 6], labels: labels.slice(600) };
    const results = [];
    for (const batches of [whole!, parts!]) {
      for (const batch of batches) await gradients.add(batch);
      const { gradients: tensors, seen } = gradients.finish();
      expect(seen.records).toBe(1100);
      results.push(valuesOf(target, tensors));
    }
    expectSame(
      results[0]!,
      results[1]!.map((values) => Float64Array.from(values)),
    );
  });

  it('is divided by the expected size, not by the size it has', async () => {
    const target = targetOf(opened(MODELS[0]![3]()));
    const twice = createPrivateGradients(target, { ...settings, expectedBatchSize: 16 });
    await twice.add(recordsOf(3, [6]));
    expectSame(
      valuesOf(target, twice.finish().gradients),
      byDefinition(target, recordsOf(3, [6]), 0.5, 8).sums.map((tensor) => tensor.map((x) => x / 2)),
    );
  });

  it('without a record is noise: multiplier times norm over the expected size, in every coordinate', async () => {
    const layer = tf.layers.dense({ units: CLASSES, activation: 'softmax', inputShape: [20_000] });
    const target = targetOf(opened(sequential([layer])));
    const gradients = createPrivateGradients(target, {
      clippingNorm: 3,
      noiseMultiplier: 2,
      expectedBatchSize: 12,
    });
    const { gradients: noise, seen } = gradients.finish();
    expect(seen).toEqual({ records: 0, clippedFraction: 0, loss: 0 });
    const values = valuesOf(target, noise)[0]!;
    const stdDev = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length);
    // 2 * 3 / 12 = 0.5: the standard deviation, not the variance. Six standard errors of 60,000.
    expect(Math.abs(stdDev / 0.5 - 1)).toBeLessThan(6 / Math.sqrt(2 * 60_000));
    const again = valuesOf(target, gradients.finish().gradients)[0]!;
    expect(again.filter((x, i) => x === values[i]).length).toBeLessThan(10);
  });

  it('a record of norm 0 stays 0', async () => {
    const target = targetOf(opened(MODELS[0]![3]()), { classWeights: Float32Array.of(0, 0, 0) });
    const gradients = createPrivateGradients(target, settings);
    await gradients.add(recordsOf(3, [6]));
    const { gradients: tensors, seen } = gradients.finish();
    for (const values of valuesOf(target, tensors)) {
      for (const value of values) expect(Math.abs(value)).toBeLessThan(1e-8);
    }
    expect(seen).toEqual({ records: 3, clippedFraction: 0, loss: 0 });
  });

  it('of another size compiles nothing new once the few sizes have been met', async () => {
    const target = targetOf(opened(MODELS[1]![3]()));
    const backend = tf.backend() as unknown as { readonly counters: { readonly compilations: number } };
    const gradients = createPrivateGradients(target, { ...settings, expectedBatchSize: 64 });
    const step = async (count: number) => {
      await gradients.add(recordsOf(count, MODELS[1]![1]));
      tf.dispose(gradients.finish().gradients);
    };
    // Multiples of 8.
    for (const count of [48, 56, 64, 72, 80]) await step(count);
    const before = backend.counters.compilations;
    for (let count = 41; count <= 80; count++) await step(count);
    expect(backend.counters.compilations).toBe(before);
  });
});

describe('refusals', () => {
  const settings = { clippingNorm: 1, noiseMultiplier: 1, expectedBatchSize: 8 };
  const normalised = () =>
    sequential([
      tf.layers.dense({ units: 4, inputShape: [3] }),
      tf.layers.batchNormalization({ name: 'bn' }),
      output(),
    ]);

  it('a batch normalisation that trains is refused, with the reason and the way out', () => {
    const target = targetOf(opened(normalised()));
    expect(() => createPrivateGradients(target, settings)).toThrow(
      expect.objectContaining({
        code: 'FED_TRAINER_BATCH_NORM',
        message: expect.stringMatching(/"bn".*layer normalisation/),
      }),
    );
  });

  it('a frozen one uses its statistics: records don’t meet', async () => {
    const model = opened(normalised());
    model.getLayer('bn').trainable = false;
    const target = targetOf(model);
    const gradients = createPrivateGradients(target, { ...settings, noiseMultiplier: SILENT });
    expect(gradients.method).toBe('ghost');
    const statistics = () =>
      model
        .getLayer('bn')
        .getWeights()
        .flatMap((w) => Array.from(w.dataSync()));
    const before = statistics();
    const records = recordsOf(4, [3]);
    await gradients.add(records);
    const all = valuesOf(target, gradients.finish().gradients);
    expect(statistics()).toEqual(before);
    for (let i = 0; i < 4; i++) {
      await gradients.add({
        images: records.images.slice(3 * i, 3 * i + 3),
        shape: [1, 3],
        labels: records.labels.slice(i, i + 1),
      });
    }
    const oneByOne = valuesOf(target, gradients.finish().gradients);
    expectSame(
      all,
      oneByOne.map((values) => Float64Array.from(values)),
    );
  });

  it('numbers out of their range are refused', () => {
    const target = targetOf(opened(MODELS[0]![3]()));
    for (const wrong of [{ clippingNorm: 0 }, { noiseMultiplier: 0 }, { expectedBatchSize: 0 }]) {
      expect(() => createPrivateGradients(target, { ...settings, ...wrong })).toThrow(RangeError);
    }
  });
});
