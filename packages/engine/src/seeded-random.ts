/**
 * TensorFlow.js draws dropout masks and unseeded initial weights from seeds that it takes from Math.random. Replacing
 * that for the length of a synchronous call makes both repeatable, for every layer, without knowing which draw.
 */

/**
 * Returns what `body` returns, having run it with Math.random replaced by a generator with this seed (a 32-bit
 * integer); Math.random is back afterwards, also after an error. `body` has to be synchronous: a promise's rest would
 * run with the original generator.
 */
export function withSeededRandom<T>(seed: number, body: () => T): T {
  const original = Math.random;
  Math.random = seededRandom(seed);
  try {
    return body();
  } finally {
    Math.random = original;
  }
}

/** Returns numbers in [0, 1), 32 bits of them: a counter through a mixing function (splitmix, Steele et al. 2014). */
export function seededRandom(seed: number): () => number {
  let counter = seed | 0;
  return () => {
    counter = (counter + 0x9e3779b9) | 0;
    let mixed = Math.imul(counter ^ (counter >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}
