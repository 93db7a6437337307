/**
 * A round with drop-outs gives the sum of those who stayed, to the bit, or nothing at all. For five sites, every way to
 * drop out: the rounds are walked as a tree, so that those which are the same up to their end are played once; and random patterns for more. The keys are toys (toy-keys.ts).
 */
import { describe, expect, test, vi } from 'vitest';
import {
  type Federation,
  federation,
  type Pattern,
  plainSum,
  play,
  STAGES,
  sharesTold,
} from './federation.ts';
import { toySign } from './toy-keys.ts';

vi.mock('../../src/secure-aggregation/keys.ts', async () => (await import('./toy-keys.ts')).toyKeys);

describe('five sites, every pattern of drop-outs at every stage', () => {
  test.each([
    // floor(2 · 5 / 3) + 1 = 4 by default: one may go. With 3, two may.
    { threshold: undefined, needed: 4 },
    { threshold: 3, needed: 3 },
  ])('with threshold $needed: the exact sum, or an abort that tells nothing', ({ threshold, needed }) => {
    const members = federation(5, threshold === undefined ? {} : { threshold }, toySign);
    let rounds = 0;
    let sums = 0;
    for (const pattern of patterns(members, needed)) {
      rounds++;
      const there = (stage: (typeof STAGES)[number]) =>
        members.ids.filter((id) => STAGES.indexOf(pattern.get(id)!) > STAGES.indexOf(stage));
      const played = play(members, pattern);
      checkNothingIsToldTwice(played, needed);
      if (there('unmask').length >= needed) {
        sums++;
        expect(played.error).toBeUndefined();
        expect(played.result!.survivors).toEqual(there('masked'));
        expect(played.result).toMatchObject(plainSum(members.coordinator().plan, there('masked')));
      } else {
        expect(played.result).toBeUndefined();
        expect(played.error).toMatchObject({ code: 'FED_PRIVACY_SECAGG_TOO_FEW' });
        // Shares are asked for at the last stage only; even then, fewer than the threshold were told.
        if (there('signature').length < needed) expect(played.unmask).toEqual([]);
        for (const shares of sharesTold(played).values()) expect(shares).toBeLessThan(needed);
      }
    }
    // Counted by hand: with c sites and k stages to go, S(3, k) = 1 for threshold 3, S(4, k) = S(4, k−1) + 4 S(3, k−1),
    // S(5, k) = S(5, k−1) + 5 S(4, k−1) + 10 S(3, k−1); so S(5, 5) = 1 + 25 + 250 = 276; for threshold 4: 1 + 25.
    expect(sums).toBe(needed === 4 ? 26 : 276);
    expect(rounds).toBeGreaterThan(sums);
  });
});

describe('500 random patterns of drop-outs', () => {
  test.each([
    { n: 10, harary: undefined },
    { n: 50, harary: undefined },
    // Semi-honest coordinator, 5 % adversaries, 20 % drop-outs of 50: what `hararyParameters` gives.
    { n: 50, harary: { degree: 16, threshold: 9 } },
  ])('of $n sites, ring $harary: the exact sum, or an abort', ({ n, harary }) => {
    const members = federation(n, { parameters: 3, ...(harary && { harary, threshold: 26 }) }, toySign);
    const { plan } = members.coordinator();
    let sums = 0;
    for (let round = 0; round < 500; round++) {
      const pattern = randomPattern(members.ids);
      const played = play(members, pattern);
      checkNothingIsToldTwice(played, plan.shareThreshold);
      if (played.error === undefined) {
        sums++;
        const survivors = members.ids.filter((id) => STAGES.indexOf(pattern.get(id)!) > 2);
        expect(played.result!.survivors).toEqual(survivors);
        expect(played.result).toMatchObject(plainSum(plan, survivors));
      } else {
        expect(played.error).toMatchObject({ code: 'FED_PRIVACY_SECAGG_TOO_FEW' });
        if (harary === undefined) {
          const there = members.ids.filter((id) => pattern.get(id) === 'stays').length;
          expect(there).toBeLessThan(plan.threshold);
          for (const shares of sharesTold(played).values()) expect(shares).toBeLessThan(plan.shareThreshold);
        }
      }
    }
    expect(sums).toBeGreaterThan(100);
    expect(sums).toBeLessThan(500);
  });
});

/** On average a sixth of the sites drops out, in some rounds none and in some most, at stages drawn at random. */
function randomPattern(ids: readonly string[]): Pattern {
  const rate = Math.random() ** 2 / 2;
  return new Map(
    ids.map((id) => [id, Math.random() < rate ? STAGES[Math.floor(Math.random() * 5)]! : 'stays']),
  );
}

/** Never both secrets of one site, and of one secret no share by somebody who is out. */
function checkNothingIsToldTwice(played: ReturnType<typeof play>, needed: number): void {
  const told = sharesTold(played);
  for (const name of told.keys()) {
    const other = name.startsWith('seed')
      ? name.replace('seed', 'mask key')
      : name.replace('mask key', 'seed');
    expect(told.has(other)).toBe(false);
  }
  if (played.result !== undefined)
    for (const id of played.result.survivors)
      expect(told.get(`seed of ${id}`)).toBeGreaterThanOrEqual(needed);
}

/** All patterns, but of those that end at the same stage with the same sites only one. */
function* patterns(members: Federation, needed: number): Generator<Pattern> {
  const { ids } = members;
  const silent = new Map<string, (typeof STAGES)[number]>();
  yield* from(0);

  function* from(stage: number): Generator<Pattern> {
    const left = ids.filter((id) => !silent.has(id));
    if (left.length < needed || stage === 5) {
      yield new Map(ids.map((id) => [id, silent.get(id) ?? 'stays']));
      return;
    }
    for (let subset = 0; subset < 2 ** left.length; subset++) {
      const gone = left.filter((_, i) => (subset >> i) & 1);
      for (const id of gone) silent.set(id, STAGES[stage]!);
      yield* from(stage + 1);
      for (const id of gone) silent.delete(id);
    }
  }
}
