import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeFrame, sha256 } from '@tributary/shared-protocol';
import { describe, expect, it } from 'vitest';
import type { Fold } from '../../src/aggregate/fold.ts';
import {
  addTerms,
  createReproducibleSum,
  MAX_TERM,
  readMeans,
} from '../../src/aggregate/reproducible-sum.ts';
import { createFold, type FedAvgOptions, fedAvg } from '../../src/index.ts';
import type { UpdateFacts } from '../../src/strategy.ts';
import { temporaryDir, tensor } from '../federation.ts';

const options: FedAvgOptions = {
  seed: 1,
  cohortSize: 'all',
  training: {
    optimizer: { name: 'sgd', learningRate: 0.1, momentum: 0, nesterov: false },
    learningRateSchedule: { kind: 'constant' },
  },
};

/** A small seeded generator (xorshift32), uniform in [-1, 1). */
function draws(seed: number): () => number {
  let x = seed | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x | 0) / 2 ** 31;
  };
}

interface TestUpdate {
  readonly name: string;
  readonly numExamples: number;
  readonly values: Float32Array;
}

async function average(
  global: readonly number[],
  updates: readonly TestUpdate[],
  more: Partial<FedAvgOptions> = {},
): Promise<Float32Array> {
  const dir = temporaryDir();
  const strategy = fedAvg({ ...options, ...more });
  const fold = createFold([{ name: 'w', shape: [global.length] }], strategy);
  for (const { name, numExamples, values } of updates) {
    const path = join(dir, name);
    writeFileSync(path, encodeFrame([{ name: 'w', dtype: 'float32', shape: [values.length], data: values }]));
    await add(fold, path, { name, numExamples, metrics: {} });
  }
  const weights = Float32Array.from(global);
  strategy.aggregateTrain({ tensors: [], numbers: {} }, [weights], fold.mean());
  return weights;
}

/** Folds a whole file in as it would come over a link, in pieces of a length that fits nothing. */
async function add(fold: Fold, path: string, facts: UpdateFacts): Promise<void> {
  const bytes = readFileSync(path);
  const update = fold.begin(facts, bytes.length);
  try {
    for (let at = 0; at < bytes.length; at += 100_003) update.write(bytes.subarray(at, at + 100_003));
    await update.finish(path);
  } catch (error) {
    await update.undo(path);
    throw error;
  }
}

describe('fedAvg', () => {
  it('weights updates by numExamples', async () => {
    // 1 + (1 * 4 + 3 * 8) / 4 = 8
    const updates = [
      { name: 'a', numExamples: 1, values: Float32Array.of(4) },
      { name: 'b', numExamples: 3, values: Float32Array.of(8) },
    ];
    expect([...(await average([1], updates))]).toEqual([8]);
    // uniform: 1 + (4 + 8) / 2 = 7
    expect([...(await average([1], updates, { weighting: 'uniform' }))]).toEqual([7]);
  });

  it('gives the same bytes for 100 shuffled orders of arrival', async () => {
    const random = draws(2026);
    const updates = Array.from({ length: 12 }, (_, k) => ({
      name: `site-${k}`,
      numExamples: 1 + Math.floor((random() + 1) * 5000),
      // Sizes from 1e-20 to 1e4, with either sign: plain float64 sums of these depend on their order.
      values: Float32Array.from({ length: 257 }, (_, i) => random() * 10 ** ((i % 25) - 20)),
    }));
    const digests = new Set<string>();
    for (let shuffle = 0; shuffle < 100; shuffle++) {
      const order = updates.map((u) => ({ u, key: random() })).sort((a, b) => a.key - b.key);
      const weights = await average(
        new Array(257).fill(0.1),
        order.map(({ u }) => u),
      );
      digests.add(sha256(new Uint8Array(weights.buffer)));
    }
    expect(digests.size).toBe(1);
  }, 60_000);

  it('clips an update to the norm, and leaves a zero update zero', async () => {
    const updates = [
      // norm 5, clipped to 1: (0.6, 0.8)
      { name: 'a', numExamples: 1, values: Float32Array.of(3, 4) },
      { name: 'b', numExamples: 1, values: Float32Array.of(0, 0) },
    ];
    const weights = await average([0, 0], updates, { updateClippingNorm: 1 });
    expect([...weights]).toEqual([Math.fround(0.3), Math.fround(0.4)]);
  });

  it('DISCO PR 317: clips what a site changed, however large the weights are', async () => {
    // A model of norm 500, moved by (3, 4): 5, clipped to 1. Weights that were clipped would end near the origin.
    const updates = [{ name: 'a', numExamples: 1, values: Float32Array.of(3, 4) }];
    const weights = await average([300, 400], updates, { updateClippingNorm: 1 });
    expect([...weights]).toEqual([Math.fround(300.6), Math.fround(400.8)]);
  });

  it('agrees with recorded rounds of a float64 implementation', async () => {
    const file = new URL('fed-avg-cases.json', import.meta.url);
    const cases = JSON.parse(readFileSync(file, 'utf8')) as OracleCase[];
    for (const { initial, rounds, options: more, tolerance } of cases) {
      let global = initial;
      for (const round of rounds) {
        const updates = round.updates.map(({ nodeId, numExamples, weights }) => ({
          name: nodeId,
          numExamples,
          values: Float32Array.from(weights, (w, i) => w - global[i]!),
        }));
        global = [...(await average(global, updates, more))];
        for (const [i, expected] of round.expected.entries()) {
          // The oracle is float64; ours rounds global, update and result to float32, at most 2^-24 of each.
          expect(Math.abs(global[i]! - expected)).toBeLessThan(tolerance + 2 ** -23 * Math.abs(expected));
        }
      }
    }
  });
});

