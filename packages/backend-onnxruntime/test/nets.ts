/** Networks and data for the tests: small, with every weight and every number from a seed. */
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import * as layers from '@tensorflow/tfjs-layers';

export interface Task {
  readonly build: () => layers.LayersModel;
  readonly x: () => tf.Tensor;
  readonly y: () => tf.Tensor;
}

const init = (seed: number) => layers.initializers.heNormal({ seed });
const { conv2d, dense, flatten, maxPooling2d, batchNormalization, activation } = layers.layers;

const images = (batch: number, pixels: number) => () =>
  tf.randomUniform([batch, pixels, pixels, 3], 0, 1, 'float32', 7);
/** 0, 1, 0, 1 … */
const labels = (batch: number) => () => tf.tensor2d(Array.from({ length: batch }, (_, i) => [i % 2]));
const oneHot = (batch: number, classes: number) => () =>
  tf.tensor2d(
    Array.from({ length: batch }, (_, i) => Array.from({ length: classes }, (_, c) => +(i % classes === c))),
  );
const tokens = (batch: number, length: number, vocabulary: number) => () =>
  tf.tensor2d(
    Array.from({ length: batch * length }, (_, i) => (i * 7 + 3) % vocabulary),
    [batch, length],
  );

function compiled(model: layers.LayersModel, loss: string, learningRate = 1e-3): layers.LayersModel {
  model.compile({ optimizer: tf.train.adam(learningRate), loss, metrics: ['accuracy'] });
  return model;
}

/** The digits network of Tributary, `image-cnn-small`. */
export function digitsNetwork(batch = 8, pixels = 28): Task {
  const convolution = (filters: number, kernelSize: number, seed: number) =>
    ({
      filters,
      kernelSize,
      strides: 2,
      padding: 'same',
      activation: 'relu',
      kernelInitializer: init(seed),
    }) as const;
  return {
    build: () =>
      compiled(
        layers.sequential({
          layers: [
            conv2d({ ...convolution(16, 5, 1), inputShape: [pixels, pixels, 1] }),
            conv2d(convolution(32, 3, 2)),
            flatten(),
            dense({ units: 64, activation: 'relu', kernelInitializer: init(3) }),
            dense({ units: 10, activation: 'softmax', kernelInitializer: init(4) }),
          ],
        }),
        'categoricalCrossentropy',
      ),
    x: () => tf.randomUniform([batch, pixels, pixels, 1], 0, 1, 'float32', 7),
    y: oneHot(batch, 10),
  };
}

/** The seed network of Tributary, `image-cnn`, learning so slowly that it doesn't know its few images by heart at once: a loss near 0 has no digits left to compare. */
export function seedNetwork(batch = 2, pixels = 16): Task {
  const convolution = (filters: number, strides: number, seed: number) =>
    ({
      filters,
      strides,
      kernelSize: 3,
      padding: 'same',
      activation: 'relu',
      kernelInitializer: init(seed),
    }) as const;
  return {
    build: () =>
      compiled(
        layers.sequential({
          layers: [
            conv2d({ ...convolution(64, 1, 1), inputShape: [pixels, pixels, 3] }),
            conv2d(convolution(64, 2, 2)),
            maxPooling2d({ poolSize: 2 }),
            conv2d(convolution(128, 1, 3)),
            conv2d(convolution(128, 2, 4)),
            maxPooling2d({ poolSize: 2 }),
            flatten(),
            dense({ units: 256, activation: 'relu', kernelInitializer: init(5) }),
            dense({ units: 1, activation: 'sigmoid', kernelInitializer: init(6) }),
          ],
        }),
        'binaryCrossentropy',
        1e-4,
      ),
    x: images(batch, pixels),
    y: labels(batch),
  };
}

/** Two residual blocks with batch normalisation, the second of them halving the image; global pooling. */
export function residualNetwork(batch = 4, pixels = 12): Task {
  let seed = 10;
  const convolution = (x: layers.SymbolicTensor, filters: number, kernelSize: number, strides = 1) =>
    conv2d({
      filters,
      kernelSize,
      strides,
      padding: 'same',
      useBias: false,
      kernelInitializer: init(seed++),
    }).apply(x) as layers.SymbolicTensor;
  const normalised = (x: layers.SymbolicTensor) => batchNormalization().apply(x) as layers.SymbolicTensor;
  const relu = (x: layers.SymbolicTensor) =>
    activation({ activation: 'relu' }).apply(x) as layers.SymbolicTensor;
  const block = (x: layers.SymbolicTensor, filters: number, strides: number) => {
    const first = relu(normalised(convolution(x, filters, 3, strides)));
    const second = normalised(convolution(first, filters, 3));
    const shortcut = strides === 1 ? x : normalised(convolution(x, filters, 1, strides));
    return relu(layers.layers.add().apply([second, shortcut]) as layers.SymbolicTensor);
  };
  return {
    build: () => {
      seed = 10;
      const input = layers.input({ shape: [pixels, pixels, 3] });
      const body = block(block(relu(normalised(convolution(input, 8, 3))), 8, 1), 16, 2);
      const pooled = layers.layers.globalAveragePooling2d({}).apply(body);
      const output = dense({ units: 3, activation: 'softmax', kernelInitializer: init(40) }).apply(pooled);
      return compiled(
        layers.model({ inputs: input, outputs: output as layers.SymbolicTensor }),
        'categoricalCrossentropy',
      );
    },
    x: images(batch, pixels),
    y: oneHot(batch, 3),
  };
}

