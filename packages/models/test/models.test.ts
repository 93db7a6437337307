import { loadEngine, tf } from '@tributary/engine';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildModel, modelArtifact, recipeFor } from '../src/index.ts';

beforeAll(async () => {
  await loadEngine({ prefer: 'cpu' });
});

const IMAGE = { height: 32, width: 32, channels: 3 };

describe('buildModel', () => {
  it('image-cnn: has the layers of the seed network', () => {
    const model = buildModel('image-cnn', {
      input: { height: 64, width: 64, channels: 3 },
      numClasses: 2,
      seed: 1,
    });
    // 64 -> conv 64 -> 32 (stride 2) -> pool 16 -> 16 -> 8 (stride 2) -> pool 4; 4*4*128 = 2048 into the dense layer.
    expect(model.layers.map((layer) => [layer.name, layer.outputShape])).toEqual([
      ['conv1', [null, 64, 64, 64]],
      ['conv2', [null, 32, 32, 64]],
      ['pool1', [null, 16, 16, 64]],
      ['conv3', [null, 16, 16, 128]],
      ['conv4', [null, 8, 8, 128]],
      ['pool2', [null, 4, 4, 128]],
      ['flatten', [null, 2048]],
      ['hidden', [null, 256]],
      ['output', [null, 1]],
    ]);
    const kernel = 9;
    const parameters =
      kernel * 3 * 64 + 64 + (kernel * 64 * 64 + 64) + (kernel * 64 * 128 + 128) + (kernel * 128 * 128 + 128);
    expect(model.countParams()).toBe(parameters + (2048 * 256 + 256) + (256 + 1));
    expect(model.layers.at(-1)?.getConfig()['activation']).toBe('sigmoid');
    model.dispose();
  });

  it('more than two classes: a softmax over all of them', () => {
    const model = buildModel('image-cnn', { input: IMAGE, numClasses: 5, seed: 1 });
    expect(model.outputShape).toEqual([null, 5]);
    expect(model.layers.at(-1)?.getConfig()['activation']).toBe('softmax');
    model.dispose();
  });

  it('the same seed gives the same weights, another one others, and no two layers start alike', async () => {
    const weightsOf = async (seed: number) => {
      const model = buildModel('image-cnn-small', { input: IMAGE, numClasses: 3, seed });
      const { weights } = await modelArtifact(model);
      model.dispose();
      return weights;
    };
    const [a, b, c] = [await weightsOf(7), await weightsOf(7), await weightsOf(8)];
    expect(b).toEqual(a);
    expect(c[0]?.data).not.toEqual(a[0]?.data);
    expect(a[2]?.data.slice(0, 8)).not.toEqual(a[0]?.data.slice(0, 8));
  });

  it('the first weights follow Glorot and Bengio: uniform with limit sqrt(6 / (fan in + fan out))', async () => {
    const model = buildModel('image-cnn-small', { input: IMAGE, numClasses: 10, seed: 3 });
    const hidden = (await modelArtifact(model)).weights.find(({ name }) => name === 'hidden/kernel')!;
    model.dispose();
    const [fanIn, fanOut] = hidden.shape as [number, number];
    const limit = Math.sqrt(6 / (fanIn + fanOut));
    const values = hidden.data as Float32Array;
    const variance = values.reduce((sum, value) => sum + value ** 2, 0) / values.length;
    expect(values.every((value) => Math.abs(value) <= limit)).toBe(true);
    // A uniform on [-l, l] has variance l^2 / 3; with 100,000 draws the estimate is within 2% by far.
    expect(variance / (limit ** 2 / 3)).toBeCloseTo(1, 1);
  });

  it('says which models there are', () => {
    expect(() => buildModel('resnet', { input: IMAGE, numClasses: 2, seed: 1 })).toThrow(
      expect.objectContaining({
        code: 'FED_MODEL_UNKNOWN',
        message: expect.stringContaining('image-cnn-small'),
      }),
    );
  });

  it('refuses images too small for the network, and a single class', () => {
    const tiny = { height: 8, width: 15, channels: 3 };
    expect(() => buildModel('image-cnn', { input: tiny, numClasses: 2, seed: 1 })).toThrow(/16x16.*not 8x15/);
    expect(() => buildModel('image-cnn', { input: IMAGE, numClasses: 1, seed: 1 })).toThrow(
      /2 or more classes/,
    );
  });
});

describe('recipeFor', () => {
  it('image-cnn: the seed recipe', () => {
    const { input, augmentation, training, rounds } = recipeFor('image-cnn', 2);
    expect(input).toMatchObject({ height: 224, width: 224, channels: 3 });
    expect(augmentation).toMatchObject({
      rescale: 1 / 255,
      shearRange: 0.2,
      zoomRange: 0.2,
      horizontalFlip: true,
      rotationRange: 0,
    });
    expect(training).toMatchObject({
      optimizer: { name: 'adam', learningRate: 1e-3 },
      loss: 'binaryCrossentropy',
      metrics: ['accuracy'],
      batchSize: 32,
    });
    expect(rounds * (training.epochs ?? 0)).toBe(10);
  });

  it('more than two classes: categorical cross-entropy', () => {
    expect(recipeFor('image-cnn-small', 10).training.loss).toBe('categoricalCrossentropy');
  });

  it('an unknown name is refused', () => {
    expect(() => recipeFor('nothing', 2)).toThrow(expect.objectContaining({ code: 'FED_MODEL_UNKNOWN' }));
  });
});

it('building and disposing leaves no tensors behind', async () => {
  const before = tf.memory().numTensors;
  const model = buildModel('image-cnn-small', { input: IMAGE, numClasses: 10, seed: 1 });
  await modelArtifact(model);
  model.dispose();
  expect(tf.memory().numTensors).toBe(before);
});
