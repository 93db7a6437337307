import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { errorCode } from '@tributary/shared-protocol';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { decodeImage, loadImage } from '../../src/images/decode.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tributary-decode-'));
});

const [height, width] = [11, 7];
const rgb = Uint8Array.from({ length: height * width * 3 }, (_, i) => (i * 53) % 256);
const raw = (data: Uint8Array, channels: 1 | 3 | 4) => sharp(data, { raw: { width, height, channels } });
const ascii = (text: string) => Buffer.from(text, 'latin1');

async function failure(bytes: Uint8Array, name = 'x.png') {
  try {
    await decodeImage(bytes, name);
  } catch (error) {
    return { code: errorCode(error), message: (error as Error).message };
  }
  throw new Error('it was decoded');
}

/** A PNG whose header is right and whose pixels are not there. */
function hugePng(side: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([ascii(type), data]);
    const crc = Buffer.alloc(4);
    crc.writeUInt32BE(crc32(body));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(data.length);
    return Buffer.concat([length, body, crc]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(10))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** An uncompressed 24-bit BMP, rows from the bottom, padded to 4 bytes. */
function bmp24(data: Uint8Array): Buffer {
  const stride = Math.ceil((width * 3) / 4) * 4;
  const file = Buffer.alloc(54 + stride * height);
  file.write('BM', 0, 'latin1');
  file.writeUInt32LE(file.length, 2);
  file.writeUInt32LE(54, 10);
  file.writeUInt32LE(40, 14);
  file.writeInt32LE(width, 18);
  file.writeInt32LE(height, 22);
  file.writeUInt16LE(1, 26);
  file.writeUInt16LE(24, 28);
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      for (let k = 0; k < 3; k++) {
        file[54 + (height - 1 - r) * stride + c * 3 + k] = data[(r * width + c) * 3 + 2 - k]!;
      }
    }
  }
  return file;
}

describe('decodeImage', () => {
  it('gives the same pixels from PNG, WebP, TIFF, BMP and PPM', async () => {
    const files = {
      png: await raw(rgb, 3).png().toBuffer(),
      webp: await raw(rgb, 3).webp({ lossless: true }).toBuffer(),
      tiff: await raw(rgb, 3).tiff({ compression: 'lzw' }).toBuffer(),
      bmp: bmp24(rgb),
      ppm: Buffer.concat([ascii(`P6\n# made by hand\n${width} ${height}\n255\n`), rgb]),
      plain: ascii(`P3 ${width} ${height} 255 ${[...rgb].join(' ')}`),
    };
    for (const [name, bytes] of Object.entries(files)) {
      const image = await decodeImage(bytes, name);
      expect([name, image.height, image.width, image.channels]).toEqual([name, height, width, 3]);
      expect(Buffer.compare(image.data, rgb), name).toBe(0);
    }
  });

  it('drops alpha without blending, and turns colour to grey by the integer formula', async () => {
    const rgba = Uint8Array.from({ length: height * width * 4 }, (_, i) =>
      i % 4 === 3 ? 10 : (i * 31) % 256,
    );
    const file = join(dir, 'alpha.png');
    await raw(rgba, 4).png().toFile(file);
    const colour = await loadImage(file);
    expect([...colour.data.subarray(0, 6)]).toEqual([...rgba.subarray(0, 3), ...rgba.subarray(4, 7)]);
    const grey = await loadImage(file, { colorMode: 'grayscale' });
    // First pixel: R 0, G 31, B 62: (38470 · 31 + 7471 · 62 + 32768) >> 16 = 25
    expect([grey.channels, grey.data[0]]).toEqual([1, 25]);
    expect((await loadImage(file, { colorMode: 'rgba' })).data[3]).toBe(10);
  });

  it('does not turn an image by its EXIF orientation', async () => {
    const bytes = await raw(rgb, 3).jpeg().withMetadata({ orientation: 6 }).toBuffer();
    const image = await decodeImage(bytes, 'turned.jpg');
    expect([image.height, image.width]).toEqual([height, width]);
  });

  it('scales PPM values to 255, whatever their largest', async () => {
    const image = await decodeImage(ascii('P2 3 1 4 0 1 4'), 'x.ppm');
    // 1/4 · 255 = 63.75
    expect([...image.data]).toEqual([0, 64, 255]);
  });

  it('resizes to [height, width]', async () => {
    const file = join(dir, 'small.png');
    await raw(rgb, 3).png().toFile(file);
    const image = await loadImage(file, { targetSize: [3, 5], interpolation: 'bilinear' });
    expect([image.height, image.width, image.data.length]).toEqual([3, 5, 45]);
  });
});

