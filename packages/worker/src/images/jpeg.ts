/**
 * Ordinary JPEG files decoded on the spot by libjpeg-turbo in WebAssembly, for the image threads: the image library
 * gives the same pixels, but hands each file to threads of its own and allocates as it goes, which takes twice as long.
 * What is not ordinary, large, or damaged in any way is left to that library, which also knows what to say about it.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Raster } from './resize.ts';

/** Memory of an instance grows with the largest image that it saw, and never shrinks. */
const MAX_PIXELS_HERE = 2 ** 22;
const RGB = 0;

/** What the module exports: turbojpeg's interface, and its heap. */
interface Turbo {
  memory: { readonly buffer: ArrayBuffer };
  malloc(bytes: number): number;
  free(address: number): void;
  tjInitDecompress(): number;
  tjDecompress2(
    handle: number,
    source: number,
    bytes: number,
    target: number,
    width: number,
    pitch: number,
    height: number,
    format: number,
    flags: number,
  ): number;
}

interface Instance {
  turbo: Turbo;
  handle: number;
  source: { address: number; bytes: number };
  target: { address: number; bytes: number };
}

/** Not in the type library of Node without the browser's. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { exports: unknown };
};

let module: object | undefined;
let instance: Instance | undefined;

/**
 * Returns the image in three channels, or undefined when it is not for this decoder. The pixels lie in the decoder's
 * own memory and are valid until the next call.
 */
export function decodePlainJpeg(bytes: Uint8Array): Raster | undefined {
  const size = plainJpegSize(bytes);
  if (size === undefined || !size.common || size.width * size.height > MAX_PIXELS_HERE) return undefined;
  const { width, height } = size;
  try {
    instance ??= instantiate();
    const { turbo, handle } = instance;
    const source = room(instance, 'source', bytes.length);
    const target = room(instance, 'target', width * height * 3);
    new Uint8Array(turbo.memory.buffer, source, bytes.length).set(bytes);
    const status = turbo.tjDecompress2(handle, source, bytes.length, target, width, 0, height, RGB, 0);
    if (status !== 0) return undefined;
    const data = new Uint8Array(turbo.memory.buffer, target, width * height * 3);
    return { data, height, width, channels: 3 };
  } catch {
    // It left in the middle of its work, with its stack as it was then.
    instance = undefined;
    return undefined;
  }
}

/**
 * Returns the size of a JPEG file in grey or three colours as its header gives it, and undefined for anything else.
 * `common`: three components, sampled as all encoders do, in YCbCr, with at least one pixel.
 */
export function plainJpegSize(
  bytes: Uint8Array,
): { width: number; height: number; common: boolean } | undefined {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return undefined;
  const word = (at: number) => bytes[at]! * 256 + bytes[at + 1]!;
  let adobe = false;
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; at += 2 + word(at + 2)) {
    const marker = bytes[at + 1]!;
    if (marker === 0xee) adobe = true;
    // A frame, but not one of the markers for tables (DHT, JPG, DAC) that lie among them.
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      const components = bytes[at + 9]!;
      if (components !== 1 && components !== 3) return undefined;
      const [height, width] = [word(at + 5), word(at + 7)];
      const sampling = [11, 14, 17].map((offset) => bytes[at + offset]!);
      const ids = [10, 13, 16].map((offset) => bytes[at + offset]!);
      const common =
        components === 3 &&
        !adobe &&
        marker <= 0xc2 &&
        bytes[at + 4] === 8 &&
        ids.join() === '1,2,3' &&
        (sampling[0] === 0x22 || sampling[0] === 0x21 || sampling[0] === 0x11) &&
        sampling[1] === 0x11 &&
        sampling[2] === 0x11 &&
        width > 0 &&
        height > 0;
      return { width, height, common };
    }
    if (marker < 0xc0 || (marker >= 0xd0 && marker <= 0xda)) return undefined;
  }
  return undefined;
}

function instantiate(): Instance {
  if (module === undefined) {
    const file = createRequire(import.meta.url).resolve('@cwasm/jpeg-turbo/jpeg-turbo.wasm');
    module = new WebAssembly.Module(readFileSync(file));
  }
  const none = () => 0;
  const { exports } = new WebAssembly.Instance(module, {
    env: {
      setjmp: none,
      longjmp() {
        throw new Error('the decoder gave up');
      },
    },
    wasi_snapshot_preview1: {
      environ_sizes_get: none,
      environ_get: none,
      proc_exit: none,
      fd_close: none,
      fd_seek: none,
      fd_write: none,
    },
  });
  const turbo = exports as Turbo;
  const handle = turbo.tjInitDecompress();
  if (handle === 0) throw new Error('the decoder does not start');
  return { turbo, handle, source: { address: 0, bytes: 0 }, target: { address: 0, bytes: 0 } };
}

/** Returns the address of a buffer of at least so many bytes, the same one as long as it is large enough. */
function room({ turbo, ...buffers }: Instance, which: 'source' | 'target', bytes: number): number {
  const buffer = buffers[which];
  if (buffer.bytes < bytes) {
    turbo.free(buffer.address);
    buffer.bytes = 0;
    buffer.address = turbo.malloc(bytes);
    if (buffer.address === 0) throw new Error('no memory');
    buffer.bytes = bytes;
  }
  return buffer.address;
}
