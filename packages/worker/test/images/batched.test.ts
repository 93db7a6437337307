import '@tensorflow/tfjs-backend-cpu';
import '@tensorflow/tfjs-backend-wasm';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { augmentBatch, createBatchedPath, hasProjectiveTransform } from '../../src/images/batched.ts';
import { ImageDataGenerator } from '../../src/images/image-data-generator.ts';
import { Mt19937 } from '../../src/images/mt19937.ts';
import type { ImageDataGeneratorOptions } from '../../src/images/options.ts';
import { IDENTITY } from '../../src/images/random-transform.ts';

const GEOMETRY: ImageDataGeneratorOptions = {
  rotationRange: 60,
  widthShiftRange: 0.4,
  heightShiftRange: 0.4,
  shearRange: 25,
  zoomRange: [0.6, 1.6],
  horizontalFlip: true,
  verticalFlip: true,
};
/** Pixels are 0 … 255. */
const RANGE = 255;

function draw(
  generator: ImageDataGenerator,
  shape: readonly [number, number, number],
  n: number,
  seed: number,
) {
  const random = new Mt19937(seed);
  const bytes = () => Uint8Array.from({ length: shape[0] * shape[1] * shape[2] }, () => random.choice(256));
  const images = Array.from({ length: n }, bytes);
  return { images, transforms: images.map(() => generator.getRandomTransform(shape, random)) };
}

/** The largest difference of the two paths over a batch. */
async function difference(
  generator: ImageDataGenerator,
  shape: readonly [number, number, number],
  { images, transforms }: ReturnType<typeof draw>,
): Promise<number> {
  const batched = await createBatchedPath(tf, generator)(images, shape, transforms);
  let worst = 0;
  images.forEach((data, i) => {
    const exact = generator.standardize(generator.applyTransform({ data, shape }, transforms[i]!)).data;
    for (let k = 0; k < exact.length; k++) {
      worst = Math.max(worst, Math.abs(exact[k]! - batched[i * exact.length + k]!));
    }
  });
  return worst;
}

describe('hasProjectiveTransform', () => {
  it("trusts wasm's clamping, not its mirroring, and not cpu beyond a batch's first image", async () => {
    await tf.setBackend('wasm');
    expect(await hasProjectiveTransform(tf, 'nearest')).toBe(true);
    expect(await hasProjectiveTransform(tf, 'constant')).toBe(true);
    expect(await hasProjectiveTransform(tf, 'reflect')).toBe(false);
    await tf.setBackend('cpu');
    expect(await hasProjectiveTransform(tf, 'nearest')).toBe(false);
  });
});

