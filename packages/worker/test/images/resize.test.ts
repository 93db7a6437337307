import { describe, expect, it } from 'vitest';
import { centreBox, resize } from '../../src/images/resize.ts';

const row = (...data: number[]) => ({
  data: Uint8Array.from(data),
  height: 1,
  width: data.length,
  channels: 1,
});

describe('resize', () => {
  it('returns the image itself when nothing changes', () => {
    const image = row(1, 2, 3);
    expect(resize(image, 1, 3, 'bicubic')).toBe(image);
  });

  it('averages over the widened support when shrinking', () => {
    // 4 -> 2: scale 2, centres 1 and 3, weights f((i - 1 + 0.5) / 2) for i = 0 … 2: 0.75, 0.75, 0.25 over 1.75.
    // (0.75 · 0 + 0.75 · 70 + 0.25 · 140) / 1.75 = 50
    expect([...resize(row(0, 70, 140, 210), 1, 2, 'bilinear').data]).toEqual([50, 160]);
  });

  it('picks the pixel under the centre for nearest', () => {
    // floor((i + 0.5) · 5 / 3) = 0, 2, 4
    expect([...resize(row(10, 20, 30, 40, 50), 1, 3, 'nearest').data]).toEqual([10, 30, 50]);
  });

  it('weighs colours by alpha', () => {
    const image = { data: Uint8Array.of(200, 0, 0, 255, 0, 200, 0, 0), height: 1, width: 2, channels: 4 };
    // The transparent green has no say in the colour; alpha is the mean, 127.5 rounded up.
    expect([...resize(image, 1, 1, 'bilinear').data]).toEqual([199, 0, 0, 128]);
  });

  it('crops around the centre to keep the aspect ratio', () => {
    const image = { data: new Uint8Array(20), height: 2, width: 10, channels: 1 };
    // A square of the height, 2: floor((10 - 2) / 2) = 4
    expect(centreBox(image, 7, 7)).toEqual({ left: 4, top: 0, right: 6, bottom: 2 });
  });
});
