/**
 * Site-level privacy of a sum that nobody has without its noise (distributed Skellam: Agarwal, Kairouz, Liu 2021, arXiv
 * 2110.04995): each site rounds its clipped update to whole steps and adds its share of the noise, the masks of secure
 * aggregation hide the shares, and the sum has all of it. Steps are a power of two, so that float32 holds whole numbers of
 * them exactly. Vectors are not rotated (as Kairouz et al. 2021, arXiv 2102.06387, do to save bits): a value has 16 bits or
 * more here, so that the range may hold the clipping norm itself.
 */
import { PrivacyError } from './errors.ts';
import { type Clipping, clipToNorm } from './mechanisms/clipping.ts';
import { roundedNorm, roundStochastically } from './mechanisms/rounding.ts';
import { createSkellamNoise, localVariance } from './mechanisms/skellam.ts';
import type { RandomWords } from './random.ts';
import { valueSteps } from './secure-aggregation/fixed-point.ts';

/** What a federation says of it. */
export interface DistributedSum {
  /** L2 norm to which an update is clipped, over all its numbers together. */
  readonly clippingNorm: number;
  /** Standard deviation of the sum's noise, in clipping norms. */
  readonly noiseMultiplier: number;
  /** Bits of a value under the masks. */
  readonly valueBits: number;
}

/** The steps in which the sum is counted. */
export interface SumGrid {
  /** A power of two. */
  readonly stepsPerUnit: number;
  /** The fixed point's: its steps are the grid's. */
  readonly clippingRange: number;
  /** The clipping norm, in steps. */
  readonly normInSteps: number;
}

/** Rounding may lengthen an update by this factor at most. */
const SLACK = 1.25;
/**
 * A value has room for so many standard deviations of all the noise, so that nothing is cut off: beyond ten of them, a
 * Skellam variable of a standard deviation of 32 or more is with a chance below 2^-66.
 */
const DEVIATIONS = 10;
const FEWEST_STEPS = 32;
/** Tables of the sampler grow with the standard deviation. */
const MOST_STEPS = 2 ** 16;

/** Returns the grid. Throws PrivacyError FED_PRIVACY_PARAMETER when so few bits can't hold so much noise. */
export function sumGrid({ clippingNorm, noiseMultiplier, valueBits }: DistributedSum): SumGrid {
  const halfRange = valueSteps(valueBits) / 2;
  const perUnit = halfRange / (SLACK * clippingNorm * (1 + DEVIATIONS * noiseMultiplier));
  const forSampler = MOST_STEPS / (SLACK * clippingNorm * noiseMultiplier);
  const stepsPerUnit = 2 ** Math.floor(Math.log2(Math.min(perUnit, forSampler)));
  const normInSteps = clippingNorm * stepsPerUnit;
  if (normInSteps * Math.min(1, noiseMultiplier) < FEWEST_STEPS)
    throw new PrivacyError(
      'FED_PRIVACY_PARAMETER',
      `values of ${valueBits} bits leave ${normInSteps.toPrecision(2)} steps for the clipping norm with noise of ${noiseMultiplier} of it, and either needs ${FEWEST_STEPS}: take more valueBits`,
    );
  return { stepsPerUnit, clippingRange: halfRange / stepsPerUnit, normInSteps };
}

/**
 * The longest that an update of `dimension` numbers can be on the grid, in steps. Throws PrivacyError
 * FED_PRIVACY_PARAMETER when the steps are so coarse that rounding would lengthen it by more than a quarter.
 */
export function longestOnGrid({ normInSteps }: SumGrid, dimension: number): number {
  const longest = roundedNorm({ clippingNorm: normInSteps, dimension });
  if (longest <= SLACK * normInSteps) return longest;
  throw new PrivacyError(
    'FED_PRIVACY_PARAMETER',
    `rounding ${dimension} numbers to steps of 1 / ${normInSteps.toPrecision(3)} of the clipping norm may lengthen an update by more than a quarter: take more valueBits`,
  );
}

/**
 * The fewest sites whose noise counts, of the updates in a sum: of `asked` sites any may drop out as long as secure
 * aggregation goes on and `fewest` are left, and less than a third of those that begin may tell the coordinator their noise.
 */
export function fewestHonest({ asked, fewest }: { readonly asked: number; readonly fewest: number }): number {
  let least = Number.POSITIVE_INFINITY;
  for (let n = Math.min(asked, fewest); n <= asked; n++) {
    const left = Math.max(fewest, Math.floor((2 * n) / 3) + 1);
    least = Math.min(least, left - (Math.ceil(n / 3) - 1));
  }
  return least;
}

/**
 * Makes of an update what may be masked, in place: clips it over all tensors together, rounds each number to a whole step
 * and adds a share of the noise, so that the shares of `honest` sites are all of it. Returns what clipping found. `random`:
 * @default `node:crypto`.
 *
 * Throws as clipToNorm, sumGrid and longestOnGrid do.
 */
export function protectShare(
  tensors: readonly Float32Array[],
  options: DistributedSum & { readonly honest: number; readonly random?: RandomWords | undefined },
): Clipping {
  const { noiseMultiplier, honest, random } = options;
  const grid = sumGrid(options);
  const dimension = tensors.reduce((n, { length }) => n + length, 0);
  const longest = longestOnGrid(grid, dimension);
  const clipping = clipToNorm(tensors, options.clippingNorm);
  const exact = new Float64Array(dimension);
  let at = 0;
  for (const tensor of tensors) {
    for (let i = 0; i < tensor.length; i++) exact[at++] = tensor[i]! * grid.stepsPerUnit;
  }
  const steps = roundStochastically(exact, longest, random);
  const centralVariance = (noiseMultiplier * longest) ** 2;
  const variance = localVariance({ centralVariance, threshold: honest, colluders: 0 });
  createSkellamNoise({ variance, ...(random === undefined ? {} : { random }) }).addTo(steps);
  at = 0;
  for (const tensor of tensors) {
    for (let i = 0; i < tensor.length; i++) tensor[i] = steps[at++]! / grid.stepsPerUnit;
  }
  return clipping;
}
