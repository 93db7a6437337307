/**
 * Adds and subtracts 32-bit words four at a time, in WebAssembly: in JavaScript, adding a mask takes longer than making it.
 * The module has 128 KiB: a piece of the vector in the first half, a piece of a mask in the second, and two functions
 * whose loop runs from the end of the piece to its begin.
 */

export const PIECE_WORDS = 16_384;

interface Kernel {
  readonly memory: { readonly buffer: ArrayBuffer };
  /** Vector + mask, over so many bytes: a multiple of 16, at most 64 KiB. */
  add(bytes: number): void;
  subtract(bytes: number): void;
}

/** Node's WebAssembly, typed as far as it is used here: its full types come only with a browser's. */
const { Module, Instance } = (
  globalThis as unknown as {
    WebAssembly: {
      readonly Module: new (bytes: Uint8Array) => object;
      readonly Instance: new (module: object) => { readonly exports: unknown };
    };
  }
).WebAssembly;

const loop = (operation: string) => `
  25 00 03 40                    ;; 37 bytes: no locals, loop
  20 00 41 10 6b 22 00           ;;   at = at - 16
  20 00 fd 00 04 00              ;;   v128.load at
  20 00 fd 00 04 80 80 04        ;;   v128.load at + 64 KiB
  fd ${operation} 01             ;;   i32x4.add or i32x4.sub
  fd 0b 04 00                    ;;   v128.store at
  20 00 0d 00 0b 0b              ;;   again unless at = 0`;

const MODULE = `
  00 61 73 6d 01 00 00 00
  01 05 01 60 01 7f 00           ;; type: (i32) -> ()
  03 03 02 00 00                 ;; two functions of that type
  05 03 01 00 02                 ;; memory: two pages of 64 KiB
  07 1b 03                       ;; exports
  06 6d 65 6d 6f 72 79 02 00     ;;   memory
  03 61 64 64 00 00              ;;   add
  08 73 75 62 74 72 61 63 74 00 01 ;; subtract
  0a 4d 02 ${loop('ae')} ${loop('b1')}`;

const kernel = new Instance(new Module(Buffer.from(MODULE.replace(/;;.*|\s/g, ''), 'hex'))).exports as Kernel;

/** The piece of a vector, and that of a mask, that the functions work on; one for the process, as they never wait. */
export const vectorPiece: Uint32Array = new Uint32Array(kernel.memory.buffer, 0, PIECE_WORDS);
export const maskPiece: Uint8Array = new Uint8Array(kernel.memory.buffer, PIECE_WORDS * 4, PIECE_WORDS * 4);

/** Adds the first `words` words of the mask's piece to the vector's, modulo 2^32, or subtracts them. */
export function addMaskPiece(words: number, sign: 1 | -1): void {
  if (words === 0) return;
  const bytes = (words * 4 + 15) & ~15;
  if (sign === 1) kernel.add(bytes);
  else kernel.subtract(bytes);
}
