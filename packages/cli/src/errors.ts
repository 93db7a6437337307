/** Errors of the command line itself. Branch on `code`; docs/errors.md lists every code and what to do about it. */

export const CLI_ERROR_CODES = [
  'FED_CLI_USAGE',
  'FED_CLI_FILE_MISSING',
  'FED_CLI_FILE_EXISTS',
  'FED_CLI_CONFIG_MISSING',
  'FED_CLI_RUN_NOT_FOUND',
  'FED_CLI_MODEL_MISMATCH',
  'FED_CLI_NOT_RUNNING',
  'FED_CLI_RUN_FAILED',
  'FED_CLI_DEMO_DIGITS_MISSING',
  'FED_CLI_DEMO_PROCESS',
  'FED_CLI_NATS_SERVER_MISSING',
  'FED_CLI_INTERRUPTED',
] as const;
export type CliErrorCode = (typeof CLI_ERROR_CODES)[number];

/** What an error block shows beside its message; each line is left out when it is not known. */
export interface ErrorHints {
  /** The flag, file or address that it is about. */
  readonly where?: string;
  /** One sentence: what to do. */
  readonly todo?: string;
}

/** Thrown when a command can't do what it was asked to; the message is for the person at the terminal. */
export class CliError extends Error {
  override readonly name = 'CliError' as const;
  readonly code: CliErrorCode;
  readonly where: string | undefined;
  readonly todo: string | undefined;

  constructor(code: CliErrorCode, message: string, options: ErrorHints & ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.where = options.where;
    this.todo = options.todo;
  }
}
