import { expect, it } from 'vitest';
import { resample } from '../../src/images/affine.ts';
import { resampleFast } from '../../src/images/fast-affine.ts';
import { affineMatrix } from '../../src/images/matrix.ts';
import { Mt19937 } from '../../src/images/mt19937.ts';

const SAMPLING = { fillMode: 'nearest', cval: 0, order: 1 } as const;

it('gives the bits of the careful path, of any size, turned and mirrored in any way', () => {
  const random = new Mt19937(7);
  for (const [height, width] of [
    [64, 64],
    [33, 41],
    [1, 1],
    [1, 9],
    [9, 1],
    [16, 2],
    [17, 3],
  ] as const) {
    const size = { height, width, channels: 3 };
    const source = Uint8Array.from({ length: height * width * 3 }, () => random.random() * 256);
    for (let i = 0; i < 40; i++) {
      const params = {
        theta: i % 2 === 0 ? 0 : random.uniform(-180, 180),
        tx: i % 3 === 0 ? random.uniform(-2, 2) * height : 0,
        ty: i % 5 === 0 ? random.uniform(-2, 2) * width : 0,
        shear: random.uniform(-30, 30),
        zx: random.uniform(0.3, 3),
        zy: random.uniform(0.3, 3),
      };
      const affine = affineMatrix(params, height, width, i % 2 === 0 ? 'keras3' : 'classic')!;
      const finish = {
        flipHorizontal: i % 4 < 2,
        flipVertical: i % 8 < 4,
        scale: i % 7 === 0 ? 1 : Math.fround(1 / 255),
      };
      const expected = new Float32Array(source.length);
      resample(source, expected, size, affine, SAMPLING, finish);
      const found = new Float32Array(new SharedArrayBuffer(source.length * 4)).fill(Number.NaN);
      expect(resampleFast(source, found, size, affine, SAMPLING, finish)).toBe(true);
      expect(Buffer.from(found.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
    }
  }
});

it('leaves every other case to the careful path', () => {
  const size = { height: 2, width: 2, channels: 3 };
  const bytes = new Uint8Array(12);
  const floats = new Float32Array(12);
  const affine = [1, 0, 0, 1, 0, 0.5] as const;
  const finish = { flipHorizontal: false, flipVertical: false, scale: 1 };
  const refused = [
    resampleFast(bytes, floats, size, affine, { ...SAMPLING, order: 0 }, finish),
    resampleFast(bytes, floats, size, affine, { ...SAMPLING, fillMode: 'reflect' }, finish),
    resampleFast(floats, floats, size, affine, SAMPLING, finish),
    resampleFast(bytes, new Float64Array(12), size, affine, SAMPLING, finish),
    resampleFast(bytes, floats, { ...size, width: 6, channels: 1 }, affine, SAMPLING, finish),
    resampleFast(bytes, floats, size, [1, 0, 0, 1, 0, Number.NaN], SAMPLING, finish),
  ];
  expect(refused).toEqual(refused.map(() => false));
});
