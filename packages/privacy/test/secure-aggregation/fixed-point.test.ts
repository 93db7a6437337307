import { randomFillSync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeMean,
  encodeFraction,
  encodePiece,
  planFixedPoint,
  type RandomFill,
  valueSteps,
  weightOf,
} from '../../src/secure-aggregation/fixed-point.ts';
import { PIECE_WORDS, pieceValues, pieceWords } from '../../src/secure-aggregation/kernel.ts';
import { bytesOf, codeOf, plainWord } from './federation.ts';

const plan = (settings: Partial<Parameters<typeof planFixedPoint>[0]> = {}, sites = 10) =>
  planFixedPoint({ clippingRange: 8, steps: 2 ** 22, maxWeight: 1, ...settings }, sites);

const encode = (
  values: ArrayLike<number>,
  fixedPoint = plan(),
  weight = 1,
  random: RandomFill = randomFillSync,
) => {
  const words: number[] = [];
  let clipped = 0;
  for (let start = 0; start < values.length; start += PIECE_WORDS) {
    const count = Math.min(PIECE_WORDS, values.length - start);
    pieceValues.set(Array.prototype.slice.call(values, start, start + count));
    clipped += encodePiece(count, weight, fixedPoint, random);
    words.push(...pieceWords.subarray(0, count));
  }
  return { words, clipped };
};

const least: RandomFill = (bytes) => bytes.fill(0);
const most: RandomFill = (bytes) => bytes.fill(255);

