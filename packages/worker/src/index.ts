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
export type { WorkerErrorCode } from './errors.ts';
export { WORKER_ERROR_CODES, WorkerError } from './errors.ts';
