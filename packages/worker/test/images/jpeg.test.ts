import sharp, { type Sharp } from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodeImage } from '../../src/images/decode.ts';
import { decodePlainJpeg } from '../../src/images/jpeg.ts';

/** Waves and grain in colour: every coefficient is used. */
function photograph(height: number, width: number): Sharp {
  const data = Uint8Array.from({ length: height * width * 3 }, (_, i) => {
    const p = Math.floor(i / 3);
    const [r, c, k] = [Math.floor(p / width), p % width, i % 3];
    return 128 + 70 * Math.sin(r * 0.11 + k) + 50 * Math.cos(c * 0.07 * (k + 1)) + ((i * 7919) % 13);
  });
  return sharp(data, { raw: { height, width, channels: 3 } });
}

describe('decodePlainJpeg', () => {
  for (const [height, width] of [
    [300, 400],
    [37, 53],
    [1, 1],
    [16, 2],
    [9, 640],
  ] as const) {
    for (const chromaSubsampling of ['4:2:0', '4:4:4']) {
      for (const progressive of [false, true]) {
        it(`gives the image library's pixels: ${height} x ${width}, ${chromaSubsampling}, progressive ${progressive}`, async () => {
          const bytes = await photograph(height, width)
            .jpeg({ quality: 83, chromaSubsampling, progressive, optimiseCoding: true })
            .toBuffer();
          const plain = decodePlainJpeg(bytes);
          expect(plain).toMatchObject({ height, width, channels: 3 });
          const expected = await decodeImage(bytes, 'x.jpg');
          expect(Buffer.from(plain!.data).equals(Buffer.from(expected.data))).toBe(true);
        });
      }
    }
  }

  it('leaves grey, other formats, and large images to the image library', async () => {
    const grey = await photograph(20, 30).greyscale().toColourspace('b-w').jpeg().toBuffer();
    const png = await photograph(20, 30).png().toBuffer();
    const large = await sharp({ create: { width: 3000, height: 3000, channels: 3, background: 'red' } })
      .jpeg()
      .toBuffer();
    for (const bytes of [grey, png, large, new Uint8Array(0)]) expect(decodePlainJpeg(bytes)).toBeUndefined();
  });

  it('gives up on a file that is cut short or spoiled, and goes on with the next', async () => {
    const bytes = await photograph(60, 80).jpeg().toBuffer();
    const expected = Buffer.from((await decodeImage(bytes, 'x.jpg')).data);
    let random = 1;
    for (let i = 0; i < 400; i++) {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      const spoiled = Buffer.from(bytes);
      spoiled[random % spoiled.length]! ^= 1 << (random >>> 29);
      const cut = i % 2 === 0 ? spoiled : spoiled.subarray(0, random % spoiled.length);
      // Whatever it says of a spoiled file, it does not throw, and where it gives pixels so does the library.
      const plain = decodePlainJpeg(cut);
      if (plain !== undefined) {
        const copy = Buffer.from(plain.data);
        expect(copy.equals(Buffer.from((await decodeImage(cut, 'x.jpg')).data))).toBe(true);
      }
      expect(Buffer.from(decodePlainJpeg(bytes)!.data).equals(expected)).toBe(true);
    }
  });
});
