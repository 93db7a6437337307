import sharp, { type Sharp } from 'sharp';
import { describe, expect, it } from 'vitest';
import { decodeBaselineJpeg } from '../../src/images/baseline-jpeg.ts';
import { decodeImage, decodeOrdinaryJpeg, fitImage, type LoadOptions } from '../../src/images/decode.ts';

/** Files of 45 x 37 pixels as the image library does not write them: `cjpeg -quality 45 -optimize` with the options. */
const FILES = {
  '-sample 2x1': `
    /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABIMDRANCxIQDhAUExIVGywdGxgYGzYnKSAsQDlEQz85Pj1HUGZXR0thTT0+WXlaYWlt
    cnNyRVV9hnxvhWZwcm7/2wBDARMUFBsXGzQdHTRuST5Jbm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5u
    bm5ubm5ubm7/wAARCAAlAC0DASEAAhEBAxEB/8QAGAABAQEBAQAAAAAAAAAAAAAABQQCBgH/xAAgEAABBAEFAQEAAAAAAAAAAAAA
    AgQSMQMBBREhIhMj/8QAGQEBAQEBAQEAAAAAAAAAAAAABQABBAID/8QAHBEAAwADAQEBAAAAAAAAAAAAAAEDAhITIgQj/9oADAMB
    AAIRAxEAPwDo3kIhCoTPhK/6HvGPkqww4PckODcr/uGuPskVCYg2h8y+i/sTUfAc83DzYOrcPdnPKb6CGKWpVh3DqzWTcOrNym+4
    Y0tyNW4e7EG24fnZfRN7iaS0IniFxCFIXMWlFdDhxv5KcKF8GsiF8FlFdw139kikLmINkL+ZfRFbiav4OkeMNI0EKYaTo2VV0OHF
    PUpwsNOKNZGGnFG5VXcMae5IphpOhBsw0+dF9FVuJpPQYeK8UEKV7oJlR9DuxmtSnCrqjWRXVFlR9w1zW5IpXuhBsr86L6KPcTU1
    of/Z`,
  '-restart 2B': `
    /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABIMDRANCxIQDhAUExIVGywdGxgYGzYnKSAsQDlEQz85Pj1HUGZXR0thTT0+WXlaYWlt
    cnNyRVV9hnxvhWZwcm7/2wBDARMUFBsXGzQdHTRuST5Jbm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5u
    bm5ubm5ubm7/wAARCAAlAC0DASIAAhEBAxEB/8QAGQAAAgMBAAAAAAAAAAAAAAAAAAUCBAYB/8QAIBAAAQQBBQEBAAAAAAAAAAAA
    AAIEEjEDAQURISITI//EABcBAQEBAQAAAAAAAAAAAAAAAAQFAAH/xAAbEQACAwEBAQAAAAAAAAAAAAAAAgEDEgQTMf/dAAQAAv/a
    AAwDAQACEQMRAD8A0byERQqEzjzcPNidW4e7C1WWegxeZcmjww4O5IcCXDuHVksm4dWZrLPcmTzLs//QuKhMYNofMyytw92MG24f
    nYXoezYyOZcFJ4hcRQpC5m0eMNI0KFMNJ0VKor9AS3vk/9FPhQvglkQvgd4WGnFEsjDTihTRX7kyb32ZdSFzGDZC/mXVMNJ0MGzD
    T50boivZTi98H//S0jxXihQpXugAFU0+glVjPws4VdUSyK6oAOs0+5NlV38P/9O6pXuhg2V+dAALoad/RUIuPh//2Q==`,
  '-sample 1x1 -restart 1B': `
    /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABIMDRANCxIQDhAUExIVGywdGxgYGzYnKSAsQDlEQz85Pj1HUGZXR0thTT0+WXlaYWlt
    cnNyRVV9hnxvhWZwcm7/2wBDARMUFBsXGzQdHTRuST5Jbm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5u
    bm5ubm5ubm7/wAARCAAlAC0DAREAAhEBAxEB/8QAGQAAAwEBAQAAAAAAAAAAAAAAAwQFBgIB/8QAIBAAAQQBBQEBAAAAAAAAAAAA
    AAIEEjEDAQURISITI//EABkBAAMBAQEAAAAAAAAAAAAAAAMEBQIBAP/EABoRAAMAAwEAAAAAAAAAAAAAAAABAwIEESH/3QAEAAH/
    2gAMAwEAAhEDEQA/ANG8hETpc7hE/9BxUJmde4XOPh//0a2GHAPauI1j6f/Sr5IcC2tf0nzj6f/TcVCZq9/Dco+H/9S42h8xBXC5
    R9P/1W3m4ebJtJspYJH/1klbh7sW15srZpcP/9fjDuHVim1Nm6pdP//Q8ybh1ZP1pvp7BLp//9FJW4e7BXm+FSSXD//S7bbh+dkp
    TZVyS6f/01XiFxCUigmFz//UzykLmO68UMZ38P/Vj4UL4HNqKFK39P/Wk5EL4D60V0Rnf0//188pC5lG8VwNK/h//9Cc2Qv5nVFB
    8r+n/9Gm8YaRoNSqFsEz/9IamGk6H9eqBZp8P//TLhYacUPbVURqp9P/1D5GGnFDOtVdIk0+n//VGphpOineq4LyT4f/1nGzDT50
    bVUByT6f/9fSPFeKJ9KMLhNH/9B1SvdANejGc5rh/9GthV1QvtUYrWa6f//SsZFdUJa1H0SnNdP/03VK90YvR8DymuH/1LrZX50T
    FRjOU10//9k=`,
};

