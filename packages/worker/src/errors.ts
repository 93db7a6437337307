/** Errors of a site. Branch on `code`, not on the class; docs/errors.md lists every code and what to do about it. */

export const WORKER_ERROR_CODES = [
  // The agent: state, preflight, the coordinator.
  'FED_WORKER_STATE_LOCKED',
  'FED_WORKER_STATE_UNUSABLE',
  'FED_WORKER_NO_CREDENTIAL',
  'FED_WORKER_KEY',
  'FED_WORKER_PREFLIGHT',
  'FED_WORKER_CLOCK',
  'FED_WORKER_WRONG_RUN',
  'FED_WORKER_COORDINATOR_GONE',
  // The site's images.
  'FED_DATA_FOLDER_MISSING',
  'FED_DATA_LAYOUT',
  'FED_DATA_CLASSES_DIFFER',
  'FED_DATA_CLASS_EMPTY',
  'FED_DATA_TOO_MANY_UNREADABLE',
  'FED_DATA_ZCA_TOO_LARGE',
  'FED_IMAGE_UNREADABLE',
  'FED_IMAGE_TOO_LARGE',
  // The trainer process.
  'FED_TRAINER_CRASHED',
  'FED_TRAINER_OUT_OF_MEMORY',
  'FED_TRAINER_NO_EXAMPLES',
  'FED_TRAINER_OUTPUT',
  'FED_TRAINER_LOSS_UNKNOWN',
  'FED_TRAINER_METRIC_UNKNOWN',
  'FED_TRAINER_DIVERGED',
] as const;
export type WorkerErrorCode = (typeof WORKER_ERROR_CODES)[number];

/** Thrown when a site can't take part, can't read its data, or can't train. */
export class WorkerError extends Error {
  override readonly name = 'WorkerError' as const;
  readonly code: WorkerErrorCode;

  constructor(code: WorkerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
