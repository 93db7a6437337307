/** Membership inference against trained models: the attack finds an overfit model's members, and not those of a private one. */
import { lossThresholdAttack, membershipAdvantageBound } from '@tributary/privacy';
import { gaussians, seededWords } from '@tributary/testkit';
import { beforeAll, describe, expect, test } from 'vitest';
import { CLASSES, type Digit, PIXELS, readDigits } from './digits.ts';
import { claimedEpsilon, trainPrivately } from './dp-sgd.ts';
import { createNetwork, type Network } from './network.ts';

const DELTA = 1e-5;
const POINTS = 200;
let members: readonly Digit[];
let others: readonly Digit[];

beforeAll(async () => {
  const words = seededWords(1);
  // A quarter of the labels are drawn by chance, on both sides: only who has seen one can know it.
  const digits = (await readDigits(2 * POINTS)).map((digit) => ({
    ...digit,
    label: words() % 4 === 0 ? words() % CLASSES : digit.label,
    place: words(),
  }));
  digits.sort((a, b) => a.place - b.place);
  members = digits.slice(0, POINTS);
  others = digits.slice(POINTS);
});

function attack(network: Network) {
  const lossesOf = (digits: readonly Digit[]) =>
    digits.map(({ pixels, label }) => network.loss(pixels, label));
  return lossThresholdAttack(lossesOf(members), lossesOf(others));
}

function meanLoss(network: Network, digits: readonly Digit[]): number {
  return digits.reduce((sum, { pixels, label }) => sum + network.loss(pixels, label), 0) / digits.length;
}

describe('membership inference', () => {
  test('an overfit network on 200 points gives its members away: AUC above 0.65', () => {
    const words = seededWords(2);
    const network = createNetwork([PIXELS, 32, CLASSES], () => words() / 2 ** 32);
    const gradient = new Float64Array(network.parameters.length);
    for (let epoch = 0; epoch < 60; epoch++) {
      for (const { pixels, label } of members) {
        network.gradient(pixels, label, gradient);
        for (let i = 0; i < gradient.length; i++) network.parameters[i]! -= 0.05 * gradient[i]!;
      }
    }
    const { auc, maxAdvantage } = attack(network);
    expect(auc).toBeGreaterThan(0.65);
    expect(maxAdvantage).toBeGreaterThan(membershipAdvantageBound(1, DELTA));
  });

  test('one trained with differential privacy, epsilon 1, stays under the bound on the advantage', () => {
    const words = seededWords(3);
    const [steps, noiseMultiplier] = [60, 28.91];
    const epsilon = claimedEpsilon(noiseMultiplier, steps, DELTA);
    expect(epsilon).toBeGreaterThan(0.99);
    expect(epsilon).toBeLessThan(1);
    const network = createNetwork([PIXELS, 16, CLASSES], () => words() / 2 ** 32);
    const before = meanLoss(network, others);
    trainPrivately(network, members, {
      steps,
      learningRate: 0.05,
      clippingNorm: 1,
      noiseMultiplier,
      expectedRecords: POINTS,
      gaussian: gaussians(words),
    });
    // It has learnt something, little as epsilon 1 lets it from 200 points.
    expect(meanLoss(network, others)).toBeLessThan(before - 0.05);
    const { maxAdvantage } = attack(network);
    // 0.462. Who knew nothing would by chance see 0.14 or more once in twenty times, with so few points.
    expect(maxAdvantage).toBeLessThan(membershipAdvantageBound(epsilon, DELTA));
  });
});
