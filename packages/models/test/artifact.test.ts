import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadEngine, tf } from '@tributary/engine';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  artifactFromBuilder,
  DEFAULT_TOPOLOGY_LIMITS,
  exportLayersModel,
  loadSavedModel,
  modelArtifact,
  modelFromArtifact,
  modelFromTopology,
  namedWeights,
  readWeights,
  weightsOfLayers,
  writeWeights,
} from '../src/index.ts';

beforeAll(async () => {
  await loadEngine({ prefer: 'cpu' });
});

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tributary-models-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** Residual, batch normalisation, depthwise and separable convolutions, with names given and not given. */
function residual(): tf.LayersModel {
  const input = tf.input({ shape: [8, 8, 4] });
  let x = tf.layers.depthwiseConv2d({ kernelSize: 3, padding: 'same' }).apply(input) as tf.SymbolicTensor;
  x = tf.layers.batchNormalization().apply(x) as tf.SymbolicTensor;
  x = tf.layers
    .separableConv2d({ filters: 4, kernelSize: 3, padding: 'same', name: 'sep' })
    .apply(x) as tf.SymbolicTensor;
  x = tf.layers.add().apply([input, x]) as tf.SymbolicTensor;
  x = tf.layers.globalAveragePooling2d({}).apply(x) as tf.SymbolicTensor;
  return tf.model({ inputs: input, outputs: tf.layers.dense({ units: 2 }).apply(x) as tf.SymbolicTensor });
}

function sequence(): tf.LayersModel {
  return tf.sequential({
    layers: [
      tf.layers.embedding({ inputDim: 11, outputDim: 5, inputLength: 6 }),
      tf.layers.bidirectional({
        layer: tf.layers.lstm({ units: 3, returnSequences: true }) as tf.RNN,
        mergeMode: 'concat',
      }),
      tf.layers.timeDistributed({ layer: tf.layers.dense({ units: 4 }) }),
      tf.layers.gru({ units: 3 }),
      tf.layers.dense({ units: 2, activation: 'softmax' }),
    ],
  });
}

function nested(): tf.LayersModel {
  const inner = tf.sequential({
    name: 'base',
    layers: [tf.layers.dense({ units: 3, inputShape: [4], name: 'first' }), tf.layers.dense({ units: 3 })],
  });
  return tf.sequential({ layers: [inner, tf.layers.dense({ units: 1, name: 'head' })] });
}

/** The outputs for one fixed input, to compare models by what they do. */
async function outputs(model: tf.LayersModel): Promise<number[]> {
  const shape = (model.inputs[0]!.shape as (number | null)[]).map((size) => size ?? 1);
  const output = tf.tidy(() => {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length: count }, (_, i) => i % 7);
    return model.predict(tf.tensor(values, shape)) as tf.Tensor;
  });
  const data = Array.from(await output.data());
  output.dispose();
  return data;
}

