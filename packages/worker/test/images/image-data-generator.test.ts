import { errorCode } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import { flipHorizontal, flipVertical } from '../../src/images/colour.ts';
import { ImageDataGenerator } from '../../src/images/image-data-generator.ts';
import { Mt19937 } from '../../src/images/mt19937.ts';

const count = (n: number, from = 0) => Float32Array.from({ length: n }, (_, i) => i + from);

describe('ImageDataGenerator options', () => {
  it('refuses spline orders with the reason', () => {
    expect(() => new ImageDataGenerator({ interpolationOrder: 3 })).toThrow(/order.*3.*not supported/i);
  });

  it('turns on what an option needs, and featurewise scaling off under ZCA', () => {
    const zca = new ImageDataGenerator({ zcaWhitening: true, featurewiseStdNormalization: true }).options;
    expect([zca.featurewiseCenter, zca.featurewiseStdNormalization]).toEqual([true, false]);
    expect(new ImageDataGenerator({ featurewiseStdNormalization: true }).options.featurewiseCenter).toBe(
      true,
    );
    expect(new ImageDataGenerator({ samplewiseStdNormalization: true }).options.samplewiseCenter).toBe(true);
  });

  it('refuses ranges that are not pairs, and a split of 1', () => {
    expect(() => new ImageDataGenerator({ zoomRange: [1] as unknown as [number, number] })).toThrow(
      RangeError,
    );
    expect(() => new ImageDataGenerator({ validationSplit: 1 })).toThrow(RangeError);
  });
});

describe('getRandomTransform', () => {
  it('draws both flips even when they are off, and nothing else by default', () => {
    const random = new Mt19937(5);
    new ImageDataGenerator().getRandomTransform([4, 4, 1], random);
    const other = new Mt19937(5);
    other.random();
    other.random();
    expect(random.random()).toBe(other.random());
  });

  it('takes a whole number as pixels to choose from and a float as a range', () => {
    const whole = new ImageDataGenerator({ widthShiftRange: 2 });
    const range = new ImageDataGenerator({ widthShiftRange: { uniform: 2 } });
    for (let seed = 0; seed < 50; seed++) {
      expect([-1, 0, 1]).toContain(whole.getRandomTransform([8, 8, 1], seed).ty + 0);
      expect(Number.isInteger(range.getRandomTransform([8, 8, 1], seed).ty)).toBe(false);
    }
  });

  it('takes a fraction as a share of the extent: height for tx, width for ty', () => {
    const generator = new ImageDataGenerator({ heightShiftRange: [0.5] });
    // choice([0.5]) = 0.5, times a sign, times the height of 10
    expect(Math.abs(generator.getRandomTransform([10, 30, 1], 1).tx)).toBe(5);
  });
});

