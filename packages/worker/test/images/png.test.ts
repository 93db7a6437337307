import sharp, { type Sharp } from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodeImage } from '../../src/images/decode.ts';
import { decodePlainPng } from '../../src/images/png.ts';

/** Waves and grain, in every channel. */
function picture(height: number, width: number, channels: 1 | 3 | 4): Sharp {
  const data = Uint8Array.from({ length: height * width * channels }, (_, i) => {
    const p = Math.floor(i / channels);
    const [r, c, k] = [Math.floor(p / width), p % width, i % channels];
    return 128 + 70 * Math.sin(r * 0.11 + k) + 50 * Math.cos(c * 0.07 * (k + 1)) + ((i * 7919) % 13);
  });
  const image = sharp(data, { raw: { height, width, channels } });
  return channels === 1 ? image.toColourspace('b-w') : image;
}

/** What the image library makes of the bytes, the way decode.ts asks it. */
async function byLibrary(bytes: Buffer): Promise<{ data: Buffer; channels: number }> {
  const { data, info } = await sharp(bytes, { ignoreIcc: true, failOn: 'error', sequentialRead: true })
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { data, channels: info.channels };
}

describe('decodePlainPng', () => {
  for (const channels of [1, 3, 4] as const) {
    for (const [height, width] of [
      [28, 28],
      [1, 1],
      [37, 53],
      [400, 300],
    ] as const) {
      for (const adaptiveFiltering of [false, true]) {
        it(`gives the image library's pixels: ${height} x ${width} x ${channels}, filters ${adaptiveFiltering}`, async () => {
          const bytes = await picture(height, width, channels).png({ adaptiveFiltering }).toBuffer();
          const plain = decodePlainPng(bytes);
          expect(plain).toMatchObject({ height, width, channels });
          const expected = await byLibrary(bytes);
          // The library gives grey in three equal channels.
          const step = channels === 1 ? expected.channels : 1;
          expect(Buffer.from(plain!.data).equals(expected.data.filter((_, i) => i % step === 0))).toBe(true);
        });
      }
    }
  }

  it('leaves palettes, 16 bits, interlacing, transparent colours, large images and other formats to the library', async () => {
    const others = [
      picture(20, 30, 3).png({ palette: true }),
      picture(20, 30, 3).toColourspace('rgb16').png(),
      picture(20, 30, 3).png({ progressive: true }),
      picture(600, 600, 1).png(),
      picture(20, 30, 3).jpeg(),
    ];
    for (const image of others) expect(decodePlainPng(await image.toBuffer())).toBeUndefined();
    expect(decodePlainPng(new Uint8Array(0))).toBeUndefined();
    const plain = await picture(20, 30, 3).png().toBuffer();
    // A transparent colour: chunk tRNS of 6 bytes before the data; its checksum need not be right for this.
    const tRNS = Buffer.concat([Buffer.from([0, 0, 0, 6]), Buffer.from('tRNS'), Buffer.alloc(10)]);
    expect(decodePlainPng(plain)).toBeDefined();
    expect(decodePlainPng(Buffer.concat([plain.subarray(0, 33), tRNS, plain.subarray(33)]))).toBeUndefined();
    expect(decodePlainPng(plain, 599)).toBeUndefined();
  });

  it('where it gives the pixels of a spoiled file, the image library gives the same', async () => {
    const bytes = await picture(40, 50, 3).png().toBuffer();
    let random = 1;
    let given = 0;
    for (let i = 0; i < 600; i++) {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      const spoiled = Buffer.from(bytes);
      spoiled[random % spoiled.length]! ^= 1 << (random >>> 29);
      const cut = i % 2 === 0 ? spoiled : spoiled.subarray(0, random % spoiled.length);
      const plain = decodePlainPng(cut);
      if (plain === undefined) continue;
      given++;
      expect(Buffer.from(plain.data).equals((await byLibrary(cut)).data)).toBe(true);
    }
    // A cut within the last chunk, which holds nothing, is no damage to the pixels.
    expect(given).toBeLessThan(30);
    expect(decodePlainPng(bytes.subarray(0, bytes.length / 2))).toBeUndefined();
    await expect(decodeImage(bytes.subarray(0, bytes.length / 2), 'x.png')).rejects.toMatchObject({
      code: 'FED_IMAGE_UNREADABLE',
    });
  });
});
