/** Random numbers that nobody can foretell, for noise, masks and stochastic rounding: from `node:crypto` and nothing else. */
import { randomFillSync } from 'node:crypto';

/** Uniform and independent 32-bit words. Tests may bring their own; nothing else may. */
export type RandomWords = () => number;

const POOL_WORDS = 16_384;

/** Returns a source of words that are drawn from the system 64 KiB at a time and forgotten as they are used. */
export function cryptoWords(): RandomWords {
  const pool = new Uint32Array(POOL_WORDS);
  let next = POOL_WORDS;
  return () => {
    if (next === POOL_WORDS) {
      randomFillSync(pool);
      next = 0;
    }
    const word = pool[next] as number;
    pool[next++] = 0;
    return word;
  };
}
