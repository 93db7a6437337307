/**
 * Every draw of the harness comes from here, and depends on its seed and its name alone: run 17 of seed 1 is the same
 * whether a hundred runs are played or only this one. (splitmix32, Steele et al. 2014)
 */
import { createHash } from 'node:crypto';

export interface Draw {
  /** A number in [low, high). */
  number(low: number, high: number): number;
  /** A whole number from `low` to `high`, both included. */
  whole(low: number, high: number): number;
  /** A number from `low` to `high`, as often small as large: uniform in its logarithm. */
  spread(low: number, high: number): number;
  oneOf<T>(choices: readonly T[]): T;
  /** One of `weights`' keys, each as often as its weight says. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K;
}

/** Returns the draws called `name` of `seed`. */
export function createDraw(seed: number, name: string): Draw {
  let counter = createHash('sha256').update(`${seed}|${name}`).digest().readInt32LE(0);
  const next = (): number => {
    counter = (counter + 0x9e3779b9) | 0;
    let mixed = Math.imul(counter ^ (counter >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
  const number = (low: number, high: number) => low + next() * (high - low);
  const whole = (low: number, high: number) => low + Math.floor(next() * (high - low + 1));
  return {
    number,
    whole,
    spread: (low, high) => Math.exp(number(Math.log(low), Math.log(high))),
    oneOf: (choices) => choices[whole(0, choices.length - 1)]!,
    weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
      const entries = Object.entries(weights) as [K, number][];
      let left = next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
      for (const [key, weight] of entries) {
        left -= weight;
        if (left < 0) return key;
      }
      return entries.at(-1)![0];
    },
  };
}
