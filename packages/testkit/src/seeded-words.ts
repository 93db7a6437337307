/** Random numbers for tests that have to come out the same each time: the keystream of AES-256-CTR under a seed's key. */
import { createCipheriv, createHash } from 'node:crypto';

const PIECE = Buffer.alloc(4096);

/** Uniform 32-bit words; the same seed gives the same ones. */
export function seededWords(seed: number): () => number {
  const key = createHash('sha256').update(`words ${seed}`).digest();
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  let piece = cipher.update(PIECE);
  let at = 0;
  return () => {
    if (at === piece.length) {
      piece = cipher.update(PIECE);
      at = 0;
    }
    at += 4;
    return piece.readUInt32LE(at - 4);
  };
}

/** Standard normal numbers from uniform words (Box and Muller 1958). */
export function gaussians(words: () => number): () => number {
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log((words() + 0.5) / 2 ** 32));
    const angle = (2 * Math.PI * words()) / 2 ** 32;
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
