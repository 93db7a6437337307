/**
 * Updates as whole numbers, whose sum is exact. A value in [−range, range] becomes one of `steps` + 1 levels, 0 the one in
 * the middle, rounded up or down at random so that its mean is the value; then it is multiplied by the site's weight. The
 * modulus has just the bits that the largest possible sum needs: a sum that could overflow is refused before the round,
 * not found wrong after it.
 */
import { PrivacyError } from '../errors.ts';
import type { RandomWords } from '../random.ts';

const MAX_BITS = 32;
const MAX_STEPS = 2 ** 31 - 2;
/** A word times this is in [0, 1). */
const WORD_TO_UNIT = 2 ** -32;

export interface FixedPointSettings {
  /** Values beyond ± this are clipped, and counted. In units of the update; > 0. */
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
  const { clippingRange, steps, maxWeight, examplesPerWeight = 1 } = settings;
  if (!(clippingRange > 0 && Number.isFinite(clippingRange)))
    throw new PrivacyError('FED_PRIVACY_PARAMETER', `clippingRange is ${clippingRange}: it must be above 0`);
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
 * Writes weight · level of each of `values` into `words`, and returns how many values were clipped. Throws PrivacyError
 * FED_PRIVACY_SECAGG_UPDATE at a value that is not finite.
 */
export function encodeValues(
  values: Float32Array,
  words: Uint32Array,
  weight: number,
  fixedPoint: FixedPoint,
  random: RandomWords,
): number {
  const { clippingRange, steps } = fixedPoint;
  const scale = steps / (2 * clippingRange);
  const middle = steps / 2;
  // The same words, as V8 stores them fastest.
  const out = new Int32Array(words.buffer, words.byteOffset, words.length);
  let clipped = 0;
  for (let i = 0; i < values.length; i++) {
    let value = values[i]!;
    if (!(value <= clippingRange && value >= -clippingRange)) {
      if (!Number.isFinite(value))
        throw new PrivacyError('FED_PRIVACY_SECAGG_UPDATE', `the update has a value that is ${value}`);
      value = value > 0 ? clippingRange : -clippingRange;
      clipped++;
    }
    const exact = value * scale + middle;
    const below = exact | 0;
    // Up by one with the chance of what is above `below`, without a branch that nobody could foretell.
    const level = below + ((exact - below + random() * WORD_TO_UNIT) | 0);
    out[i] = Math.imul(weight, Math.min(level, steps));
  }
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
