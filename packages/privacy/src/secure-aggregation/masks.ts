/**
 * Masks: the keystream of AES-256 in counter mode (NIST SP 800-38A) under a key that is used for one mask and no other,
 * read as 32-bit little-endian words and added modulo 2^32. The low b bits of that sum are the sum modulo 2^b, and each
 * word's low b bits are uniform. A mask is made in pieces of 64 KiB and never kept.
 */
import { type Cipher, createCipheriv } from 'node:crypto';
import { addMaskPiece, maskPiece, PIECE_WORDS, vectorPiece } from './mask-kernel.ts';

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

/** Masks that are applied to a vector from its begin to its end. */
export interface MaskStream {
  /** Applies the next `words.length` words of every mask, in place; at most `PIECE_WORDS`. */
  apply(words: Uint32Array): void;
  /** Erases what is left of the masks. */
  end(): void;
}

/** Opens the masks, all at once: a few kilobytes each. The keys are copied and may be erased then. */
export function openMasks(masks: readonly Mask[]): MaskStream {
  const streams: { cipher: Cipher; sign: 1 | -1 }[] = masks.map(({ key, sign }) => ({
    cipher: createCipheriv('aes-256-ctr', key, COUNTER),
    sign,
  }));
  return {
    apply(words) {
      vectorPiece.set(words);
      const zeros = words.length === PIECE_WORDS ? ZEROS : ZEROS.subarray(0, words.length * 4);
      for (const { cipher, sign } of streams) {
        maskPiece.set(cipher.update(zeros));
        addMaskPiece(words.length, sign);
      }
      words.set(words.length === PIECE_WORDS ? vectorPiece : vectorPiece.subarray(0, words.length));
    },
    end() {
      for (const { cipher } of streams.splice(0)) cipher.final();
      maskPiece.fill(0);
      vectorPiece.fill(0);
    },
  };
}

/** Applies whole masks to a whole vector, in place: `vector ± mask` modulo 2^32. */
export function applyMasks(vector: Uint32Array, masks: readonly Mask[]): void {
  for (let first = 0; first < masks.length; first += BATCH) {
    const stream = openMasks(masks.slice(first, first + BATCH));
    for (let start = 0; start < vector.length; start += PIECE_WORDS)
      stream.apply(vector.subarray(start, start + PIECE_WORDS));
    stream.end();
  }
}