describe('decodeImage with bad input', () => {
  it('names an empty file', async () => {
    expect(await failure(new Uint8Array(0), 'cats/1.png')).toEqual({
      code: 'FED_IMAGE_UNREADABLE',
      message: 'cats/1.png: the file is empty',
    });
  });

  it('names a text file called .png', async () => {
    const { code, message } = await failure(ascii('These are not pixels.\n'));
    expect(code).toBe('FED_IMAGE_UNREADABLE');
    expect(message).toMatch(/not an image/);
  });

  it('refuses a drawing called .png', async () => {
    const { message } = await failure(
      ascii('<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"></svg>'),
    );
    expect(message).toContain("kind 'svg'");
  });

  it('names a truncated JPEG, PNG, BMP and PPM', async () => {
    // Noise, so that half of the file is far from all of the image.
    const noise = Uint8Array.from(
      { length: 64 * 64 * 3 },
      (_, i) => (Math.imul(i + 1, 2654435761) >>> 13) & 255,
    );
    const image = sharp(noise, { raw: { width: 64, height: 64, channels: 3 } });
    const whole = [
      await image.clone().jpeg().toBuffer(),
      await image.clone().png().toBuffer(),
      bmp24(rgb),
      Buffer.concat([ascii(`P6 ${width} ${height} 255\n`), rgb]),
    ];
    for (const bytes of whole) {
      const { code, message } = await failure(bytes.subarray(0, bytes.length / 2));
      expect(code, message).toBe('FED_IMAGE_UNREADABLE');
      expect(message).toMatch(/cut short|too early/);
    }
  });

  it('refuses 20,000 x 20,000 pixels by the header alone', async () => {
    const { code, message } = await failure(hugePng(20_000), 'scan.png');
    expect(code).toBe('FED_IMAGE_TOO_LARGE');
    expect(message).toContain('20000 x 20000');
    const ppm = await failure(ascii('P6 20000 20000 255\n'), 'scan.ppm');
    expect(ppm.code).toBe('FED_IMAGE_TOO_LARGE');
    const bmp = bmp24(rgb);
    bmp.writeInt32LE(20_000, 18);
    bmp.writeInt32LE(-20_000, 22);
    expect((await failure(bmp, 'scan.bmp')).code).toBe('FED_IMAGE_TOO_LARGE');
  });

  it('says why a file cannot be opened', async () => {
    await expect(loadImage(join(dir, 'absent.png'))).rejects.toThrow(/ENOENT/);
  });

  it('survives every flipped byte of small BMP and PPM headers', async () => {
    const files = [bmp24(rgb), Buffer.concat([ascii(`P6 ${width} ${height} 255\n`), rgb])];
    for (const file of files) {
      for (let at = 0; at < 54; at++) {
        for (const value of [0, 0x7f, 0xff]) {
          const bytes = Buffer.from(file);
          bytes[at] = value;
          const outcome = await decodeImage(bytes, 'x').then(
            (image) =>
              image.data.length === image.height * image.width * image.channels ? 'decoded' : 'odd',
            (error) => errorCode(error) ?? 'unnamed',
          );
          expect(['decoded', 'FED_IMAGE_UNREADABLE', 'FED_IMAGE_TOO_LARGE']).toContain(outcome);
        }
      }
    }
  });
});
