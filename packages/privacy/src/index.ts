/** Privacy as mathematics on typed arrays. No I/O, no configuration, no tfjs. */
export type { PrivacyErrorCode } from './errors.ts';
export { PRIVACY_ERROR_CODES, PrivacyError } from './errors.ts';
export type { RandomWords } from './random.ts';
export { cryptoWords } from './random.ts';
export type { Roster } from './secure-aggregation/cohort.ts';
export type { SecaggCoordinatorOptions, SecaggResult } from './secure-aggregation/coordinator.ts';
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
export { planRound } from './secure-aggregation/plan.ts';
export type { SecaggSiteOptions } from './secure-aggregation/site.ts';
export { SecaggSite } from './secure-aggregation/site.ts';