/** Waves and grain in colour: every coefficient is used. */
function photograph(height: number, width: number): Sharp {
  const data = Uint8Array.from({ length: height * width * 3 }, (_, i) => {
    const p = Math.floor(i / 3);
    const [r, c, k] = [Math.floor(p / width), p % width, i % 3];
    return 128 + 90 * Math.sin(r * 0.11 + k) + 70 * Math.cos(c * 0.07 * (k + 1)) + ((i * 7919) % 31);
  });
  return sharp(data, { raw: { height, width, channels: 3 } });
}

async function libraryPixels(bytes: Uint8Array): Promise<Buffer> {
  return Buffer.from((await decodeImage(bytes, 'x.jpg')).data);
}

describe('decodeBaselineJpeg', () => {
  for (const [height, width] of [
    [300, 400],
    [37, 53],
    [16, 16],
    [1, 5],
    [17, 6],
    [9, 641],
  ] as const) {
    for (const chromaSubsampling of ['4:2:0', '4:4:4']) {
      for (const quality of [20, 83, 100]) {
        it(`gives the image library's pixels: ${height} x ${width}, ${chromaSubsampling}, quality ${quality}`, async () => {
          for (const optimiseCoding of [false, true]) {
            const bytes = await photograph(height, width)
              .jpeg({ quality, chromaSubsampling, optimiseCoding })
              .toBuffer();
            const found = decodeBaselineJpeg(bytes);
            expect(found).toMatchObject({ height, width, channels: 3 });
            expect(Buffer.from(found!.data).equals(await libraryPixels(bytes))).toBe(true);
          }
        });
      }
    }
  }

  for (const [name, base64] of Object.entries(FILES)) {
    it(`gives the image library's pixels of a file written with ${name}`, async () => {
      const bytes = Buffer.from(base64, 'base64');
      const found = decodeBaselineJpeg(bytes);
      expect(found).toMatchObject({ height: 37, width: 45, channels: 3 });
      expect(Buffer.from(found!.data).equals(await libraryPixels(bytes))).toBe(true);
    });
  }

  it('leaves to others what is grey, progressive, large, tiny in colour, or no JPEG', async () => {
    const others = [
      photograph(20, 30).greyscale().toColourspace('b-w').jpeg(),
      photograph(20, 30).jpeg({ progressive: true }),
      sharp({ create: { width: 3000, height: 3000, channels: 3, background: 'red' } }).jpeg(),
      photograph(20, 4).jpeg({ chromaSubsampling: '4:2:0' }),
      photograph(20, 30).png(),
    ];
    for (const other of others) expect(decodeBaselineJpeg(await other.toBuffer())).toBeUndefined();
    expect(decodeBaselineJpeg(new Uint8Array(0))).toBeUndefined();
  });

  it('gives pixels of a spoiled file only where the image library gives the same', async () => {
    const whole = [
      await photograph(60, 80).jpeg().toBuffer(),
      ...Object.values(FILES).map((base64) => Buffer.from(base64, 'base64')),
    ];
    let random = 1;
    let given = 0;
    for (let i = 0; i < 1200; i++) {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      const bytes = whole[i % whole.length]!;
      const spoiled = Buffer.from(bytes);
      spoiled[random % spoiled.length]! ^= 1 << (random >>> 29);
      const cut = i % 16 < 8 ? spoiled : spoiled.subarray(0, random % spoiled.length);
      const found = decodeBaselineJpeg(cut);
      if (found !== undefined) {
        given++;
        expect(Buffer.from(found.data).equals(await libraryPixels(cut))).toBe(true);
      }
      expect(decodeBaselineJpeg(bytes)).toBeDefined();
    }
    expect(given).toBeGreaterThan(0);
  });
});

describe('decodeOrdinaryJpeg', () => {
  const sizes: readonly LoadOptions[] = [
    { targetSize: null },
    { targetSize: [31, 47] },
    { targetSize: [200, 90], keepAspectRatio: true },
    { targetSize: [300, 400] },
    { targetSize: [31, 47], interpolation: 'bilinear' },
    { targetSize: [31, 47], colorMode: 'grayscale', keepAspectRatio: true },
  ];
  for (const options of sizes) {
    it(`gives what fitting all of the pixels gives: ${JSON.stringify(options)}`, async () => {
      const bytes = await photograph(120, 161).jpeg().toBuffer();
      const whole = await decodeImage(bytes, 'x.jpg');
      const expected = fitImage(whole, options);
      const found = fitImage(decodeOrdinaryJpeg(bytes, options)!, options);
      expect(found).toMatchObject({ height: expected.height, width: expected.width });
      expect(Buffer.from(found.data).equals(Buffer.from(expected.data))).toBe(true);
    });
  }
});
