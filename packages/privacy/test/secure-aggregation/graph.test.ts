import { describe, expect, test } from 'vitest';
import { hararyParameters } from '../../src/index.ts';
import { completeGraph, hararyGraph } from '../../src/secure-aggregation/graph.ts';
import { codeOf } from './federation.ts';

/** Sites, adversary rate, drop rate → degree, threshold: the table of Google's federated-compute. */
const SEMI_HONEST = [
  [10, 0.33, 0.33, 8, 4],
  [100, 0.33, 0.33, 68, 34],
  [1000, 0.33, 0.33, 286, 150],
  [10, 0.05, 0.33, 4, 2],
  [100, 0.05, 0.05, 12, 6],
  [1000, 0.05, 0.05, 30, 17],
  [100, 0.33, 0.05, 34, 29],
] as const;
const SEMI_MALICIOUS = [
  [10, 0.05, 0.33, 8, 5],
  [100, 0.05, 0.05, 16, 11],
  [1000, 0.05, 0.05, 52, 37],
  [100, 0.3, 0.3, 92, 62],
  [1000, 0.05, 0.33, 398, 223],
] as const;

describe('the parameters of a ring', () => {
  test.each(SEMI_HONEST)('%i sites, %d adversaries, %d drop-outs, semi-honest: %i, %i', (...row) => {
    const [sites, adversaryRate, dropRate, degree, threshold] = row;
    const requirements = { sites, adversaryRate, dropRate, coordinator: 'semi-honest' } as const;
    expect(hararyParameters(requirements)).toEqual({ degree, threshold });
  });

  test.each(SEMI_MALICIOUS)('%i sites, %d adversaries, %d drop-outs, semi-malicious: %i, %i', (...row) => {
    const [sites, adversaryRate, dropRate, degree, threshold] = row;
    const requirements = { sites, adversaryRate, dropRate, coordinator: 'semi-malicious' } as const;
    expect(hararyParameters(requirements)).toEqual({ degree, threshold });
  });

  test('are refused where adversaries and drop-outs are more than 0.9, drop-outs twice when it is malicious', () => {
    const code = (adversaryRate: number, dropRate: number, coordinator: 'semi-honest' | 'semi-malicious') =>
      codeOf(() => hararyParameters({ sites: 1000, adversaryRate, dropRate, coordinator }));
    expect(code(0.5, 0.41, 'semi-honest')).toBe('FED_PRIVACY_PARAMETER');
    expect(code(0.45, 0.45, 'semi-honest')).toBeUndefined();
    expect(code(0.31, 0.3, 'semi-malicious')).toBe('FED_PRIVACY_PARAMETER');
    expect(code(0.3, 0.29, 'semi-malicious')).toBeUndefined();
    expect(code(-0.1, 0.3, 'semi-honest')).toBe('FED_PRIVACY_PARAMETER');
    expect(code(0.1, 1, 'semi-honest')).toBe('FED_PRIVACY_PARAMETER');
  });

  test('are refused where only the complete graph is enough', () => {
    const requirements = { sites: 5, adversaryRate: 0.4, dropRate: 0.4, coordinator: 'semi-honest' } as const;
    expect(() => hararyParameters(requirements)).toThrow('complete graph');
    expect(codeOf(() => hararyParameters({ ...requirements, sites: 0 }))).toBe('FED_PRIVACY_PARAMETER');
  });
});

describe('a ring', () => {
  test('of 8 in the order 3 1 4 0 5 2 6 7 gives 4 the neighbours 0, 1, 3 and 5', () => {
    const graph = hararyGraph([3, 1, 4, 0, 5, 2, 6, 7], 4);
    expect(graph.neighbours(4)).toEqual([0, 1, 3, 5]);
    expect(graph.holders(4)).toEqual([0, 1, 3, 5]);
    // 3 is first, so 7 and 6, the last, come before it.
    expect(graph.neighbours(3)).toEqual([1, 4, 6, 7]);
  });

  test('is symmetric, has the degree, and no site twice', () => {
    for (const [sites, degree] of [
      [3, 2],
      [10, 8],
      [9, 8],
      [31, 12],
    ] as const) {
      const order = Array.from({ length: sites }, (_, i) => (i * 7) % sites);
      const graph = hararyGraph(order, degree);
      for (let i = 0; i < sites; i++) {
        expect(new Set(graph.neighbours(i)).size).toBe(degree);
        for (const j of graph.neighbours(i)) expect(graph.neighbours(j)).toContain(i);
        expect(graph.neighbours(i)).not.toContain(i);
      }
    }
  });

  test('stays connected when any degree − 1 sites are gone', () => {
    const graph = hararyGraph([0, 1, 2, 3, 4, 5, 6, 7, 8], 4);
    for (let a = 0; a < 9; a++)
      for (let b = a + 1; b < 9; b++)
        for (let c = b + 1; c < 9; c++) {
          const gone = new Set([a, b, c]);
          const first = [0, 1, 2, 3].find((i) => !gone.has(i))!;
          const reached = new Set([first]);
          for (const i of reached) for (const j of graph.neighbours(i)) if (!gone.has(j)) reached.add(j);
          expect(reached.size).toBe(6);
        }
  });

  test('has an even degree below the number of sites', () => {
    const order = [0, 1, 2, 3, 4];
    for (const degree of [0, 1, 3, 6, 2.5]) expect(() => hararyGraph(order, degree)).toThrow('even degrees');
    expect(() => hararyGraph(order, 4).neighbours(5)).toThrow('no site 5');
  });
});

test('in the complete graph everybody is a neighbour, and holds shares of its own', () => {
  const graph = completeGraph(4);
  expect(graph.neighbours(2)).toEqual([0, 1, 3]);
  expect(graph.holders(2)).toEqual([0, 1, 2, 3]);
});