describe.each(['cpu', 'wasm'])('augmentBatch on %s', (backend) => {
  beforeAll(async () => {
    await tf.setBackend(backend);
  });

  for (const shape of [
    [16, 16, 3],
    [9, 21, 1],
    [30, 12, 4],
    [1, 8, 3],
  ] as const) {
    for (const fillMode of ['nearest', 'constant', 'reflect', 'wrap'] as const) {
      for (const interpolationOrder of [0, 1] as const) {
        for (const variant of ['keras3', 'classic'] as const) {
          it(`agrees with the exact path: ${shape.join('x')}, ${fillMode}, order ${interpolationOrder}, ${variant}`, async () => {
            const options = {
              ...GEOMETRY,
              fillMode,
              interpolationOrder,
              variant,
              cval: 40,
              channelShiftRange: 30,
            };
            const generator = new ImageDataGenerator(options);
            const worst = await difference(generator, shape, draw(generator, shape, 6, 11));
            expect(worst).toBeLessThan(1e-3 * RANGE);
          });
        }
      }
    }
  }

  it('agrees where positions lie exactly on borders and half way between pixels', async () => {
    const shape = [8, 8, 3] as const;
    const exactOnes = [
      { theta: 90 },
      { theta: 180 },
      { theta: -45 },
      { tx: 3 },
      { ty: -7 },
      { tx: 0.5, ty: 0.5 },
      { zx: 2, zy: 2 },
    ];
    for (const fillMode of ['nearest', 'constant', 'reflect', 'wrap'] as const) {
      for (const interpolationOrder of [0, 1] as const) {
        const generator = new ImageDataGenerator({ fillMode, interpolationOrder, cval: 9 });
        const { images } = draw(generator, shape, exactOnes.length * 4, 5);
        const flips = [false, true].flatMap((flipHorizontal) =>
          [false, true].map((flipVertical) => ({ flipHorizontal, flipVertical })),
        );
        const transforms = exactOnes.flatMap((params) =>
          flips.map((flip) => ({ ...IDENTITY, ...params, ...flip })),
        );
        const worst = await difference(generator, shape, { images, transforms });
        expect(worst, `${fillMode} ${interpolationOrder}`).toBeLessThan(1e-3 * RANGE);
      }
    }
  });

  it('agrees with brightness, whose truncation allows no rounding at all', async () => {
    const shape = [12, 10, 3] as const;
    const generator = new ImageDataGenerator({
      ...GEOMETRY,
      channelShiftRange: 20,
      brightnessRange: [0.5, 1.5],
    });
    expect(await difference(generator, shape, draw(generator, shape, 5, 3))).toBe(0);
  });

  it('agrees with a preprocessing function', async () => {
    const shape = [6, 6, 1] as const;
    const preprocessingFunction: NonNullable<ImageDataGeneratorOptions['preprocessingFunction']> = ({
      data,
      shape,
    }) => ({
      data: data.map((value) => 255 - value),
      shape,
    });
    const generator = new ImageDataGenerator({ ...GEOMETRY, preprocessingFunction, rescale: 1 / 255 });
    expect(await difference(generator, shape, draw(generator, shape, 3, 3))).toBe(0);
  });

  it('standardises as the exact path does', async () => {
    const shape = [5, 4, 3] as const;
    const options: ImageDataGeneratorOptions[] = [
      { rescale: 1 / 255 },
      { samplewiseCenter: true },
      { samplewiseStdNormalization: true, rescale: 1 / 255 },
      { featurewiseCenter: true },
      { featurewiseStdNormalization: true },
      { zcaWhitening: true, zcaEpsilon: 0.1, rescale: 1 / 255 },
    ];
    for (const one of options) {
      const generator = new ImageDataGenerator({ ...GEOMETRY, ...one });
      const batch = draw(generator, shape, 8, 21);
      const flat = Float32Array.from(batch.images.flatMap((image) => [...image]));
      generator.fit({ data: flat, shape: [8, ...shape] });
      // Standardised values are a few units wide; without rescale they span 255.
      const range = one.rescale || one.featurewiseStdNormalization ? 1 : RANGE;
      expect(await difference(generator, shape, batch), JSON.stringify(one)).toBeLessThan(1e-3 * range);
    }
  });

  it('leaves no tensor but its result', () => {
    const shape = [6, 6, 3] as const;
    const generator = new ImageDataGenerator({ ...GEOMETRY, fillMode: 'constant', channelShiftRange: 5 });
    const { images, transforms } = draw(generator, shape, 2, 1);
    const before = tf.memory().numTensors;
    const batch = augmentBatch(tf, generator, images, shape, transforms);
    expect(tf.memory().numTensors).toBe(before + 1);
    batch.dispose();
  });

  it('refuses statistics that were not fitted, and channels_first', () => {
    const unfitted = new ImageDataGenerator({ featurewiseCenter: true });
    expect(() => augmentBatch(tf, unfitted, [], [1, 1, 1], [])).toThrow(/mean must be fitted/);
    const first = new ImageDataGenerator({ dataFormat: 'channels_first' });
    expect(() => augmentBatch(tf, first, [], [1, 1, 1], [])).toThrow(/channels_last/);
  });
});