describe('values as levels', () => {
  test('0, 1, −8, 8 of ±8 are 2097152, 2359296, 0, 4194304 of 2^22 steps, whatever is drawn', () => {
    for (const random of [least, most])
      expect(encode([0, 1, -8, 8], plan(), 1, random).words).toEqual([2097152, 2359296, 0, 4194304]);
  });

  test('are what plain JavaScript makes of the same random bits, for any number of them, range, steps and weight', () => {
    const update = fc.array(
      fc.oneof(
        fc.float({ min: -2, max: 2, noNaN: true }),
        // Exactly on the range, on a level, and between two.
        fc.constantFrom(1, -1, 0, 0.5, 2 ** -12, -(2 ** -13), 3 * 2 ** -14, -0),
      ),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(
        update,
        fc.constantFrom(1, 0.1, 1e-6, 3e5),
        fc.constantFrom(2, 12, 2 ** 12, 2 ** 16 - 2, 2 ** 22, 2 ** 31 - 2),
        fc.integer({ min: 1, max: 2 ** 32 - 1 }),
        fc.nat(),
        (units, range, steps, heavy, seed) => {
          const weight = 1 + (heavy % Math.floor((2 ** 32 - 1) / steps));
          const settings = { clippingRange: range, steps, maxWeight: weight };
          const fixedPoint = planFixedPoint(settings, 1);
          const values = Float32Array.from(units, (unit) => unit * fixedPoint.clippingRange);
          const random = new Uint16Array(values.length);
          bytesOf(`${seed}`)(new Uint8Array(random.buffer));
          const { words, clipped } = encode(values, fixedPoint, weight, bytesOf(`${seed}`));
          expect(words).toEqual(
            Array.from(values, (value, i) => plainWord(value, weight, fixedPoint, random[i]!)),
          );
          expect(clipped).toBe(values.filter((value) => Math.abs(value) > fixedPoint.clippingRange).length);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('0.1 is 2123366.4 before rounding: 2123367 in four of ten', () => {
    // 0.1 as float32 is 0.1 + 1.49e-9, which is 0.0004 of a step.
    const words = encode(new Array(40_000).fill(0.1)).words;
    expect(new Set(words)).toEqual(new Set([2123366, 2123367]));
    const up = words.filter((word) => word === 2123367).length / words.length;
    // Standard deviation sqrt(0.24 / 40000) = 0.00245; five of them.
    expect(Math.abs(up - 0.4004)).toBeLessThan(0.0123);
  });

  test('rounding is unbiased at any value (60 values, 6.5 sigma: by chance once in 10^8)', () => {
    const fixedPoint = plan({ clippingRange: 1, steps: 14 });
    fc.assert(
      fc.property(fc.float({ min: -1, max: 1, noNaN: true }), (value) => {
        const draws = 4000;
        const { words } = encode(new Array(draws).fill(value), fixedPoint);
        const mean = words.reduce((sum, word) => sum + word, 0) / draws;
        const exact = value * 7 + 7;
        const part = exact - Math.floor(exact);
        // A draw is up with chance `part`; below one expected event, sigma is no measure: allow six events.
        const sigma = Math.sqrt((part * (1 - part)) / draws);
        expect(Math.abs(mean - exact)).toBeLessThan(6.5 * sigma + 6 / draws);
      }),
      { numRuns: 60 },
    );
  });

  test('section 6, 7 (Flower PR 4982): what is beyond the range is clipped and counted, not saturated in silence', () => {
    const { words, clipped } = encode([8.5, -100, 8, -8, 0]);
    expect(words).toEqual([2 ** 22, 0, 2 ** 22, 0, 2 ** 21]);
    expect(clipped).toBe(2);
    // Rounded up, so that one of a million still shows: one step.
    expect(encodeFraction(1e-6, plan({ steps: 1000 }))).toBe(1);
    expect(encodeFraction(0, plan())).toBe(0);
    expect(encodeFraction(1, plan())).toBe(2 ** 22);
  });

  test('no level is above the last, though the scale of a range is not exact', () => {
    fc.assert(
      fc.property(
        fc.float({ min: Math.fround(1e-6), max: 1e6, noNaN: true }),
        fc.nat(2 ** 15),
        (range, half) => {
          const fixedPoint = plan({ clippingRange: range, steps: 2 * (half + 1) });
          for (const random of [least, most]) {
            const { words } = encode([range, -range, 0], fixedPoint, 1, random);
            for (const word of words) expect(word).toBeLessThanOrEqual(fixedPoint.steps);
            expect(words[2]).toBe(fixedPoint.steps / 2);
          }
        },
      ),
    );
  });

  test('a chance is the nearest multiple of 2^-16: over all random bits, the mean is at most 2^-17 of a level off', () => {
    const fixedPoint = plan({ clippingRange: 1, steps: 14 });
    const all: RandomFill = (() => {
      let next = 0;
      return (bytes) => {
        const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
        words.forEach((_, i) => {
          words[i] = next++;
        });
      };
    })();
    fc.assert(
      fc.property(fc.float({ min: -1, max: 1, noNaN: true }), (value) => {
        const { words } = encode(new Float32Array(2 ** 16).fill(value), fixedPoint, 1, all);
        const mean = words.reduce((sum, word) => sum + word, 0) / 2 ** 16;
        expect(Math.abs(mean - (value * 7 + 7))).toBeLessThanOrEqual(2 ** -17);
      }),
      { numRuns: 30 },
    );
  });

  test.each([Number.NaN, -Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    '%d is refused, at any place',
    (value) => {
      for (let place = 0; place < 9; place++) {
        const values = new Array(9).fill(0.5);
        values[place] = value;
        expect(codeOf(() => encode(values))).toBe('FED_PRIVACY_SECAGG_UPDATE');
      }
      // The largest that is finite is clipped.
      expect(encode([3.4028234663852886e38, -3.4028234663852886e38]).clipped).toBe(2);
    },
  );
});

describe('the mean', () => {
  test('section 6, 9 (Fed-BioMed 898): is right for any number of sites and any weights, not for two only', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 40 }), (weights) => {
        const fixedPoint = plan({ clippingRange: 1, steps: 2 ** 16, maxWeight: 50 }, 40);
        const updates = weights.map((_, i) => [Math.sin(i), Math.cos(3 * i), 0]);
        const sums = new Uint32Array(3);
        weights.forEach((weight, i) => {
          encode(updates[i]!, fixedPoint, weight).words.forEach((word, j) => {
            sums[j]! += word;
          });
        });
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const mean = new Float32Array(3);
        decodeMean(sums, total, fixedPoint, mean);
        for (let j = 0; j < 3; j++) {
          const exact = weights.reduce((sum, weight, i) => sum + weight * updates[i]![j]!, 0) / total;
          // A step is 2 / 2^16; float32 adds 2^-24.
          expect(Math.abs(mean[j]! - exact)).toBeLessThan(2 / 2 ** 16 + 1e-7);
        }
        expect(mean[2]).toBe(0);
      }),
    );
  });

  test('can be written over the sums', () => {
    const fixedPoint = plan({ clippingRange: 1, steps: 4 });
    const sums = Uint32Array.of(0, 4, 8, 6);
    decodeMean(sums, 2, fixedPoint, new Float32Array(sums.buffer));
    expect([...new Float32Array(sums.buffer)]).toEqual([-1, 0, 1, 0.5]);
  });
});

describe('the bit budget', () => {
  test('is the fewest bits that hold the largest sum', () => {
    // 10 · 2^22 < 2^26 and ≥ 2^25.
    expect(plan().bits).toBe(26);
    expect(plan({ steps: 2 }, 3).bits).toBe(3);
    expect(plan({ steps: 2 }, 4).bits).toBe(4);
    // 2^16 − 2 levels of 4 sites: 2^18 − 8 fits 18 bits; 2^16 of them would not.
    expect(plan({ steps: valueSteps(16) }, 4).bits).toBe(18);
    expect(plan({ steps: 2 ** 16 }, 4).bits).toBe(19);
  });

  test('1023 sites of 2^22 steps fit 32 bits, and 1024 do not: the value 2^22 is reachable', () => {
    expect(plan({}, 1023).bits).toBe(32);
    expect(codeOf(() => plan({}, 1024))).toBe('FED_PRIVACY_SECAGG_OVERFLOW');
  });

  test('section 6, 9 (Fed-BioMed 1210): 13 bits of value and 17 of weight are refused for 10 sites, at setup', () => {
    const settings = { steps: valueSteps(13), maxWeight: 2 ** 17 - 1 };
    expect(plan(settings, 4).bits).toBe(32);
    expect(codeOf(() => plan(settings, 10))).toBe('FED_PRIVACY_SECAGG_OVERFLOW');
    expect(codeOf(() => plan({ steps: 2 ** 30, maxWeight: 2 ** 50 }, 10))).toBe(
      'FED_PRIVACY_SECAGG_OVERFLOW',
    );
  });

  test('section 6, 9 (Fed-BioMed 1007): a larger clipping range changes the step, and never the bits', () => {
    expect(plan({ clippingRange: 1e6 }).bits).toBe(plan({ clippingRange: 1e-6 }).bits);
  });

  test('section 6, 11 (PySyft 6954, 2706): the largest sum there can be does not wrap', () => {
    const sites = 1023;
    const fixedPoint = plan({}, sites);
    const [word] = encode([8], fixedPoint).words;
    const sums = new Uint32Array(1);
    for (let i = 0; i < sites; i++) sums[0]! += word!;
    expect(sums[0]).toBe(1023 * 2 ** 22);
    const mean = new Float32Array(1);
    decodeMean(sums, sites, fixedPoint, mean);
    expect(mean[0]).toBe(8);
  });

  test('numbers that can’t be used are refused by name', () => {
    for (const settings of [
      { clippingRange: 0 },
      { clippingRange: Number.NaN },
      { clippingRange: Number.POSITIVE_INFINITY },
      // No float32: it would be 0, or infinite.
      { clippingRange: 1e-50 },
      { clippingRange: 1e39 },
      { steps: 3 },
      { steps: 0 },
      { steps: 2 ** 31 },
      { maxWeight: 0 },
      { maxWeight: 1.5 },
      { examplesPerWeight: 0 },
    ])
      expect(codeOf(() => plan(settings))).toBe('FED_PRIVACY_PARAMETER');
    expect(codeOf(() => valueSteps(1))).toBe('FED_PRIVACY_PARAMETER');
    expect(codeOf(() => valueSteps(32))).toBe('FED_PRIVACY_PARAMETER');
  });
});

test('a weight is the examples in units, at least 1, and above the largest the site is told, not cut', () => {
  const fixedPoint = plan({ maxWeight: 100, examplesPerWeight: 10, steps: 2 ** 12 });
  expect(weightOf(1, fixedPoint)).toBe(1);
  expect(weightOf(254, fixedPoint)).toBe(25);
  expect(weightOf(1004, fixedPoint)).toBe(100);
  expect(codeOf(() => weightOf(1005, fixedPoint))).toBe('FED_PRIVACY_SECAGG_UPDATE');
  expect(codeOf(() => weightOf(0, fixedPoint))).toBe('FED_PRIVACY_SECAGG_UPDATE');
});
