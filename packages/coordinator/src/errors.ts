/** Errors of the coordinator. Branch on `code`, not on the class; docs/errors.md lists every code and what to do about it. */

export const COORDINATOR_ERROR_CODES = [
  'FED_CONFIG_INVALID',
  'FED_CONFIG_UNREADABLE',
  'FED_RUN_LOCKED',
  'FED_RUN_CONFIG_CHANGED',
  'FED_RUN_LOG_BROKEN',
  'FED_RUN_STORAGE',
  'FED_RUN_CHECKPOINT',
  'FED_RUN_MODEL_MISSING',
  'FED_RUN_STOPPED',
  'FED_RUN_CERTIFICATE',
  'FED_STORE_UNAVAILABLE',
  'FED_STORE_FORBIDDEN',
  'FED_STORE_LEASE_LOST',
  'FED_STORE_ENDED',
  'FED_STORE_OTHER_RUN',
  'FED_STORE_DAMAGED',
  'FED_INVITE_UNKNOWN',
  'FED_INVITE_EXPIRED',
  'FED_INVITE_USED',
  'FED_INVITE_WITHDRAWN',
  'FED_JOIN_CREDENTIAL',
  'FED_JOIN_NAME',
  'FED_JOIN_NAME_TAKEN',
  'FED_JOIN_CLOCK',
  'FED_JOIN_FORBIDDEN',
  'FED_JOIN_SIGNATURE',
  'FED_JOIN_KEY_TAKEN',
  'FED_JOIN_REVOKED',
  'FED_MEMBER_UNKNOWN',
  'FED_SIGNATURE_INVALID',
  'FED_SIGNATURE_REPLAYED',
  'FED_SIGNATURE_CLOCK',
  'FED_UPDATE_ROUND',
  'FED_UPDATE_STALE',
  'FED_UPDATE_LATE',
  'FED_UPDATE_BASE',
  'FED_UPDATE_UNINVITED',
  'FED_UPDATE_DUPLICATE',
  'FED_UPDATE_EXAMPLES',
  'FED_UPDATE_METRICS',
  'FED_UPDATE_SIZE',
  'FED_UPDATE_UNMASKED',
  'FED_UPDATE_MANIFEST',
  'FED_UPDATE_NON_FINITE',
  'FED_UPDATE_RANGE',
  'FED_UPDATE_TRANSFER',
  'FED_UPDATE_COUNT',
  'FED_EVALUATION_UNEXPECTED',
] as const;
export type CoordinatorErrorCode = (typeof COORDINATOR_ERROR_CODES)[number];

/** Thrown when a configuration, a run directory, a site's request or an update can't be accepted. */
export class CoordinatorError extends Error {
  override readonly name: string = 'CoordinatorError';
  readonly code: CoordinatorErrorCode;
  /** What a site is told: whether the same request may be met later. So it is once there is room on our disk. */
  readonly retryable: boolean;

  constructor(code: CoordinatorErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.retryable = code === 'FED_RUN_STORAGE';
  }
}

/** One mistake in a configuration. */
export interface ConfigIssue {
  /** The key's path, e.g. `training.optimizer.learningRate`; empty for the whole file. */
  readonly path: string;
  /** The value found there, as short JSON; undefined when the key is absent. */
  readonly value: string | undefined;
  /** What would be right. */
  readonly message: string;
}

/** Thrown when a configuration has mistakes; `issues` names every one of them. */
export class ConfigError extends CoordinatorError {
  override readonly name = 'ConfigError' as const;
  readonly file: string;
  readonly issues: readonly ConfigIssue[];

  constructor(file: string, issues: readonly ConfigIssue[], options?: ErrorOptions) {
    const lines = issues.map(
      ({ path, value, message }) =>
        `  ${path || '(all of it)'}${value === undefined ? '' : ` = ${value}`}: ${message}`,
    );
    super(
      'FED_CONFIG_INVALID',
      `${file}: ${issues.length === 1 ? 'a mistake' : `${issues.length} mistakes`}\n${lines.join('\n')}`,
      options,
    );
    this.file = file;
    this.issues = issues;
  }
}
