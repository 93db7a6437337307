export type { FederationConfig } from '@tributary/coordinator';
export { defineFederation } from '@tributary/coordinator';
export type { CliErrorCode } from './errors.ts';
export { CLI_ERROR_CODES, CliError } from './errors.ts';
export type { ExitCode, ExitName } from './exit-codes.ts';
export { EXIT_CODES, exitCodeOf } from './exit-codes.ts';
