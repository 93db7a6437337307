/**
 * Site-level privacy in the terms of a federation: what all of a site's update may tell, once it is clipped and a Gaussian
 * hides it. With noise on the sum, at whoever adds up (central DP-FedAvg: McMahan et al. 2018, arXiv 1710.06963), or on
 * each update before it leaves (local). All that are asked take part, so no sampling makes it cheaper.
 */
import type { PoissonGaussian, SkellamSteps } from './accounting/history.ts';
import { sumGrid } from './distributed-sum.ts';
import { updateNoiseMultiplier } from './mechanisms/adaptive-clipping.ts';
import { type Clipping, clipToNorm } from './mechanisms/clipping.ts';
import { createGaussianNoise, noiseStdDev } from './mechanisms/gaussian.ts';
import type { RandomWords } from './random.ts';

/** One release over the update of a site: the noised sum that has it, or the noised update itself. */
export interface SiteLevelRound {
  readonly unit: 'site';
  /** Standard deviation of the noise, in clipping norms. */
  readonly noiseMultiplier: number;
  /** Of noise that the sites add in shares (distributed-sum.ts): the clipping norm, in steps of the sum. */
  readonly normInSteps?: number | undefined;
}

/** A round of a federation with this noise; `shares`: it is added in shares, and these are the bits of a value under masks. */
export function siteLevelRound(
  { noiseMultiplier, clippingNorm }: { readonly noiseMultiplier: number; readonly clippingNorm: unknown },
  shares?: { readonly valueBits: number },
): SiteLevelRound {
  if (shares === undefined || typeof clippingNorm !== 'number') return { unit: 'site', noiseMultiplier };
  const { normInSteps } = sumGrid({ noiseMultiplier, clippingNorm, ...shares });
  return { unit: 'site', noiseMultiplier, normInSteps };
}

/** The rounds as an accountant takes them, those alike in one entry: everyone, every time. */
export function siteLevelHistory(rounds: readonly SiteLevelRound[]): (PoissonGaussian | SkellamSteps)[] {
  const alike = new Map<string, { readonly round: SiteLevelRound; steps: number }>();
  for (const round of rounds) {
    const key = `${round.noiseMultiplier} ${round.normInSteps}`;
    const { steps } = alike.get(key) ?? { steps: 0 };
    alike.set(key, { round, steps: steps + 1 });
  }
  return [...alike.values()].map(({ round: { noiseMultiplier, normInSteps }, steps }) =>
    normInSteps === undefined
      ? { kind: 'poisson-gaussian', noiseMultiplier, samplingRate: 1, steps }
      : {
          kind: 'skellam',
          // Rounding lengthens an update and its noise alike, which costs less; and of whole numbers the absolute values
          // sum to no more than the squares.
          l2Sensitivity: normInSteps,
          l1Sensitivity: normInSteps ** 2,
          variance: (noiseMultiplier * normInSteps) ** 2,
          steps,
        },
  );
}

/**
 * Makes of an update what may leave its site, in place: clips it to `clippingNorm` over all tensors together and, with a
 * `noiseMultiplier`, adds Gaussian noise of that many clipping norms to each number (its sensitivity is the norm it was
 * clipped to, and nothing that could be set apart from it). Returns what clipping found. `random`: @default `node:crypto`.
 *
 * Throws as clipToNorm does, and RangeError as noiseStdDev does.
 */
export function protectUpdate(
  tensors: readonly Float32Array[],
  options: {
    readonly clippingNorm: number;
    /** Undefined: no noise; whoever adds up has to add it. */
    readonly noiseMultiplier?: number | undefined;
    readonly random?: RandomWords | undefined;
  },
): Clipping {
  const { clippingNorm, noiseMultiplier, random } = options;
  const clipping = clipToNorm(tensors, clippingNorm);
  if (noiseMultiplier === undefined) return clipping;
  const dimension = tensors.reduce((n, { length }) => n + length, 0);
  const noise = createGaussianNoise({
    stdDev: noiseStdDev({ clippingNorm, noiseMultiplier, dimension }),
    random,
  });
  for (const tensor of tensors) {
    const exact = Float64Array.from(tensor);
    noise.addTo(exact);
    tensor.set(exact);
  }
  return clipping;
}

/**
 * Whether an update that arrives with this norm was whole before its site clipped it to `clippingNorm`: a clipped one
 * arrives within rounding of it, so nobody has to send a bit that says so.
 */
export function arrivedWhole(norm: number, clippingNorm: number): boolean {
  return norm < clippingNorm * (1 - 2 ** -20);
}

/**
 * How a round's noise is divided when the clipping norm adapts: the sum of the updates gets noise of
 * `sumNoiseMultiplier` clipping norms, the count of whole updates a standard deviation of `countStdDev`; together they
 * cost what `noiseMultiplier` alone would (Andrew et al. 2021, arXiv 1905.03871, theorem 1).
 *
 * `countStdDev`: @default `expectedCohort` / 20 as in the paper, and at least `noiseMultiplier`, for with fewer than some
 * 20 sites a twentieth would be more than the budget has. Throws RangeError unless noiseMultiplier < 2 countStdDev.
 */
export function divideNoise(options: {
  readonly noiseMultiplier: number;
  readonly expectedCohort: number;
  readonly countStdDev?: number | undefined;
}): { readonly sumNoiseMultiplier: number; readonly countStdDev: number } {
  const { noiseMultiplier, expectedCohort } = options;
  const countStdDev = options.countStdDev ?? Math.max(expectedCohort / 20, noiseMultiplier);
  return { sumNoiseMultiplier: updateNoiseMultiplier(noiseMultiplier, countStdDev), countStdDev };
}
