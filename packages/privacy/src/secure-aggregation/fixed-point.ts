/**
 * Updates as whole numbers, whose sum is exact. A value in [−range, range] becomes one of `steps` + 1 levels, 0 the one in
 * the middle, rounded up or down at random so that its mean is the value; then it is multiplied by the site's weight. The
 * modulus has just the bits that the largest possible sum needs: a sum that could overflow is refused before the round,
 * not found wrong after it.
 */
import { PrivacyError } from '../errors.ts';
import { encodeWords, PIECE_WORDS, pieceRandom } from './kernel.ts';

const MAX_BITS = 32;
const MAX_STEPS = 2 ** 31 - 2;

/** Fills `bytes` with uniform and independent bytes. */
export type RandomFill = (bytes: Uint8Array) => void;

export interface FixedPointSettings {
  /** Values beyond ± this, as the nearest float32, are clipped, and counted. In units of the update; > 0. */
  readonly clippingRange: number;
  /** Levels between −range and range, an even number from 2 to 2^31 − 2. `valueSteps(bits)` are those that fill so many bits. */
  readonly steps: number;
  /** The largest weight of one site, an integer ≥ 1; 1 gives every site the same. */
  readonly maxWeight: number;
  /** Examples that count as 1 of weight. @default 1 */
  readonly examplesPerWeight?: number;
}

export interface FixedPoint extends Required<FixedPointSettings> {
  /** Bits of a word on the wire and of the modulus: the fewest that hold the sum of all sites. */
  readonly bits: number;
}

/** The even number of steps whose levels fill `bits` bits, from 2 to 31: 2^bits − 2. */
export function valueSteps(bits: number): number {
  if (!Number.isInteger(bits) || bits < 2 || bits > 31)
    throw new PrivacyError('FED_PRIVACY_PARAMETER', `values of ${bits} bits: from 2 to 31 are possible`);
  return 2 ** bits - 2;
}

/**
 * Returns the settings with the bits that the sum over `sites` sites needs. Throws PrivacyError FED_PRIVACY_PARAMETER for
 * a number out of its range, and FED_PRIVACY_SECAGG_OVERFLOW when the sum needs more than 32 bits.
 */
export function planFixedPoint(settings: FixedPointSettings, sites: number): FixedPoint {
  const { steps, maxWeight, examplesPerWeight = 1 } = settings;
  // Values are float32, and no such value may be between the range and what it is rounded to.
  const clippingRange = Math.fround(settings.clippingRange);
  if (!(clippingRange > 0 && Number.isFinite(clippingRange)))
    throw new PrivacyError(
      'FED_PRIVACY_PARAMETER',
      `clippingRange is ${settings.clippingRange}: it must be above 0, and a float32`,
    );
  if (!Number.isSafeInteger(steps) || steps < 2 || steps > MAX_STEPS || steps % 2 !== 0)
    throw new PrivacyError(
      'FED_PRIVACY_PARAMETER',
      `steps is ${steps}: it must be an even number from 2 to ${MAX_STEPS}`,
    );
  for (const [name, value] of Object.entries({ maxWeight, examplesPerWeight, sites }))
    if (!Number.isSafeInteger(value) || value < 1)
      throw new PrivacyError('FED_PRIVACY_PARAMETER', `${name} is ${value}: it must be an integer from 1`);
  // Above 2^53 the product is rounded, and refused anyhow.
  const largest = steps * maxWeight * sites;
  const bits = largest < 2 ** MAX_BITS ? MAX_BITS - Math.clz32(largest) : Math.ceil(Math.log2(largest + 1));
  if (bits > MAX_BITS)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_OVERFLOW',
      `the sum of ${sites} sites with weights up to ${maxWeight} and ${steps} steps a value needs ${bits} bits, and there are ${MAX_BITS}: take fewer steps, or a smaller maxWeight with more examplesPerWeight`,
    );
  return { clippingRange, steps, maxWeight, examplesPerWeight, bits };
}

/**
 * The weight of a site with so many examples: at least 1. Throws PrivacyError FED_PRIVACY_SECAGG_UPDATE when it would be
 * above `maxWeight`: the site would silently count for less than it has.
 */
export function weightOf(numExamples: number, fixedPoint: FixedPoint): number {
  const weight = Math.max(1, Math.round(numExamples / fixedPoint.examplesPerWeight));
  if (!Number.isSafeInteger(numExamples) || numExamples < 1 || weight > fixedPoint.maxWeight)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_UPDATE',
      `${numExamples} examples have no weight from 1 to ${fixedPoint.maxWeight} at ${fixedPoint.examplesPerWeight} examples a unit`,
    );
  return weight;
}

/**
 * Replaces the first `count` values of the kernel's piece by weight · level, drawing two random bytes for each, and returns
 * how many of them were clipped. A value x levels above 0 becomes ⌊x⌋ or ⌈x⌉, with a mean that is at most 2^-16 of a level
 * from x: 16 bits decide, so a chance is a multiple of 2^-16, the nearest one. A whole x, so that of 0, is never changed.
 * Throws PrivacyError FED_PRIVACY_SECAGG_UPDATE for a value that is not finite.
 */
export function encodePiece(
  count: number,
  weight: number,
  fixedPoint: FixedPoint,
  random: RandomFill,
): number {
  const { clippingRange, steps } = fixedPoint;
  random(count === PIECE_WORDS ? pieceRandom : pieceRandom.subarray(0, 2 * count));
  const clipped = encodeWords(count, clippingRange, steps / (2 * clippingRange), steps / 2, weight);
  if (clipped < 0)
    throw new PrivacyError('FED_PRIVACY_SECAGG_UPDATE', 'the update has a value that is not finite');
  return clipped;
}

/** A part of [0, 1] as a level; rounded up, so that it is 0 only where nothing was clipped. */
export function encodeFraction(fraction: number, fixedPoint: FixedPoint): number {
  return Math.ceil(fraction * fixedPoint.steps);
}

/**
 * Writes the weighted mean of the updates into `mean`, from the sums of their words and of their weights. `mean` may lie
 * over the same memory as `sums`.
 */
export function decodeMean(
  sums: Uint32Array,
  totalWeight: number,
  fixedPoint: FixedPoint,
  mean: Float32Array,
): void {
  const { clippingRange, steps } = fixedPoint;
  const zero = totalWeight * (steps / 2);
  const step = (2 * clippingRange) / steps / totalWeight;
  for (let i = 0; i < sums.length; i++) mean[i] = (sums[i]! - zero) * step;
}
