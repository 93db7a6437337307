/** Errors of a site. Branch on `code`, not on the class; docs/errors.md lists every code and what to do about it. */

export const WORKER_ERROR_CODES = [
  // The agent: state, preflight, the coordinator.
  'FED_WORKER_STATE_LOCKED',
  'FED_WORKER_STATE_UNUSABLE',
  'FED_WORKER_STORAGE',
  'FED_WORKER_NO_CREDENTIAL',
  'FED_WORKER_KEY',
  'FED_WORKER_RECORDS',
  'FED_WORKER_PREFLIGHT',
  'FED_WORKER_CLOCK',
  'FED_WORKER_WRONG_RUN',
  'FED_WORKER_COORDINATOR_GONE',
  'FED_WORKER_ATTEMPT',
  'FED_WORKER_PEER',
  // The site's policy.
  'FED_POLICY_UNREADABLE',
  'FED_POLICY_INVALID',
  'FED_POLICY_COORDINATOR',
  'FED_POLICY_MODEL',
  'FED_POLICY_COHORT',
  'FED_POLICY_PRIVACY',
  'FED_POLICY_BUDGET',
  'FED_POLICY_ROUNDS',
  'FED_POLICY_HOURS',
  'FED_POLICY_BYTES',
  'FED_POLICY_ENGINE',
  'FED_POLICY_MEMORY',
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
  'FED_TRAINER_BATCH_NORM',
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

export type PolicyErrorCode = Extract<WorkerErrorCode, `FED_POLICY_${string}`>;

/** Thrown when the site's policy can't be read, or refuses what is asked of the site. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError' as const;
  readonly code: PolicyErrorCode;
  /** When the same may be asked again, in Unix millis; undefined when time won't change the answer. */
  readonly retryAt: number | undefined;

  constructor(
    code: PolicyErrorCode,
    message: string,
    { retryAt, ...options }: ErrorOptions & { readonly retryAt?: number } = {},
  ) {
    super(message, options);
    this.code = code;
    this.retryAt = retryAt;
  }
}

/** Whether the site's own policy said no. */
export function isPolicyError(error: unknown): error is PolicyError {
  return error instanceof PolicyError;
}
