/** A tiny image federation: 8x8 pictures of crosses, rings and bars, told apart by a small network in a few rounds. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32, deflateSync } from 'node:zlib';

export const SHAPES = ['bar', 'cross', 'ring'] as const;
export const SIDE = 8;

/** Writes `<dir>/train/<shape>/*.png` and `<dir>/test/<shape>/*.png`; the same seed gives the same pixels. */
export async function writeShapes(
  dir: string,
  options: { seed: number; train: Readonly<Record<(typeof SHAPES)[number], number>>; test: number },
): Promise<void> {
  const random = lcg(options.seed);
  for (const shape of SHAPES) {
    for (const [split, count] of [
      ['train', options.train[shape]],
      ['test', options.test],
    ] as const) {
      const folder = join(dir, split, shape);
      await mkdir(folder, { recursive: true });
      for (let i = 0; i < count; i++) {
        const file = join(folder, `${shape}-${String(i).padStart(3, '0')}.png`);
        await writeFile(file, png(draw(shape, random), SIDE));
      }
    }
  }
}

/** One picture: the shape a pixel or so off the middle, bright on dark, with noise. */
function draw(shape: (typeof SHAPES)[number], random: () => number): Uint8Array {
  const [dx, dy] = [Math.floor(random() * 3) - 1, Math.floor(random() * 3) - 1];
  const pixels = new Uint8Array(SIDE * SIDE * 3);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const [u, v] = [Math.abs(x - 3.5 - dx), Math.abs(y - 3.5 - dy)];
      const inside = { bar: v < 1, cross: u < 1 || v < 1, ring: Math.max(u, v) > 2 && Math.max(u, v) < 3 }[
        shape
      ];
      for (let c = 0; c < 3; c++) {
        pixels[(y * SIDE + x) * 3 + c] = Math.floor((inside ? 180 : 20) + random() * 60);
      }
    }
  }
  return pixels;
}

/** A linear congruential generator (Numerical Recipes' constants): enough for test pictures. */
function lcg(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A square RGB picture as a PNG file: header, one compressed block of unfiltered rows, end. */
function png(pixels: Uint8Array, side: number): Buffer {
  const rows = Buffer.alloc(side * (1 + side * 3));
  for (let y = 0; y < side; y++)
    rows.set(pixels.subarray(y * side * 3, (y + 1) * side * 3), y * (1 + side * 3) + 1);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits, RGB
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    block('IHDR', header),
    block('IDAT', deflateSync(rows)),
    block('IEND', Buffer.alloc(0)),
  ]);
}

function block(type: string, data: Buffer): Buffer {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, 'latin1');
  data.copy(out, 8);
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
}
