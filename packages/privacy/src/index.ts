/** Privacy as mathematics on typed arrays. No I/O, no configuration, no tfjs. */

export { gaussianDelta, gaussianEpsilon, gaussianStdDev } from './accounting/analytic-gaussian.ts';
export type { NoiseBudget, StepsBudget } from './accounting/budget.ts';
export { noiseMultiplierFor, stepsWithin } from './accounting/budget.ts';
export { discreteGaussianRdp, discreteGaussianSumGap, skellamRdp } from './accounting/distributed-noise.ts';
export { fixedSizeGaussianRdp } from './accounting/fixed-size-gaussian.ts';
export type {
  Accountant,
  DiscreteGaussianSteps,
  FixedSizeGaussian,
  Mechanism,
  PoissonGaussian,
  SkellamSteps,
} from './accounting/history.ts';
export { deltaOf, epsilonOf, rdpOf } from './accounting/history.ts';
export type { RdpCurve, RdpEpsilon } from './accounting/rdp.ts';
export { composeRdp, RDP_ORDERS, rdpCurve, rdpDelta, rdpEpsilon } from './accounting/rdp.ts';
export { subsampledGaussianRdp } from './accounting/subsampled-gaussian.ts';
export type { CanaryCounts } from './audit/canary.ts';
export { epsilonLowerBound } from './audit/canary.ts';
export { rateLowerBound, rateUpperBound } from './audit/clopper-pearson.ts';
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
export type { DistributedSum, SumGrid } from './distributed-sum.ts';
export { fewestHonest, longestOnGrid, protectShare, sumGrid } from './distributed-sum.ts';
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
export { createGaussianNoise, noiseStdDev } from './mechanisms/gaussian.ts';
export { rotate, rotateBack, rotatedLength } from './mechanisms/rotation.ts';
export { roundedNorm, roundStochastically, stepsPerUnit } from './mechanisms/rounding.ts';
export type { SkellamNoise } from './mechanisms/skellam.ts';
export { createSkellamNoise, localVariance } from './mechanisms/skellam.ts';
export type { RandomWords } from './random.ts';
export { cryptoWords } from './random.ts';
export type { RecordLevelRound } from './record-level.ts';
export { poissonSampling, recordLevelHistory } from './record-level.ts';
export type { Roster } from './secure-aggregation/cohort.ts';
export type {
  MaskedReceiver,
  SecaggCoordinatorOptions,
  SecaggResult,
} from './secure-aggregation/coordinator.ts';
export { SecaggCoordinator } from './secure-aggregation/coordinator.ts';
export type { FixedPoint, FixedPointSettings } from './secure-aggregation/fixed-point.ts';
export { decodeMean, planFixedPoint, valueSteps } from './secure-aggregation/fixed-point.ts';
export type { HararyRequirements } from './secure-aggregation/graph.ts';
export { hararyParameters } from './secure-aggregation/graph.ts';
export type {
  Delivery,
  KeysMessage,
  MaskedMessage,
  Share,
  SharesMessage,
  SurvivorsMessage,
  UnmaskMessage,
  UnmaskRequest,
} from './secure-aggregation/messages.ts';
export type { SecaggPlan, SecaggSettings } from './secure-aggregation/plan.ts';
export { FEWEST_SITES, planRound } from './secure-aggregation/plan.ts';
export type { FederationMasking } from './secure-aggregation/round-settings.ts';
export { settingsOfRound } from './secure-aggregation/round-settings.ts';
export type { SecaggSiteOptions } from './secure-aggregation/site.ts';
export { SecaggSite } from './secure-aggregation/site.ts';
export type { UpdateMasker } from './secure-aggregation/update-masker.ts';
export type { SiteLevelRound } from './site-level.ts';
export { arrivedWhole, divideNoise, protectUpdate, siteLevelHistory, siteLevelRound } from './site-level.ts';
export type { PrivateRound } from './spending.ts';
export { epsilonSpent, isWithinBudget, spendingHistory } from './spending.ts';
