/**
 * What the process's exit code says, so that a script can branch without reading text. One table: docs/cli.md shows
 * the same rows, and a test holds the two equal. An error's code decides by its longest matching prefix.
 */
import { errorCode } from '@tributary/shared-protocol';

export interface ExitCode {
  readonly code: number;
  readonly name: string;
  readonly meaning: string;
}

export const EXIT_CODES = [
  { code: 0, name: 'ok', meaning: 'Done.' },
  {
    code: 1,
    name: 'unexpected',
    meaning: 'Something that this program did not foresee; `--verbose` shows where.',
  },
  {
    code: 2,
    name: 'usage',
    meaning: 'An unknown command or flag, a value that can not be used, a file that is not there.',
  },
  { code: 3, name: 'config', meaning: 'The configuration or the run directory is not usable.' },
  {
    code: 4,
    name: 'data',
    meaning: 'The image folder is not usable: missing classes, too many unreadable images.',
  },
  {
    code: 5,
    name: 'network',
    meaning: 'The other end can not be reached or trusted, or the port is in use.',
  },
  {
    code: 6,
    name: 'refused',
    meaning: 'The coordinator refused: invite expired, used or forged, another version, expelled.',
  },
  { code: 7, name: 'engine', meaning: 'No engine can run here, or the trainer kept crashing.' },
  { code: 8, name: 'run', meaning: 'The run ended without reaching its goal.' },
  { code: 9, name: 'storage', meaning: 'The disk is full, or a folder is locked or can not be written.' },
  { code: 10, name: 'preflight', meaning: 'A check before joining failed; the printed list says which.' },
  { code: 11, name: 'policy', meaning: 'This site’s own policy refuses the federation.' },
  { code: 12, name: 'unverified', meaning: '`verify` found something that does not hold; it is printed.' },
  {
    code: 13,
    name: 'audit',
    meaning: '`audit` refuted a claim, or read an image out of an update; it is printed.',
  },
  {
    code: 130,
    name: 'interrupted',
    meaning: 'Stopped with Ctrl-C or a termination signal; the same command goes on.',
  },
] as const satisfies readonly ExitCode[];
export type ExitName = (typeof EXIT_CODES)[number]['name'];

/** Error code or prefix → exit. The longest match wins, so a family's exceptions stand beside the family. */
const BY_PREFIX: readonly (readonly [prefix: string, exit: ExitName])[] = [
  ['FED_CLI_', 'usage'],
  ['FED_CLI_CONFIG_', 'config'],
  ['FED_CLI_RUN_NOT_FOUND', 'config'],
  ['FED_CLI_MODEL_MISMATCH', 'config'],
  ['FED_CLI_NOT_RUNNING', 'network'],
  ['FED_CLI_RUN_FAILED', 'run'],
  ['FED_CLI_DEMO_PROCESS', 'run'],
  ['FED_CLI_INTERRUPTED', 'interrupted'],
  ['FED_CONFIG_', 'config'],
  ['FED_MODEL_', 'config'],
  ['FED_DATA_', 'data'],
  ['FED_IMAGE_', 'data'],
  ['FED_TRANSPORT_', 'network'],
  ['FED_PROTOCOL_', 'network'],
  ['FED_PROTOCOL_VERSION', 'refused'],
  ['FED_INVITE_', 'refused'],
  ['FED_JOIN_', 'refused'],
  ['FED_MEMBER_', 'usage'],
  ['FED_SIGNATURE_', 'refused'],
  ['FED_WORKER_', 'refused'],
  ['FED_WORKER_KEY', 'storage'],
  ['FED_WORKER_STATE_', 'storage'],
  ['FED_WORKER_STORAGE', 'storage'],
  ['FED_WORKER_PREFLIGHT', 'preflight'],
  ['FED_WORKER_CLOCK', 'preflight'],
  ['FED_WORKER_COORDINATOR_GONE', 'network'],
  ['FED_PRIVACY_', 'usage'],
  ['FED_POLICY_', 'policy'],
  ['FED_POLICY_UNREADABLE', 'config'],
  ['FED_POLICY_INVALID', 'config'],
  ['FED_ENGINE_', 'engine'],
  ['FED_TRAINER_', 'engine'],
  ['FED_TRAINER_NO_EXAMPLES', 'data'],
  ['FED_TRAINER_LOSS_UNKNOWN', 'config'],
  ['FED_TRAINER_METRIC_UNKNOWN', 'config'],
  ['FED_RUN_', 'config'],
  ['FED_RUN_STOPPED', 'run'],
  ['FED_RUN_LOCKED', 'storage'],
  ['FED_RUN_STORAGE', 'storage'],
  ['FED_STORE_', 'network'],
  ['FED_STORE_ENDED', 'run'],
  ['FED_STORE_OTHER_RUN', 'config'],
  ['FED_STORE_DAMAGED', 'storage'],
  ['FED_UPDATE_', 'run'],
  ['FED_EVALUATION_', 'run'],
  ['ENOSPC', 'storage'],
  ['EACCES', 'storage'],
  ['EROFS', 'storage'],
  ['EADDRINUSE', 'network'],
];

/** The number of a named exit. */
export function exitCode(name: ExitName): number {
  return EXIT_CODES.find((row) => row.name === name)!.code;
}

/** The exit code for any error: by its `code`, else `unexpected`. */
export function exitCodeOf(error: unknown): number {
  const code = errorCode(error);
  if (code === undefined) return exitCode('unexpected');
  let best: readonly [string, ExitName] | undefined;
  for (const row of BY_PREFIX) {
    if (code.startsWith(row[0]) && row[0].length > (best?.[0].length ?? -1)) best = row;
  }
  return exitCode(best?.[1] ?? 'unexpected');
}
