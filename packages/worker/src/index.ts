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
export { siteStateDir, stateHome } from './agent/state-dir.ts';
export type { StartTrainer, Trainer, TrainerSetup } from './agent/trainer-keeper.ts';
export type { Batch, Shard, ShardOptions, ShardReport, TrainBatchesOptions } from './data/shard.ts';
export { openShard } from './data/shard.ts';
export type { WorkerErrorCode } from './errors.ts';
export { WORKER_ERROR_CODES, WorkerError } from './errors.ts';
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
export type { TrainerEvents, TrainerExit, TrainerHandle } from './trainer/handle.ts';
export { startTrainer } from './trainer/handle.ts';
