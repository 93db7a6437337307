/**
 * The Mersenne Twister (Matsumoto and Nishimura 1998) with numpy's legacy derivations, so that a seeded augmentation
 * draws the same numbers as Keras does. For training only: it is predictable, and nothing private may come from it.
 */

const LENGTH = 624;
const MIDDLE = 397;
const TWIST = 0x9908b0df;

export class Mt19937 {
  readonly #state = new Uint32Array(LENGTH);
  #next = LENGTH;

  /** @param seed an integer; its low 32 bits are used. */
  constructor(seed: number) {
    this.seed(seed);
  }

  /** Starts the stream of `seed` (its low 32 bits), as numpy's `random.seed` does. */
  seed(seed: number): void {
    const state = this.#state;
    state[0] = seed >>> 0;
    for (let i = 1; i < LENGTH; i++) {
      const previous = state[i - 1]! ^ (state[i - 1]! >>> 30);
      state[i] = Math.imul(1812433253, previous) + i;
    }
    this.#next = LENGTH;
  }

  /** Returns the next 32 random bits, in [0, 2^32). */
  uint32(): number {
    if (this.#next === LENGTH) this.#refill();
    let bits = this.#state[this.#next++]!;
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  /** Returns a number in [0, 1) with 53 random bits. */
  random(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** Returns `low + (high - low) * random()`; the two may be in either order. */
  uniform(low: number, high: number): number {
    return low + (high - low) * this.random();
  }

  /** Returns an integer in [0, count), by masked rejection; `count` = 1 draws nothing. @throws RangeError below 1 */
  choice(count: number): number {
    if (!Number.isInteger(count) || count < 1 || count > 2 ** 32) {
      throw new RangeError(`choice: count must be an integer in [1, 2^32]; got ${count}`);
    }
    return this.#interval(count - 1);
  }

  /** Returns one of `values`, drawn with `choice`. */
  pick<T>(values: readonly T[]): T {
    return values[this.choice(values.length)]!;
  }

  /** Returns 0 … count-1 in random order. */
  permutation(count: number): Int32Array {
    const order = Int32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.#interval(i);
      const kept = order[i]!;
      order[i] = order[j]!;
      order[j] = kept;
    }
    return order;
  }

  /** An integer in [0, max]. */
  #interval(max: number): number {
    if (max === 0) return 0;
    const mask = 2 ** (32 - Math.clz32(max)) - 1;
    for (;;) {
      const value = (this.uint32() & mask) >>> 0;
      if (value <= max) return value;
    }
  }

  #refill(): void {
    const state = this.#state;
    for (let i = 0; i < LENGTH; i++) {
      const pair = (state[i]! & 0x80000000) | (state[(i + 1) % LENGTH]! & 0x7fffffff);
      const twisted = state[(i + MIDDLE) % LENGTH]! ^ (pair >>> 1);
      state[i] = pair & 1 ? twisted ^ TWIST : twisted;
    }
    this.#next = 0;
  }
}
