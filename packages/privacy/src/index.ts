/** Privacy as mathematics on typed arrays. No I/O, no configuration, no tfjs. */
export type { PrivacyErrorCode } from './errors.ts';
export { PRIVACY_ERROR_CODES, PrivacyError } from './errors.ts';
export type { AdaptiveClippingSettings, AdaptiveClippingState } from './mechanisms/adaptive-clipping.ts';
export {
  initAdaptiveClipping,
  updateAdaptiveClipping,
  updateNoiseMultiplier,
} from './mechanisms/adaptive-clipping.ts';
export type { Clipping } from './mechanisms/clipping.ts';
export { clipToNorm } from './mechanisms/clipping.ts';
export type { GaussianNoise } from './mechanisms/gaussian.ts';
export { createGaussianNoise, gaussianStdDev } from './mechanisms/gaussian.ts';
export { rotate, rotateBack, rotatedLength } from './mechanisms/rotation.ts';
export { roundedNorm, roundStochastically, stepsPerUnit } from './mechanisms/rounding.ts';
export type { SkellamNoise } from './mechanisms/skellam.ts';
export { createSkellamNoise, localVariance } from './mechanisms/skellam.ts';
export type { RandomWords } from './random.ts';
export { cryptoWords } from './random.ts';
