/** Privacy as mathematics on typed arrays. No I/O, no configuration, no tfjs. */
export type { CanaryCounts } from './audit/canary.ts';
export { epsilonLowerBound } from './audit/canary.ts';
export { rateLowerBound, rateUpperBound } from './audit/clopper-pearson.ts';
export { gaussianEpsilon } from './audit/gaussian-epsilon.ts';
export type { DenseUpdate, ImageError } from './audit/gradient-leaks.ts';
export { imageError, leakedInput, leakedLabels } from './audit/gradient-leaks.ts';
export type { MechanismAudit, MechanismAuditOptions } from './audit/mechanism-audit.ts';
export { auditMechanism } from './audit/mechanism-audit.ts';
export type { LossAttack, ShadowLosses } from './audit/membership.ts';
export {
  likelihoodRatio,
  lossThresholdAttack,
  membershipAdvantageBound,
  truePositiveRateAt,
} from './audit/membership.ts';
export type { OneRunGuesses } from './audit/one-run.ts';
export { oneRunEpsilonLowerBound } from './audit/one-run.ts';
export type { PrivacyErrorCode } from './errors.ts';
export { PRIVACY_ERROR_CODES, PrivacyError } from './errors.ts';
export type { RandomWords } from './random.ts';
export { cryptoWords } from './random.ts';
