/** What a command may touch: its streams, its folder and how to print. Tests hand in their own. */
import pc from 'picocolors';
import type { TerminalStream } from './terminal/live.ts';

export type Colours = ReturnType<typeof pc.createColors>;

export interface CliContext {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: TerminalStream;
  readonly stderr: TerminalStream;
  /** Colours for stdout: off in a pipe and with NO_COLOR (no-color.org), on with FORCE_COLOR. */
  readonly colours: Colours;
  /** Aborted by the first Ctrl-C or SIGTERM; a second one ends the process at once. */
  readonly signal: AbortSignal;
}

/** A context for `env` and the streams given. */
export function createContext(options: Omit<CliContext, 'colours'>): CliContext {
  return { ...options, colours: coloursFor(options.stdout, options.env) };
}

/** Colours for one stream. NO_COLOR (not empty) wins over everything, then FORCE_COLOR, then whether it is a terminal. */
export function coloursFor(stream: TerminalStream, env: CliContext['env']): Colours {
  const no = env['NO_COLOR'];
  const force = env['FORCE_COLOR'];
  if (no !== undefined && no !== '') return pc.createColors(false);
  if (force !== undefined && force !== '') return pc.createColors(force !== '0');
  return pc.createColors(stream.isTTY === true && env['TERM'] !== 'dumb');
}

/** One JSON object as one line. Errors in the data (a bigint, a cycle) are programming errors and throw. */
export function printJson(context: CliContext, value: unknown): void {
  context.stdout.write(`${JSON.stringify(value)}\n`);
}

export function print(context: CliContext, text = ''): void {
  context.stdout.write(`${text}\n`);
}