/** Depthwise and separable convolutions, overlapping pools of both kinds. */
export function separableNetwork(batch = 4, pixels = 14): Task {
  return {
    build: () =>
      compiled(
        layers.sequential({
          layers: [
            conv2d({
              filters: 8,
              kernelSize: 3,
              strides: 2,
              padding: 'same',
              activation: 'relu6' as 'relu',
              kernelInitializer: init(1),
              inputShape: [pixels, pixels, 3],
            }),
            layers.layers.depthwiseConv2d({
              kernelSize: 3,
              padding: 'same',
              depthMultiplier: 2,
              depthwiseInitializer: init(2),
            }),
            layers.layers.separableConv2d({
              filters: 12,
              kernelSize: 3,
              strides: 1,
              padding: 'same',
              depthwiseInitializer: init(3),
              pointwiseInitializer: init(4),
              activation: 'relu',
            }),
            maxPooling2d({ poolSize: 3, strides: 2, padding: 'same' }),
            layers.layers.depthwiseConv2d({
              kernelSize: 3,
              strides: [2, 2],
              padding: 'same',
              depthwiseInitializer: init(5),
              activation: 'elu',
            }),
            layers.layers.averagePooling2d({ poolSize: 2, strides: 1 }),
            flatten(),
            dense({ units: 1, activation: 'sigmoid', kernelInitializer: init(6) }),
          ],
        }),
        'binaryCrossentropy',
      ),
    x: images(batch, pixels),
    y: labels(batch),
  };
}

export function lstmNetwork(batch = 4, length = 8, vocabulary = 20, units = 128): Task {
  return {
    build: () =>
      compiled(
        layers.sequential({
          layers: [
            layers.layers.embedding({
              inputDim: vocabulary,
              outputDim: 16,
              inputLength: length,
              embeddingsInitializer: layers.initializers.randomUniform({
                minval: -0.1,
                maxval: 0.1,
                seed: 1,
              }),
            }),
            layers.layers.lstm({
              units,
              kernelInitializer: init(2),
              recurrentInitializer: layers.initializers.glorotUniform({ seed: 3 }),
            }),
            dense({ units: 5, activation: 'softmax', kernelInitializer: init(4) }),
          ],
        }),
        'categoricalCrossentropy',
      ),
    x: tokens(batch, length, vocabulary),
    y: oneHot(batch, 5),
  };
}

/** What a custom training loop needs: trainable variables and a loss of them. */
export interface Loop {
  readonly variables: readonly tf.Variable[];
  readonly loss: () => tf.Scalar;
}

