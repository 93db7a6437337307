import { describe, expect, it } from 'vitest';
import { mapCoordinate, resample } from '../../src/images/affine.ts';
import { ImageDataGenerator } from '../../src/images/image-data-generator.ts';
import { type Affine, affineMatrix } from '../../src/images/matrix.ts';

const IDENTITY = { theta: 0, tx: 0, ty: 0, shear: 0, zx: 1, zy: 1 };

function ramp(height: number, width: number, channels: number): Float32Array {
  return Float32Array.from({ length: height * width * channels }, (_, i) => (i * 37) % 256);
}

describe('affineMatrix', () => {
  it('is absent when every part is an identity', () => {
    expect(affineMatrix(IDENTITY, 5, 5, 'keras3')).toBeUndefined();
  });

  it("moves columns with tx in keras3, rows in classic: the version's own quirk", () => {
    const params = { ...IDENTITY, tx: 2 };
    expect(affineMatrix(params, 5, 5, 'keras3')).toEqual([1, 0, 0, 1, 0, 2]);
    expect(affineMatrix(params, 5, 5, 'classic')).toEqual([1, 0, 0, 1, 2, 0]);
  });

  it('exchanges height and width in the centre in keras3', () => {
    // Zoom 2 about (ox, oy) = (6/2 - 0.5, 4/2 - 0.5) = (2.5, 1.5): offsets -2.5 and -1.5, exchanged by the swap.
    expect(affineMatrix({ ...IDENTITY, zx: 2, zy: 2 }, 6, 4, 'keras3')).toEqual([2, 0, 0, 2, -1.5, -2.5]);
  });
});

describe('mapCoordinate', () => {
  it('has period n - 1 in wrap and 2n in reflect', () => {
    // wrap, n = 4: -0.6 + 3 = 2.4; 3.7 - 3 = 0.7. reflect: 5.5 -> 8 - 5.5 - 1 = 1.5; -9.3 + 8 = -1.3 -> 0.3.
    expect(mapCoordinate(-0.6, 4, 'wrap')).toBeCloseTo(2.4, 12);
    expect(mapCoordinate(3.7, 4, 'wrap')).toBeCloseTo(0.7, 12);
    expect(mapCoordinate(5.5, 4, 'reflect')).toBeCloseTo(1.5, 12);
    expect(mapCoordinate(-9.3, 4, 'reflect')).toBeCloseTo(0.3, 12);
  });

  it('keeps an axis of one pixel on that pixel', () => {
    for (const mode of ['nearest', 'reflect', 'wrap'] as const) expect(mapCoordinate(2.5, 1, mode)).toBe(0);
  });
});

describe('resample', () => {
  it('gives the same pixels with and without the fast interior', () => {
    // Channels are independent: the specialised loops for 1 and 3 channels and the general one must agree.
    const [height, width] = [13, 17];
    const affine: Affine = [0.9, 0.2, -0.3, 1.1, 0.4, -1.2];
    const sampling = { fillMode: 'reflect', cval: 0, order: 1 } as const;
    const planes = [0, 1, 2, 3, 4].map((k) => ramp(height, width, 1).map((v) => (v + 51 * k) % 256));
    const single = planes.map((plane) => {
      const out = new Float32Array(plane.length);
      resample(plane, out, { height, width, channels: 1 }, affine, sampling);
      return out;
    });
    for (const channels of [3, 5]) {
      const data = new Float32Array(height * width * channels);
      for (let i = 0; i < data.length; i++) data[i] = planes[i % channels]![Math.floor(i / channels)]!;
      const out = new Float32Array(data.length);
      resample(data, out, { height, width, channels }, affine, sampling);
      for (let i = 0; i < out.length; i++)
        expect(out[i]).toBe(single[i % channels]![Math.floor(i / channels)]);
    }
  });

  it('reads bytes as it reads floats', () => {
    const floats = ramp(9, 11, 3);
    const generator = new ImageDataGenerator();
    const params = { theta: 20, tx: 1.5, zx: 0.8 };
    const shape = [9, 11, 3] as const;
    const fromBytes = generator.applyTransform({ data: Uint8Array.from(floats), shape }, params);
    expect(fromBytes.data).toEqual(generator.applyTransform({ data: floats, shape }, params).data);
  });

  it('fills a whole pixel with cval as soon as one coordinate is outside', () => {
    const out = new Float32Array(4);
    // Row 0 reads row -0.25: outside, so no share of row 0 is kept; row 1 reads 0.75.
    resample(
      Float32Array.of(10, 20, 30, 40),
      out,
      { height: 2, width: 2, channels: 1 },
      [1, 0, 0, 1, -0.25, 0],
      {
        fillMode: 'constant',
        cval: 7,
        order: 1,
      },
    );
    // 10 + 0.75 · 20 = 25, 20 + 0.75 · 20 = 35
    expect([...out]).toEqual([7, 7, 25, 35]);
  });
});
