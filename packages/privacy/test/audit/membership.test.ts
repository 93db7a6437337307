import { seededWords } from '@tributary/testkit';
import { describe, expect, test } from 'vitest';
import {
  likelihoodRatio,
  lossThresholdAttack,
  membershipAdvantageBound,
  truePositiveRateAt,
} from '../../src/index.ts';

describe('lossThresholdAttack', () => {
  test('auc is the share of pairs in which the member’s loss is lower, ties as a half', () => {
    // Pairs (member, other): (1,2) (1,4) (3,4) won, (3,2) lost.
    expect(lossThresholdAttack([1, 3], [2, 4]).auc).toBe(0.75);
    expect(lossThresholdAttack([1, 2], [2, 2]).auc).toBe((1 + 1 + 0.5 + 0.5) / 4);
    expect(lossThresholdAttack([5, 6], [1, 2]).auc).toBe(0);
  });

  test('advantage: at the members’ mean loss, and at the best threshold', () => {
    // Mean 4: two of the three members and one of the two others are at most that. At 2: two of three, and none.
    const { advantage, maxAdvantage } = lossThresholdAttack([1, 2, 9], [3, 10]);
    expect(advantage).toBeCloseTo(2 / 3 - 1 / 2, 12);
    expect(maxAdvantage).toBeCloseTo(2 / 3, 12);
  });

  test('an empty side and a NaN are refused', () => {
    expect(() => lossThresholdAttack([], [1])).toThrow('memberLosses');
    expect(() => lossThresholdAttack([1], [Number.NaN])).toThrow('otherLosses');
  });
});

describe('membershipAdvantageBound', () => {
  test('is (e^epsilon - 1 + 2 delta) / (e^epsilon + 1)', () => {
    expect(membershipAdvantageBound(0, 0)).toBe(0);
    expect(membershipAdvantageBound(1, 0)).toBeCloseTo(Math.tanh(0.5), 12);
    expect(membershipAdvantageBound(Math.log(3), 0.1)).toBeCloseTo((3 - 1 + 0.2) / 4, 12);
    expect(membershipAdvantageBound(Infinity, 0)).toBe(1);
    expect(() => membershipAdvantageBound(-1, 0)).toThrow('not -1');
  });
});

describe('LiRA', () => {
  test('the score is the logarithm of the two normal densities’ quotient', () => {
    // Losses ln(1 + e^-v) have logit v: with {1, 3} mean 2, with {-1, 1} mean 0, both variances 2, seen 2:
    // 0 - (-(2 - 0)^2 / (2 * 2)) = 1.
    const loss = (logit: number) => Math.log1p(Math.exp(-logit));
    const score = likelihoodRatio({
      observed: loss(2),
      trainedWith: [loss(1), loss(3)],
      trainedWithout: [loss(-1), loss(1)],
    });
    expect(score).toBeCloseTo(1, 10);
  });

  test('losses of 0 and Infinity give finite scores; a single shadow model is refused', () => {
    const score = likelihoodRatio({ observed: 0, trainedWith: [0, 0], trainedWithout: [Infinity, 2] });
    expect(Number.isFinite(score)).toBe(true);
    expect(() => likelihoodRatio({ observed: 1, trainedWith: [1], trainedWithout: [1, 2] })).toThrow('not 1');
  });

  test('finds members at a false positive rate of 1% where the loss alone does not', () => {
    // Records differ far more in how hard they are (logits from -4 to 4) than by having been trained on (by 1).
    const words = seededWords(3);
    const uniform = () => words() / 2 ** 32;
    const noise = () => 0.4 * (uniform() + uniform() + uniform() - 1.5);
    const records = Array.from({ length: 800 }, (_, i) => {
      const hard = 8 * uniform() - 4;
      const loss = (member: boolean) => Math.log1p(Math.exp(-(hard + (member ? 1 : 0) + noise())));
      const member = i % 2 === 0;
      return {
        member,
        observed: loss(member),
        trainedWith: Array.from({ length: 16 }, () => loss(true)),
        trainedWithout: Array.from({ length: 16 }, () => loss(false)),
      };
    });
    const of = (member: boolean) => records.filter((record) => record.member === member);
    const scores = (member: boolean) => of(member).map(likelihoodRatio);
    const losses = (member: boolean) => of(member).map(({ observed }) => -observed);
    expect(truePositiveRateAt(0.01, scores(true), scores(false))).toBeGreaterThan(0.9);
    expect(truePositiveRateAt(0.01, losses(true), losses(false))).toBeLessThan(0.2);
  });
});

describe('truePositiveRateAt', () => {
  test('allows so many of the others above the threshold, and no more', () => {
    const others = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    const members = [4.5, 8.5, 9.5, 10];
    // 0%: above 9. 10%: above 8. 60%: above 3.
    expect(truePositiveRateAt(0, members, others)).toBe(2 / 4);
    expect(truePositiveRateAt(0.1, members, others)).toBe(3 / 4);
    expect(truePositiveRateAt(0.6, members, others)).toBe(1);
    expect(truePositiveRateAt(1, members, others)).toBe(1);
    expect(() => truePositiveRateAt(1.1, members, others)).toThrow('not 1.1');
  });
});
