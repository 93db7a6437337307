/**
 * Masks: the keystream of AES-256 in counter mode (NIST SP 800-38A) under a key that is used for one mask and no other,
 * read as 32-bit little-endian words and added modulo 2^32. The low b bits of that sum are the sum modulo 2^b, and each
 * word's low b bits are uniform. A mask is made in pieces of 64 KiB and never kept.
 */
import { type Cipher, createCipheriv } from 'node:crypto';
import { MessageChannel } from 'node:worker_threads';
import { addMasks, clearPieces, MASKS_AT_ONCE, PIECE_WORDS, pieceMasks, pieceWords } from './kernel.ts';

export interface Mask {
  /** 32 bytes, for this mask only. */
  readonly key: Uint8Array;
  /** Whether it is added or subtracted. */
  readonly sign: 1 | -1;
}

/** Open ciphers at a time, where all masks need not be there at once. */
const BATCH = 64;
const COUNTER = new Uint8Array(16);
const ZEROS = new Uint8Array(PIECE_WORDS * 4);

/** A port that is closed: what is transferred through it is gone. */
const nowhere = new MessageChannel().port1;
nowhere.close();

/**
 * Frees the memory of bytes that nobody looks at any more. A cipher returns new memory each time, which would stay until
 * the garbage collector runs: tens of megabytes are filled by then, each page of them cold, and that takes about half as
 * long as the cipher itself. What is transferred is taken from its owner at once, and freed when nobody receives it.
 */
export function release(bytes: Buffer): void {
  // Memory that Node shares among small buffers can't be transferred, and need not be.
  if (bytes.byteLength === bytes.buffer.byteLength)
    nowhere.postMessage(undefined, [bytes.buffer as ArrayBuffer]);
}

/** Masks that are applied to a vector from its begin to its end. */
export interface MaskStream {
  /** Applies the next `count` words of every mask to the words of the kernel's piece. */
  apply(count: number): void;
  /** Erases what is left of the masks, and the piece. */
  end(): void;
}

/** Opens the masks, all at once: a few kilobytes each. The keys are copied and may be erased then. */
export function openMasks(masks: readonly Mask[]): MaskStream {
  const open = (sign: 1 | -1) =>
    masks.filter((mask) => mask.sign === sign).map(({ key }) => createCipheriv('aes-256-ctr', key, COUNTER));
  const streams: [1 | -1, Cipher[]][] = [
    [1, open(1)],
    [-1, open(-1)],
  ];
  return {
    apply(count) {
      const zeros = count === PIECE_WORDS ? ZEROS : ZEROS.subarray(0, count * 4);
      for (const [sign, ciphers] of streams)
        for (let first = 0; first < ciphers.length; first += MASKS_AT_ONCE) {
          const masks = Math.min(MASKS_AT_ONCE, ciphers.length - first);
          for (let i = 0; i < masks; i++) {
            const keystream = ciphers[first + i]!.update(zeros);
            pieceMasks[i]!.set(keystream);
            release(keystream);
          }
          addMasks(count, masks, sign);
        }
    },
    end() {
      for (const [, ciphers] of streams) for (const cipher of ciphers.splice(0)) cipher.final();
      clearPieces();
    },
  };
}

/** Applies whole masks to a whole vector, in place: `vector ± mask` modulo 2^32. */
export function applyMasks(vector: Uint32Array, masks: readonly Mask[]): void {
  for (let first = 0; first < masks.length; first += BATCH) {
    const stream = openMasks(masks.slice(first, first + BATCH));
    for (let start = 0; start < vector.length; start += PIECE_WORDS) {
      const words = vector.subarray(start, start + PIECE_WORDS);
      pieceWords.set(words);
      stream.apply(words.length);
      words.set(words.length === PIECE_WORDS ? pieceWords : pieceWords.subarray(0, words.length));
    }
    stream.end();
  }
}
