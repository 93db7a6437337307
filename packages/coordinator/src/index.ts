export type { Fold } from './aggregate/fold.ts';
export { createFold } from './aggregate/fold.ts';
export { readCheckpoint } from './checkpoint.ts';
export { checkConfig, loadFederation } from './config/load.ts';
export type { ModelArtifact, ResolvedFederation, TensorShape } from './config/resolve.ts';
export { federationView, resolveFederation, withRecipe } from './config/resolve.ts';
export type { FederationConfig, FederationSettings, ModelBuilder, StrategyPlan } from './config/schema.ts';
export { configSchema, defineFederation } from './config/schema.ts';
export type { Coordinator, CoordinatorOptions, RunSummary } from './coordinator.ts';
export { createCoordinator } from './coordinator.ts';
export type { ConfigIssue, CoordinatorErrorCode } from './errors.ts';
export { COORDINATOR_ERROR_CODES, ConfigError, CoordinatorError } from './errors.ts';
export type { Revocation } from './members/revocation.ts';
export { revokeOffline } from './members/revocation.ts';
export { privacyStatus, releasedRounds } from './privacy-books.ts';
export type { RunPaths } from './run/directory.ts';
export { runPaths } from './run/directory.ts';
export type { LogRecord } from './run/log.ts';
export { verifyRunLog } from './run/log.ts';
export type { LogEntry, RunState } from './run/records.ts';
export { memberViews, replay } from './run/records.ts';
export { storePermissions } from './store/names.ts';
export type { Leader, Leadership, LeadOptions, RunStore } from './store/store.ts';
export { createStrategy } from './strategies/create.ts';
export type { FedAvgOptions } from './strategies/fed-avg.ts';
export { fedAvg } from './strategies/fed-avg.ts';
export type {
  MeanUpdate,
  RankedStrategy,
  RoundContext,
  Strategy,
  StrategyState,
  StreamingStrategy,
  UpdateFacts,
} from './strategy.ts';
export type { CopyOptions, CopyReport } from './verify/verify-copy.ts';
export { verifyCopy } from './verify/verify-copy.ts';
export type { Finding, FindingKind, VerifyOptions, VerifyReport } from './verify/verify-run.ts';
export { verifyRun } from './verify/verify-run.ts';