/** Two pre-norm transformer blocks with two heads over embedded tokens; written with operations, not layers. */
export function transformer(batch = 4, length = 8, width = 16, vocabulary = 20): Loop {
  const heads = 2;
  const variables: tf.Variable[] = [];
  let seed = 1;
  const weight = (shape: number[], scale = 0.2) => {
    const variable = tf.variable(tf.randomNormal(shape, 0, scale, 'float32', seed++));
    variables.push(variable);
    return variable;
  };
  const x = tf.cast(tokens(batch, length, vocabulary)(), 'int32');
  const target = oneHot(batch, 4)();
  const embedding = weight([vocabulary, width], 1);
  const positions = weight([length, width], 1);
  const head = weight([width, 4]);
  const blocks = [0, 1].map(() => ({
    gain1: weight([width]),
    gain2: weight([width]),
    qkv: weight([width, 3 * width]),
    out: weight([width, width]),
    up: weight([width, 4 * width]),
    down: weight([4 * width, width]),
  }));
  const rows = (h: tf.Tensor): tf.Tensor2D => tf.reshape(h, [-1, h.shape.at(-1)!]);
  const project = (h: tf.Tensor, w: tf.Variable) =>
    tf.reshape(tf.matMul(rows(h), w as tf.Tensor2D), [batch, length, w.shape[1]!]);
  const normalise = (h: tf.Tensor, gain: tf.Variable) => {
    const { mean, variance } = tf.moments(h, -1, true);
    return tf.mul(tf.mul(tf.sub(h, mean), tf.rsqrt(tf.add(variance, 1e-5))), tf.add(gain, 1));
  };
  const attend = (h: tf.Tensor, qkv: tf.Variable, out: tf.Variable) => {
    const parts = tf
      .split(project(h, qkv), 3, 2)
      .map((part) => tf.transpose(tf.reshape(part, [batch, length, heads, width / heads]), [0, 2, 1, 3]));
    const [query, key, value] = parts as [tf.Tensor, tf.Tensor, tf.Tensor];
    const scores = tf.div(tf.matMul(query, key, false, true), Math.sqrt(width / heads));
    const mixed = tf.transpose(tf.matMul(tf.softmax(scores), value), [0, 2, 1, 3]);
    return project(tf.reshape(mixed, [batch, length, width]), out);
  };
  const loss = () => {
    let h: tf.Tensor = tf.add(tf.gather(embedding, x), positions);
    for (const block of blocks) {
      h = tf.add(h, attend(normalise(h, block.gain1), block.qkv, block.out));
      h = tf.add(h, project(tf.elu(project(normalise(h, block.gain2), block.up)), block.down));
    }
    const logits = tf.matMul(tf.mean(h, 1) as tf.Tensor2D, head as unknown as tf.Tensor2D);
    return tf.losses.softmaxCrossEntropy(target, logits) as tf.Scalar;
  };
  return { variables, loss };
}

const LAST_FEATURES = 'out_relu';

interface Topology {
  readonly layers: { readonly name: string; readonly config: Record<string, unknown> }[];
  output_layers: [string, number, number][];
}

/** MobileNetV2 with the weights that the npm package `nsfwjs` carries, and a head of two classes on its pooled features. */
export async function mobileNet(batch = 4, pixels = 32): Promise<Task> {
  const require = createRequire(import.meta.url);
  const folder = join(dirname(require.resolve('nsfwjs')), '../models/mobilenet_v2');
  const { modelTopology, weightsManifest } = require(join(folder, 'model.min.js')) as {
    modelTopology: { model_config: { config: Topology } };
    weightsManifest: tf.io.WeightsManifestConfig;
  };
  const weightData = Uint8Array.from(
    Buffer.from(require(join(folder, 'group1-shard1of1.min.js')) as string, 'base64'),
  ).buffer;
  // Up to its last features: what comes after is made for 224 pixels.
  const topology = structuredClone(modelTopology);
  const { config } = topology.model_config;
  config.layers.splice(config.layers.findIndex(({ name }) => name === LAST_FEATURES) + 1);
  config.output_layers = [[LAST_FEATURES, 0, 0]];
  config.layers[0]!.config['batch_input_shape'] = [null, pixels, pixels, 3];
  const weightSpecs = weightsManifest.flatMap(({ weights }) => weights);
  const artifacts = { modelTopology: topology, weightSpecs, weightData };
  const parts: layers.LayersModel[] = [];
  for (const backend of ['cpu', 'onnxruntime']) {
    await tf.setBackend(backend);
    parts.push(await layers.loadLayersModel(tf.io.fromMemory(artifacts), { strict: false }));
  }
  return {
    build: () => {
      const base = parts.shift()!;
      for (const layer of base.layers) layer.trainable = true;
      const pooled = layers.layers.globalAveragePooling2d({}).apply(base.output);
      const head = dense({ units: 2, activation: 'softmax', kernelInitializer: init(1) });
      const output = head.apply(pooled) as layers.SymbolicTensor;
      return compiled(
        layers.model({ inputs: base.inputs, outputs: output }),
        'categoricalCrossentropy',
        1e-4,
      );
    },
    x: images(batch, pixels),
    y: oneHot(batch, 2),
  };
}

/** The gradient for an image of a strided convolution and of a maximum over windows. */
export function imageGradient(): tf.Tensor {
  return tf.tidy(() => {
    const pixels = tf.randomUniform<tf.Rank.R4>([1, 40, 40, 5], -1, 1, 'float32', 3);
    const filter = tf.randomUniform<tf.Rank.R4>([3, 3, 5, 6], -1, 1, 'float32', 4);
    const pooled = (x: tf.Tensor) =>
      tf.maxPool(tf.conv2d(x as tf.Tensor4D, filter, 2, 'same'), 2, 2, 'valid');
    return tf.grad((x) => tf.sum(tf.square(pooled(x))))(pixels);
  });
}
