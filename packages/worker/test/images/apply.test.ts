import { describe, expect, it } from 'vitest';
import { prepareInto } from '../../src/images/apply.ts';
import { ImageDataGenerator } from '../../src/images/image-data-generator.ts';
import type { ImageDataGeneratorOptions } from '../../src/images/options.ts';

const CASES: readonly [string, ImageDataGeneratorOptions][] = [
  [
    'the seed recipe',
    { shearRange: 0.2, zoomRange: 0.2, horizontalFlip: true, verticalFlip: true, rescale: 1 / 255 },
  ],
  ['flips alone', { horizontalFlip: true, verticalFlip: true, rescale: 0.3 }],
  ['no rescale', { rotationRange: 60, horizontalFlip: true }],
  [
    'constant borders, order 0',
    {
      rotationRange: 60,
      fillMode: 'constant',
      cval: 9,
      interpolationOrder: 0,
      verticalFlip: true,
      rescale: -2,
    },
  ],
  [
    'float64',
    { rotationRange: 60, fillMode: 'wrap', horizontalFlip: true, rescale: 1 / 3, dtype: 'float64' },
  ],
  [
    'what takes more than one pass',
    { rotationRange: 20, channelShiftRange: 30, horizontalFlip: true, rescale: 1 / 255 },
  ],
];

describe('prepareInto', () => {
  for (const [name, options] of CASES) {
    for (const dataFormat of ['channels_last', 'channels_first'] as const) {
      for (const channels of [1, 3, 4]) {
        it(`gives the bits of one step after another: ${name}, ${dataFormat}, ${channels} channels`, () => {
          const generator = new ImageDataGenerator({ ...options, dataFormat });
          const shape =
            dataFormat === 'channels_last' ? ([11, 14, channels] as const) : ([channels, 11, 14] as const);
          const data = Uint8Array.from({ length: 154 * channels }, (_, i) => (i * 97 + (i >> 3)) % 256);
          for (let seed = 0; seed < 12; seed++) {
            const params = generator.getRandomTransform(shape, seed);
            const expected = generator.standardize(generator.applyTransform({ data, shape }, params)).data;
            const target = expected.map(() => Number.NaN);
            prepareInto(generator.options, {}, { data, shape }, params, target);
            expect(target).toEqual(expected);
          }
        });
      }
    }
  }
});
