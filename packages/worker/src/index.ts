export type {
  PreflightStep,
  WorkerEvent,
  WorkerEventType,
  WorkerSummary,
  WorkerTask,
} from './agent/events.ts';
export type { JoinOptions } from './agent/join.ts';
export { joinFederation } from './agent/join.ts';
export type { PreflightOptions } from './agent/preflight.ts';
export { preflight } from './agent/preflight.ts';
export type { RotatedKey, RotateKeyOptions } from './agent/rotate-key.ts';
export { rotateKey } from './agent/rotate-key.ts';
export type { SiteFacts } from './agent/state-dir.ts';
export { findStateDir, readSiteFacts, siteStateDir, stateHome } from './agent/state-dir.ts';
export type { StartTrainer, Trainer, TrainerSetup } from './agent/trainer-keeper.ts';
export type { Batch, Shard, ShardOptions, ShardReport, TrainBatchesOptions } from './data/shard.ts';
export { openShard } from './data/shard.ts';
export type { PolicyErrorCode, WorkerErrorCode } from './errors.ts';
export { PolicyError, WORKER_ERROR_CODES, WorkerError } from './errors.ts';
export type { ArrayFlow, ArrayFlowOptions, FlowBatch } from './images/array-flow.ts';
export type { ColorMode, LoadOptions } from './images/decode.ts';
export { loadImage } from './images/decode.ts';
export type {
  ClassMode,
  DirectoryBatch,
  DirectoryFlow,
  DirectoryFlowOptions,
} from './images/directory-flow.ts';
export type { FitOptions } from './images/image-data-generator.ts';
export { ImageDataGenerator } from './images/image-data-generator.ts';
export type { ImageDataGeneratorOptions, ShiftRange } from './images/options.ts';
export type { Raster } from './images/resize.ts';
export type { LoadedPolicy } from './policy/load.ts';
export { loadPolicy, POLICY_FILE } from './policy/load.ts';
export { canWatchMemory } from './policy/resources.ts';
export type { FederationFacts, Verdict } from './policy/rules.ts';
export { judge } from './policy/rules.ts';
export type { PolicyKey, SitePolicy } from './policy/schema.ts';
export { POLICY_TEMPLATE } from './policy/template.ts';
export type { TrainerEvents, TrainerExit, TrainerHandle } from './trainer/handle.ts';
export { startTrainer } from './trainer/handle.ts';
