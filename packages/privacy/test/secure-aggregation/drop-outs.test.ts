/**
 * A round with drop-outs gives the sum of those who stayed, to the bit, or nothing at all. For five sites, every way to
 * drop out: the rounds are walked as a tree, so that those which are the same up to their end are played once. For more,
 * random ways. The keys are toys (toy-keys.ts).
 */
import { describe, expect, test, vi } from 'vitest';
import {
  type Federation,
  federation,
  type Pattern,
  plainSum,
  play,
  playEnding,
  STAGES,
  sharesTold,
  type Transcript,
} from './federation.ts';
import { toySign } from './toy-keys.ts';

/** So many rounds take seconds, and on a busy machine many: no time decides a test. */
vi.setConfig({ testTimeout: 300_000 });
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
  test('of 10 sites: the exact sum, or an abort that tells nothing', () => {
    const members = federation(10, { parameters: 3 }, toySign);
    const outcomes = { sums: 0, aborts: 0 };
    for (let round = 0; round < 500; round++) {
      const pattern = randomPattern(members.ids, STAGES.slice(0, 5));
      checkOutcome(members, pattern, play(members, pattern), outcomes);
    }
    expect(outcomes.sums).toBeGreaterThan(100);
    expect(outcomes.aborts).toBeGreaterThan(20);
  });

  test('of 50 sites (20 rounds up to the masks, 25 endings each): the exact sum, or an abort that tells nothing', () => {
    const members = federation(50, { parameters: 3 }, toySign);
    const outcomes = { sums: 0, aborts: 0 };
    for (let round = 0; round < 20; round++) {
      const beginning = randomPattern(members.ids, STAGES.slice(0, 3));
      const whole = play(members, beginning);
      checkOutcome(members, beginning, whole, outcomes);
      for (let ending = 0; whole.error === undefined && ending < 24; ending++) {
        const pattern = new Map([...randomPattern(members.ids, STAGES.slice(3, 5)), ...silentIn(beginning)]);
        checkOutcome(members, pattern, playEnding(members, whole, pattern), outcomes);
      }
    }
    expect(outcomes.sums).toBeGreaterThan(20);
    expect(outcomes.aborts).toBeGreaterThan(5);
  });

  test('of 50 sites in a ring: the exact sum, or an abort that tells no secret', () => {
    const harary = { degree: 16, threshold: 9 };
    const members = federation(50, { parameters: 3, harary, threshold: 26 }, toySign);
    const outcomes = { sums: 0, aborts: 0 };
    for (let round = 0; round < 25; round++) {
      const beginning = randomPattern(members.ids, STAGES.slice(0, 3));
      const whole = play(members, beginning);
      checkOutcome(members, beginning, whole, outcomes);
      for (let ending = 0; whole.error === undefined && ending < 19; ending++) {
        const pattern = new Map([...randomPattern(members.ids, STAGES.slice(3, 5)), ...silentIn(beginning)]);
        checkOutcome(members, pattern, playEnding(members, whole, pattern), outcomes);
      }
    }
    expect(outcomes.sums).toBeGreaterThan(20);
    expect(outcomes.aborts).toBeGreaterThan(0);
  });
});

function checkOutcome(
  members: Federation,
  pattern: Pattern,
  played: Transcript,
  outcomes: { sums: number; aborts: number },
): void {
  const { plan } = members.coordinator();
  const there = (stage: number) =>
    members.ids.filter((id) => STAGES.indexOf(pattern.get(id) ?? 'stays') > stage);
  checkNothingIsToldTwice(played, plan.shareThreshold);
  if (played.error === undefined) {
    outcomes.sums++;
    expect(played.result!.survivors).toEqual(there(2));
    expect(played.result).toMatchObject(plainSum(plan, there(2)));
    return;
  }
  outcomes.aborts++;
  expect(played.error).toMatchObject({ code: 'FED_PRIVACY_SECAGG_TOO_FEW' });
  expect(played.result).toBeUndefined();
  // In a ring, other secrets than the one that can't be given back may have been told.
  if (plan.degree !== undefined) return;
  expect(there(4).length).toBeLessThan(plan.threshold);
  for (const shares of sharesTold(played).values()) expect(shares).toBeLessThan(plan.shareThreshold);
}

/** At a rate up to a half, small ones more often, at stages drawn at random. */
function randomPattern(ids: readonly string[], stages: readonly (typeof STAGES)[number][]): Pattern {
  const rate = Math.random() ** 2 / 2;
  return new Map(
    ids.map((id) => [
      id,
      Math.random() < rate ? stages[Math.floor(Math.random() * stages.length)]! : 'stays',
    ]),
  );
}

function silentIn(pattern: Pattern): [string, (typeof STAGES)[number]][] {
  return [...pattern].filter(([, stage]) => stage !== 'stays');
}

/** Never both secrets of one site, and of one secret no share by somebody who is out. */
function checkNothingIsToldTwice(played: Transcript, needed: number): void {
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
