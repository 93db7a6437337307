import { expect, test } from 'vitest';
import { createAliasTable, proposalWeights } from '../../src/mechanisms/alias-table.ts';

/** How many of all 2^32 words lead to each index, from the table itself. */
function wordsByIndex({ bits, own, alias }: ReturnType<typeof createAliasTable>, count: number): number[] {
  const words = new Array<number>(count).fill(0);
  const capacity = 2 ** (32 - bits);
  for (let column = 0; column < own.length; column++) {
    if (own[column]! > 0) words[column]! += own[column]!;
    if (own[column]! < capacity) words[alias[column]!]! += capacity - own[column]!;
  }
  return words;
}

test('each index is reached by exactly as many words as its weight', () => {
  for (const count of [1, 2, 3, 100, 832, 5000]) {
    const masses = Float64Array.from({ length: count }, (_, i) => Math.exp(-((i / count) ** 2) * 40));
    const { weights } = proposalWeights(masses);
    expect(weights.reduce((a, b) => a + b)).toBe(2 ** 32);
    expect(wordsByIndex(createAliasTable(weights), count)).toEqual([...weights]);
  }
});

test('no weight is below its share, so that rejection can make it right', () => {
  const masses = Float64Array.of(1, 1e-30, 0.3, 1e-9);
  const { weights, scale } = proposalWeights(masses);
  for (let i = 0; i < masses.length; i++) expect(weights[i]).toBeGreaterThanOrEqual(scale * masses[i]!);
});

test('weights of another sum are refused', () => {
  expect(() => createAliasTable(Float64Array.of(1, 2))).toThrow(RangeError);
});
