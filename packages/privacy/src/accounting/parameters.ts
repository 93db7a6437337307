/** Ranges of the numbers that an accountant takes: what is outside of them is refused, and the value is named. */
import { PrivacyError } from '../errors.ts';

/** Less noise than this, over the sensitivity, counts as none: the loss is in the thousands, and integrals take long. */
export const LEAST_NOISE = 0.01;

/** Throws FED_PRIVACY_PARAMETER unless `holds`. */
export function demand(holds: boolean, name: string, value: unknown, range: string): void {
  if (!holds) throw new PrivacyError('FED_PRIVACY_PARAMETER', `${name} is ${String(value)}; it is ${range}.`);
}

export const isRate = (value: number): boolean => value >= 0 && value <= 1;

export function demandDelta(delta: number): void {
  demand(isRate(delta), 'delta', delta, 'a probability from 0 to 1');
}

export function demandNoiseMultiplier(noiseMultiplier: number): void {
  demand(noiseMultiplier >= 0 && noiseMultiplier < Infinity, 'noiseMultiplier', noiseMultiplier, '0 or more');
}

export function demandSamplingRate(samplingRate: number): void {
  demand(isRate(samplingRate), 'samplingRate', samplingRate, 'a probability from 0 to 1');
}

export function demandSteps(steps: number): void {
  demand(Number.isSafeInteger(steps) && steps >= 0, 'steps', steps, 'a whole number, 0 or more');
}
