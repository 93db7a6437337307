export type {
  PreflightStep,
  WorkerEvent,
  WorkerEventType,
  WorkerSummary,
  WorkerTask,
} from './agent/events.ts';
export type { WorkerErrorCode } from './errors.ts';
export { WORKER_ERROR_CODES, WorkerError } from './errors.ts';