describe('modelArtifact', () => {
  for (const [name, build] of Object.entries({ residual, sequence, nested })) {
    it(`${name}: the same text and weight names however often it was built, all unique`, async () => {
      const [first, second] = [await artifactFromBuilder(build, 5), await artifactFromBuilder(build, 5)];
      expect(second.topology).toBe(first.topology);
      expect(second.weights).toEqual(first.weights);
      const names = first.weights.map((weight) => weight.name);
      expect(new Set(names).size).toBe(names.length);
    });

    it(`${name}: the model built from it computes the same`, async () => {
      const model = build();
      const copy = await modelFromArtifact(await modelArtifact(model));
      expect(await outputs(copy)).toEqual(await outputs(model));
      model.dispose();
      copy.dispose();
    });

    it(`${name}: exported and loaded again, it is the same artifact`, async () => {
      const artifact = await artifactFromBuilder(build, 5);
      await exportLayersModel(artifact.topology, artifact.weights, folder);
      expect(await loadSavedModel(folder)).toEqual(artifact);
    });

    it(`${name}: leaves no tensors behind`, async () => {
      const before = tf.memory().numTensors;
      const artifact = await artifactFromBuilder(build, 5);
      (await modelFromArtifact(artifact)).dispose();
      await exportLayersModel(artifact.topology, artifact.weights, folder);
      await loadSavedModel(folder);
      expect(tf.memory().numTensors).toBe(before);
    });
  }

  it('moving statistics are weights like the others', async () => {
    const { weights } = await artifactFromBuilder(residual, 1);
    expect(weights.map(({ name }) => name)).toEqual([
      'depthwise_conv2d_1/depthwise_kernel',
      'depthwise_conv2d_1/bias',
      'batch_normalization_1/gamma',
      'batch_normalization_1/beta',
      'batch_normalization_1/moving_mean',
      'batch_normalization_1/moving_variance',
      'sep/depthwise_kernel',
      'sep/pointwise_kernel',
      'sep/bias',
      'dense_1/kernel',
      'dense_1/bias',
    ]);
  });

  it("a nested model's weights carry its name, so names of the inside and outside don't collide", async () => {
    const { weights } = await artifactFromBuilder(nested, 1);
    expect(weights.map(({ name }) => name)).toEqual([
      'base/first/kernel',
      'base/first/bias',
      'base/dense_1/kernel',
      'base/dense_1/bias',
      'head/kernel',
      'head/bias',
    ]);
  });

  it('frozen layers: their weights are listed, and keep their place', async () => {
    const artifact = await artifactFromBuilder(() => {
      const model = nested();
      model.layers[0]!.trainable = false;
      return model;
    }, 1);
    expect(artifact.frozenWeights).toEqual([
      'base/first/kernel',
      'base/first/bias',
      'base/dense_1/kernel',
      'base/dense_1/bias',
    ]);
    expect(artifact.weights.map(({ name }) => name)[0]).toBe('base/first/kernel');
  });

  it('a builder that returns no model, or throws, is an error about the builder', async () => {
    const none = (() => undefined) as unknown as () => tf.LayersModel;
    await expect(artifactFromBuilder(none, 1)).rejects.toMatchObject({ code: 'FED_MODEL_BUILDER' });
    const broken = (): tf.LayersModel => {
      throw new Error('units is missing');
    };
    await expect(artifactFromBuilder(broken, 1)).rejects.toThrow(/builder failed.*units is missing/);
  });
});