interface OracleCase {
  readonly options: Partial<FedAvgOptions>;
  readonly initial: number[];
  readonly rounds: {
    updates: { nodeId: string; numExamples: number; weights: number[] }[];
    expected: number[];
  }[];
  readonly tolerance: number;
}

describe('fold', () => {
  it('takes a bad update out again, to the last bit', async () => {
    const dir = temporaryDir();
    const strategy = fedAvg(options);
    const shapes = [
      { name: 'w', shape: [300_000] },
      { name: 'b', shape: [2] },
    ];
    const fold = createFold(shapes, strategy);
    const random = draws(7);
    const good = join(dir, 'good');
    const values = Float32Array.from({ length: 300_000 }, random);
    writeFileSync(
      good,
      encodeFrame([{ name: 'w', dtype: 'float32', shape: [300_000], data: values }, tensor('b', [1, 2])]),
    );
    await add(fold, good, { name: 'good', numExamples: 7, metrics: {} });
    const before = new Float64Array(300_002);
    fold.mean().read(0, before);

    const bad = join(dir, 'bad');
    writeFileSync(
      bad,
      encodeFrame([
        { name: 'w', dtype: 'float32', shape: [300_000], data: values.map((v) => v * 1e-3) },
        tensor('b', [1, Number.NaN]),
      ]),
    );
    await expect(add(fold, bad, { name: 'bad', numExamples: 3, metrics: {} })).rejects.toMatchObject({
      code: 'FED_UPDATE_NON_FINITE',
      message: expect.stringContaining('b holds NaN'),
    });
    const after = new Float64Array(300_002);
    fold.mean().read(0, after);
    expect(fold.count).toBe(1);
    expect(sha256(new Uint8Array(after.buffer))).toBe(sha256(new Uint8Array(before.buffer)));
  });

  it('takes out an update whose header lies about the bytes of its last tensor', async () => {
    const fold = createFold(
      [
        { name: 'a', shape: [1] },
        { name: 'b', shape: [1] },
      ],
      fedAvg(options),
    );
    const good = join(temporaryDir(), 'good');
    writeFileSync(good, encodeFrame([tensor('a', [0.25]), tensor('b', [4])]));
    await add(fold, good, { name: 'good', numExamples: 2, metrics: {} });
    const lying = join(temporaryDir(), 'lying');
    const frame = encodeFrame([tensor('a', [1]), tensor('b', [2])]);
    // The last tensor's four bytes, before four of padding: 2 becomes another finite number.
    frame[frame.length - 8]! ^= 1;
    writeFileSync(lying, frame);
    await expect(add(fold, lying, { name: 'lying', numExamples: 3, metrics: {} })).rejects.toMatchObject({
      code: 'FED_UPDATE_MANIFEST',
      message: expect.stringContaining('the bytes of b'),
    });
    // The mean of the good update alone.
    const after = new Float64Array(2);
    fold.mean().read(0, after);
    expect([...after]).toEqual([0.25, 4]);
    expect(fold.count).toBe(1);
  });

  it('refuses values that leave the exact range', async () => {
    const path = join(temporaryDir(), 'large');
    writeFileSync(path, encodeFrame([tensor('w', [1e9])]));
    const fold = createFold([{ name: 'w', shape: [1] }], fedAvg(options));
    await expect(add(fold, path, { name: 'a', numExamples: 10, metrics: {} })).rejects.toMatchObject({
      code: 'FED_UPDATE_RANGE',
    });
    expect(fold.count).toBe(0);
  });
});

describe('a reproducible sum', () => {
  it('is exact to 2^-50 a term up to the bounds of its range', () => {
    const sum = createReproducibleSum(2);
    const term = Float32Array.of(MAX_TERM, 2 ** -40);
    for (let k = 0; k < 4096; k++) expect(addTerms(sum, 0, term, 1)).toBe(2);
    const out = new Float64Array(2);
    readMeans(sum, 0, 1, out);
    expect([...out]).toEqual([4096 * MAX_TERM, 4096 * 2 ** -40]);
  });

  it('stops at the first term that is not finite or too large', () => {
    const sum = createReproducibleSum(3);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, -MAX_TERM * 2]) {
      expect(addTerms(sum, 0, Float32Array.of(1, bad, 1), 1)).toBe(1);
    }
  });
});
