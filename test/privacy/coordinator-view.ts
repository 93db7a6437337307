/**
 * What a coordinator sees of one update under secure aggregation: fixed-point words with a mask added modulo 2^32, the
 * keystream of AES-256 in counter mode under a key that the coordinator has not.
 */
import { createCipheriv, randomBytes } from 'node:crypto';

/** Fixed point: steps a unit. An update's numbers are far below 2^8, so that a sum over many sites can't overflow. */
const STEPS = 2 ** 20;

/** The words that a site sends for its update. */
export type CoordinatorView = (update: ArrayLike<number>) => Uint32Array;

/** A site's masked upload; each call draws a mask of its own. */
export const maskedView: CoordinatorView = (update) => {
  const words = toWords(update);
  const cipher = createCipheriv('aes-256-ctr', randomBytes(32), Buffer.alloc(16));
  const mask = cipher.update(Buffer.alloc(4 * words.length));
  return words.map((word, i) => word + mask.readUInt32LE(4 * i));
};

/** The same without a mask: what the tests of the attacks on masked words are compared with. */
export const plainView: CoordinatorView = (update) => toWords(update);

/** Words read as if they were not masked: numbers in the update's unit. */
export function asNumbers(words: Uint32Array): Float64Array {
  return Float64Array.from(words, (word) => (word | 0) / STEPS);
}

function toWords(update: ArrayLike<number>): Uint32Array {
  return Uint32Array.from(update, (value) => Math.round(value * STEPS) >>> 0);
}