describe('modelFromTopology', () => {
  const layer = (className: string, config: object = {}) => ({ class_name: className, config });
  const sequential = (...layers: object[]) => JSON.stringify(layer('Sequential', { name: 'm', layers }));
  const dense = layer('Dense', { units: 2, batch_input_shape: [null, 3], name: 'd' });

  it('builds zeros unless asked for the initial weights as written', async () => {
    const topology = sequential(dense);
    const [zeros, written] = [
      await modelFromTopology(topology),
      await modelFromTopology(topology, { initialWeights: 'as-written' }),
    ];
    expect(Array.from(zeros.getWeights()[0]!.dataSync())).toEqual([0, 0, 0, 0, 0, 0]);
    expect(Array.from(written.getWeights()[0]!.dataSync()).some((value) => value !== 0)).toBe(true);
    zeros.dispose();
    written.dispose();
  });

  it.each([
    ['Lambda', /class "Lambda" \("evil"\).*code never travels/],
    ['TFOpLambda', /class "TFOpLambda"/],
    ['MyOwnLayer', /class "MyOwnLayer"/],
    ['constructor', /class "constructor"/],
  ])('refuses a layer of class %s and names it', async (className, message) => {
    const topology = sequential(dense, layer(className, { name: 'evil' }));
    const building = modelFromTopology(topology);
    await expect(building).rejects.toMatchObject({ code: 'FED_MODEL_LAYER_REFUSED' });
    await expect(building).rejects.toThrow(message);
  });

  it('refuses an unknown class inside a wrapper', async () => {
    const topology = sequential(layer('TimeDistributed', { layer: layer('Lambda', { name: 'hidden' }) }));
    await expect(modelFromTopology(topology)).rejects.toThrow(/"Lambda" \("hidden"\)/);
  });

  it.each([
    ['no JSON', '{"class_name": ', /not JSON/],
    ['another thing', '[1, 2]', /no class_name and config/],
    ['a layer alone', JSON.stringify(dense), /is a "Dense"/],
    [
      'layers that do not fit',
      sequential(dense, layer('Conv2D', { filters: 1, kernel_size: 3, name: 'c' })),
      /fit/,
    ],
  ])('%s is FED_MODEL_TOPOLOGY', async (_, topology, message) => {
    const building = modelFromTopology(topology);
    await expect(building).rejects.toMatchObject({ code: 'FED_MODEL_TOPOLOGY' });
    await expect(building).rejects.toThrow(message);
  });

  it('stops at the limit of parameters before it allocates them', async () => {
    const before = tf.memory();
    // 3 * 10^12 weights would be 12 TB.
    const topology = sequential({ ...dense, config: { ...dense.config, units: 1e12 } });
    await expect(modelFromTopology(topology)).rejects.toMatchObject({
      code: 'FED_MODEL_LIMIT',
      message: expect.stringContaining('"d/kernel" of shape [3,1000000000000]'),
    });
    expect(tf.memory().numTensors).toBe(before.numTensors);
  });

  it('stops at the limits of length, depth and layers', async () => {
    const limit = { code: 'FED_MODEL_LIMIT' };
    const limits = (change: object) => ({ limits: { ...DEFAULT_TOPOLOGY_LIMITS, ...change } });
    const two = sequential(dense, layer('Dense', { units: 2, name: 'e' }));
    await expect(modelFromTopology(two, limits({ maxLayers: 2 }))).rejects.toMatchObject(limit);
    await expect(modelFromTopology(two, limits({ maxCharacters: 50 }))).rejects.toMatchObject(limit);
    const deep = `${'['.repeat(100)}${']'.repeat(100)}`;
    const nest = sequential(layer('Dense', { units: 2, name: 'e', more: JSON.parse(deep) as unknown }));
    await expect(modelFromTopology(nest)).rejects.toMatchObject(limit);
  });
});

describe('writeWeights', () => {
  it('sets what it is given, within the layer’s constraint or not', async () => {
    const model = tf.sequential({
      layers: [tf.layers.dense({ units: 1, inputShape: [2], kernelConstraint: 'unitNorm', name: 'd' })],
    });
    const kernel = {
      name: 'd/kernel',
      dtype: 'float32' as const,
      shape: [2, 1],
      data: Float32Array.of(3, 4),
    };
    const bias = { name: 'd/bias', dtype: 'float32' as const, shape: [1], data: Float32Array.of(1) };
    writeWeights(model, [kernel, bias]);
    // Its unit norm would be (0.6, 0.8).
    expect([...(await readWeights(model))[0]!.data]).toEqual([3, 4]);
    model.dispose();
  });

  it('names a missing, a misshapen and a surplus weight, and changes nothing', async () => {
    const artifact = await artifactFromBuilder(nested, 1);
    const model = await modelFromArtifact(artifact);
    const before = await outputs(model);
    const [first, ...rest] = artifact.weights;
    expect(() => writeWeights(model, rest)).toThrow(/"base\/first\/kernel" \[4,3\] is missing/);
    expect(() => writeWeights(model, [{ ...first!, shape: [3, 4] }, ...rest])).toThrow(
      /\[3,4\].*needs float32 \[4,3\]/,
    );
    expect(() => writeWeights(model, [...artifact.weights, { ...first!, name: 'other' }])).toThrow(
      /no weight "other"/,
    );
    expect(await outputs(model)).toEqual(before);
    writeWeights(model, rest, ['base/first/kernel']);
    model.dispose();
  });

  it('weightsOfLayers: an unknown layer is named with those there are', async () => {
    const model = await modelFromArtifact(await artifactFromBuilder(nested, 1));
    expect(weightsOfLayers(model, ['head'])).toEqual(['head/kernel', 'head/bias']);
    expect(() => weightsOfLayers(model, ['conv'])).toThrow(/no layer "conv"\. It has base, head/);
    expect(namedWeights(model)).toHaveLength(6);
    model.dispose();
  });
});

