/** From a budget to the training that it allows: how much noise, or how many steps, of a Poisson-subsampled Gaussian. */
import { type Accountant, epsilonOf } from './history.ts';
import { demand, demandSteps, LEAST_NOISE } from './parameters.ts';
import { smallestWithin } from './search.ts';

interface Budget {
  /** More than 0. */
  readonly targetEpsilon: number;
  /** Between 0 and 1. */
  readonly delta: number;
  /** From 0 to 1. */
  readonly samplingRate: number;
  /** @default 'pld' */
  readonly accountant?: Accountant;
}

export interface NoiseBudget extends Budget {
  readonly steps: number;
}

export interface StepsBudget extends Budget {
  readonly noiseMultiplier: number;
}

const MOST_NOISE = 1e9;
/** In proportion; upwards. */
const NOISE_PRECISION = 1e-5;

/**
 * The least noise multiplier, at least 0.01 and exact to 1e-5 of itself upwards, with which all steps cost at most
 * `targetEpsilon`; 0 when nothing is ever sampled. Infinity when no noise is enough for this accountant. Throws
 * FED_PRIVACY_PARAMETER for a number out of its range.
 */
export function noiseMultiplierFor(budget: NoiseBudget): number {
  const { targetEpsilon, delta, samplingRate, steps, accountant = 'pld' } = budget;
  demandBudget(budget);
  demandSteps(steps);
  const cost = (by: Accountant) => (noiseMultiplier: number) =>
    Math.log(epsilonOf([{ kind: 'poisson-gaussian', noiseMultiplier, samplingRate, steps }], delta, by));
  if (cost('rdp')(0) === -Infinity) return 0;
  const search = (by: Accountant, start: number) =>
    smallestWithin(cost(by), Math.log(targetEpsilon), {
      start,
      precision: NOISE_PRECISION,
      least: LEAST_NOISE,
      most: MOST_NOISE,
    });
  const byRdp = search('rdp', 1);
  // The other accountant needs less, but not much less.
  return accountant === 'rdp' ? byRdp : search(accountant, Math.min(byRdp, 1e3) * 0.95);
}

/**
 * The most steps that cost at most `targetEpsilon`: 0 when one is too many, Infinity when they cost nothing. Throws
 * FED_PRIVACY_PARAMETER for a number out of its range.
 */
export function stepsWithin(budget: StepsBudget): number {
  const { targetEpsilon, delta, samplingRate, noiseMultiplier, accountant = 'pld' } = budget;
  demandBudget(budget);
  const cost = (steps: number) =>
    epsilonOf([{ kind: 'poisson-gaussian', noiseMultiplier, samplingRate, steps }], delta, accountant);
  if (samplingRate === 0) return Infinity;
  if (cost(1) > targetEpsilon) return 0;
  const most = 2 ** 40;
  // The other accountant allows more, but not much more.
  const expected = accountant === 'rdp' ? 1e3 : stepsWithin({ ...budget, accountant: 'rdp' }) * 1.2;
  const share = smallestWithin((x) => Math.log(cost(Math.floor(1 / x))), Math.log(targetEpsilon), {
    start: 1 / Math.max(1, expected),
    precision: 1e-3,
    least: 1 / most,
    most: 1,
  });
  let within = Math.floor(1 / share);
  if (within >= most) return within;
  let beyond = Math.ceil(within * 1.002) + 1;
  while (beyond - within > 1) {
    const middle = Math.floor((within + beyond) / 2);
    if (cost(middle) <= targetEpsilon) within = middle;
    else beyond = middle;
  }
  return within;
}

function demandBudget({ targetEpsilon, delta, samplingRate }: Budget): void {
  demand(targetEpsilon > 0 && targetEpsilon < Infinity, 'targetEpsilon', targetEpsilon, 'more than 0');
  demand(delta > 0 && delta < 1, 'delta', delta, 'between 0 and 1');
  demand(samplingRate >= 0 && samplingRate <= 1, 'samplingRate', samplingRate, 'a probability from 0 to 1');
}