describe('flips', () => {
  it('mirror both layouts', () => {
    const size = { height: 2, width: 3, channels: 2 };
    const last = count(12);
    flipHorizontal(last, size, 'channels_last');
    expect([...last]).toEqual([4, 5, 2, 3, 0, 1, 10, 11, 8, 9, 6, 7]);
    const first = count(12);
    flipHorizontal(first, size, 'channels_first');
    expect([...first]).toEqual([2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]);
    const rows = count(12);
    flipVertical(rows, size, 'channels_last');
    expect([...rows]).toEqual([6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
    const planes = count(12);
    flipVertical(planes, size, 'channels_first');
    expect([...planes]).toEqual([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
  });
});

describe('brightness', () => {
  it('keeps alpha, and truncates the float32 product', () => {
    const generator = new ImageDataGenerator();
    const image = { data: Uint8Array.of(5, 100, 200, 77), shape: [1, 1, 4] as const };
    // float32(1.4) · 5 rounds to 7 in float32 (6.9999998 in float64); 140; 280 is cut to 255; alpha stays.
    expect([...generator.applyTransform(image, { brightness: 1.4 }).data]).toEqual([7, 140, 255, 77]);
  });

  it('refuses two channels', () => {
    const image = { data: new Uint8Array(2), shape: [1, 1, 2] as const };
    expect(() => new ImageDataGenerator().applyTransform(image, { brightness: 1 })).toThrow(
      /1, 3 or 4 channels/,
    );
  });
});

describe('standardize and fit', () => {
  it('asks for fit before featurewise statistics are used', () => {
    const generator = new ImageDataGenerator({ featurewiseStdNormalization: true });
    expect(() => generator.standardize({ data: count(4), shape: [2, 2, 1] })).toThrow(
      /mean and std must be fitted/,
    );
  });

  it('centres and scales each channel, in either layout', () => {
    for (const dataFormat of ['channels_last', 'channels_first'] as const) {
      const generator = new ImageDataGenerator({ featurewiseStdNormalization: true, dataFormat });
      const last = [0, 10, 2, 10, 4, 10, 6, 30];
      const first = [0, 2, 4, 6, 10, 10, 10, 30];
      const data = Float32Array.from(dataFormat === 'channels_last' ? last : first);
      const shape = dataFormat === 'channels_last' ? ([1, 4, 2] as const) : ([2, 1, 4] as const);
      generator.fit({ data, shape: [1, ...shape] });
      // Channel 0: mean 3, variance (9 + 1 + 1 + 9) / 4 = 5. Channel 1: mean 15, variance (3 · 25 + 225) / 4 = 75.
      expect([...generator.statistics.mean!]).toEqual([3, 15]);
      expect(generator.statistics.std![0]).toBeCloseTo(Math.sqrt(5), 12);
      expect(generator.statistics.std![1]).toBeCloseTo(Math.sqrt(75), 12);
      const out = generator.standardize({ data: Float32Array.from(data), shape }).data;
      const at = dataFormat === 'channels_last' ? 7 : 7;
      expect(out[0]).toBeCloseTo(-3 / Math.sqrt(5), 5);
      expect(out[at]).toBeCloseTo(15 / Math.sqrt(75), 5);
    }
  });

  it('whitens: the covariance of whitened images is the identity', () => {
    const random = new Mt19937(2);
    const [n, features] = [200, 6];
    const data = new Float32Array(n * features);
    for (let i = 0; i < n; i++) {
      const common = random.random();
      for (let k = 0; k < features; k++) data[i * features + k] = common + (k + 1) * random.random();
    }
    const generator = new ImageDataGenerator({ zcaWhitening: true, zcaEpsilon: 1e-9, dtype: 'float64' });
    generator.fit({ data, shape: [n, 1, 6, 1] });
    const second = new Float64Array(features * features);
    for (let i = 0; i < n; i++) {
      const image = {
        data: Float64Array.from(data.subarray(i * features, (i + 1) * features)),
        shape: [1, 6, 1] as const,
      };
      const out = generator.standardize(image).data;
      for (let a = 0; a < 36; a++) second[a]! += (out[Math.floor(a / 6)]! * out[a % 6]!) / n;
    }
    // (1/n) Σ w wᵀ with w = x U diag(√n / s) Uᵀ is U Uᵀ = I.
    for (let a = 0; a < 36; a++) expect(second[a]).toBeCloseTo(Math.floor(a / 6) === a % 6 ? 1 : 0, 6);
  });

  it('refuses ZCA of images whose matrix would not fit', () => {
    const generator = new ImageDataGenerator({ zcaWhitening: true });
    let code: string | undefined;
    try {
      generator.fit({ data: new Uint8Array(224 * 224 * 3), shape: [1, 224, 224, 3] });
    } catch (error) {
      code = errorCode(error);
    }
    expect(code).toBe('FED_DATA_ZCA_TOO_LARGE');
  });

  it('fits on augmented copies, the same for the same seed', () => {
    const fit = (seed: number) => {
      const generator = new ImageDataGenerator({
        featurewiseCenter: true,
        rotationRange: 90,
        fillMode: 'constant',
      });
      generator.fit({ data: count(2 * 25), shape: [2, 5, 5, 1] }, { augment: true, rounds: 3, seed });
      return generator.statistics.mean![0]!;
    };
    expect(fit(1)).toBe(fit(1));
    expect(fit(1)).not.toBe(fit(2));
  });
});

describe('flow', () => {
  const images = { data: count(10), shape: [10, 1, 1, 1] as const };

  it('takes the first share for validation and the rest for training', () => {
    const generator = new ImageDataGenerator({ validationSplit: 0.25 });
    const options = { shuffle: false, labels: count(10), ignoreClassSplit: true, batchSize: 4 };
    const validation = generator.flow(images, { ...options, subset: 'validation' });
    const training = generator.flow(images, { ...options, subset: 'training' });
    // int(10 · 0.25) = 2
    expect([...validation.next().labels!]).toEqual([0, 1]);
    expect([...training.next().labels!]).toEqual([2, 3, 4, 5]);
    expect([training.length, validation.length]).toEqual([2, 1]);
  });

  it('refuses subsets with other labels', () => {
    const generator = new ImageDataGenerator({ validationSplit: 0.5 });
    const labels = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1];
    expect(() => generator.flow(images, { labels, subset: 'training' })).toThrow(/same labels/);
  });

  it('goes on over epochs with short last batches, repeatably', () => {
    const generator = new ImageDataGenerator();
    const read = () => {
      const flow = generator.flow(images, { batchSize: 4, seed: 3 });
      return Array.from({ length: 6 }, () => [...flow.next().indices]);
    };
    const batches = read();
    expect(batches.map((batch) => batch.length)).toEqual([4, 4, 2, 4, 4, 2]);
    expect(
      batches
        .slice(0, 3)
        .flat()
        .sort((a, b) => a - b),
    ).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(batches.slice(3)).not.toEqual(batches.slice(0, 3));
    expect(read()).toEqual(batches);
  });
});