describe('loadSavedModel', () => {
  async function saved(change: (json: Record<string, unknown>) => void = () => {}): Promise<string> {
    const artifact = await artifactFromBuilder(nested, 1);
    await exportLayersModel(artifact.topology, artifact.weights, folder);
    const file = join(folder, 'model.json');
    const json = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
    change(json);
    await writeFile(file, JSON.stringify(json));
    return file;
  }

  it('takes the folder or its model.json', async () => {
    const file = await saved();
    expect(await loadSavedModel(file)).toEqual(await loadSavedModel(folder));
  });

  it('what is exported, TensorFlow.js itself loads', async () => {
    const file = await saved();
    const json = JSON.parse(await readFile(file, 'utf8')) as tf.io.ModelJSON;
    const weights = await readFile(join(folder, 'weights.bin'));
    const model = await tf.loadLayersModel(
      tf.io.fromMemory({
        modelTopology: json.modelTopology,
        weightSpecs: json.weightsManifest[0]!.weights,
        weightData: weights.buffer.slice(
          weights.byteOffset,
          weights.byteOffset + weights.byteLength,
        ) as ArrayBuffer,
      }),
    );
    const copy = await modelFromArtifact(await artifactFromBuilder(nested, 1));
    expect(await outputs(model)).toEqual(await outputs(copy));
    model.dispose();
    copy.dispose();
  });

  it('weights quantised to bytes become float32', async () => {
    const artifact = await artifactFromBuilder(
      () =>
        tf.sequential({
          layers: [tf.layers.dense({ units: 2, inputShape: [1], useBias: false, name: 'd' })],
        }),
      1,
    );
    const quantization = { dtype: 'uint8', scale: 0.5, min: -1 };
    await writeFile(join(folder, 'w.bin'), Uint8Array.of(0, 4));
    await writeFile(
      join(folder, 'model.json'),
      JSON.stringify({
        modelTopology: JSON.parse(artifact.topology) as object,
        weightsManifest: [
          {
            paths: ['w.bin'],
            weights: [{ name: 'd/kernel', shape: [1, 2], dtype: 'float32', quantization }],
          },
        ],
      }),
    );
    // byte * scale + min: 0 -> -1, 4 -> 1
    expect(Array.from((await loadSavedModel(folder)).weights[0]!.data as Float32Array)).toEqual([-1, 1]);
  });

  it.each([
    ['a GraphModel', (json: Record<string, unknown>) => (json['format'] = 'graph-model'), /GraphModel/],
    ['no manifest', (json: Record<string, unknown>) => delete json['weightsManifest'], /weightsManifest/],
    [
      'weights outside the folder',
      (json: Record<string, unknown>) => {
        json['weightsManifest'] = [{ paths: ['../../etc/passwd'], weights: [] }];
      },
      /outside its folder/,
    ],
    [
      'a weight file that is not there',
      (json: Record<string, unknown>) => {
        json['weightsManifest'] = [{ paths: ['gone.bin'], weights: [] }];
      },
      /can't be read: gone\.bin/,
    ],
  ])('%s is FED_MODEL_FILE', async (_, change, message) => {
    const file = await saved(change);
    await expect(loadSavedModel(file)).rejects.toMatchObject({ code: 'FED_MODEL_FILE' });
    await expect(loadSavedModel(file)).rejects.toThrow(message);
  });

  it('a truncated weight file is FED_MODEL_FILE', async () => {
    const file = await saved();
    const weights = await readFile(join(folder, 'weights.bin'));
    await writeFile(join(folder, 'weights.bin'), weights.subarray(0, 20));
    await expect(loadSavedModel(file)).rejects.toMatchObject({ code: 'FED_MODEL_FILE' });
  });

  it('a path with nothing there is FED_MODEL_FILE', async () => {
    await expect(loadSavedModel(join(folder, 'nothing'))).rejects.toMatchObject({ code: 'FED_MODEL_FILE' });
  });
});
