/** One calm block for an error: what happened, where, what to do, its code. A stack trace only when asked for. */
import { errorCode } from '@tributary/shared-protocol';
import type { Colours } from '../context.ts';
import { wrap } from './text.ts';

export interface ErrorBlockOptions {
  readonly colours: Colours;
  readonly verbose: boolean;
  /** Cells. @default 100 */
  readonly width?: number;
}

/** The lines for `error`, ending without a newline. */
export function errorBlock(error: unknown, options: ErrorBlockOptions): string {
  const { colours, verbose } = options;
  const width = Math.max(40, Math.min(options.width ?? 100, 100)) - 10;
  const lines = wrap(messageOf(error), width + 8).map((line, i) =>
    i === 0 ? `${colours.red('✗')} ${colours.bold(line)}` : `  ${line}`,
  );
  const say = (label: string, text: string | undefined) => {
    if (text === undefined || text === '') return;
    const [first = '', ...rest] = wrap(text, width);
    lines.push(`  ${colours.dim(label.padEnd(6))}  ${first}`, ...rest.map((line) => `          ${line}`));
  };
  say('where', textField(error, 'where'));
  say('to do', textField(error, 'todo'));
  const code = errorCode(error);
  if (code?.startsWith('FED_')) say('code', `${code} (docs/errors.md)`);
  else if (!verbose) say('to do', 'Run it again with --verbose to see where this comes from.');
  if (verbose) {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      lines.push('', colours.dim(cause.stack ?? String(cause)));
    }
  }
  return lines.join('\n');
}

/** The same facts for `--json`. */
export function errorRecord(error: unknown): Record<string, unknown> {
  return {
    type: 'error',
    code: errorCode(error) ?? 'UNEXPECTED',
    message: messageOf(error),
    ...(textField(error, 'where') === undefined ? {} : { where: textField(error, 'where') }),
    ...(textField(error, 'todo') === undefined ? {} : { todo: textField(error, 'todo') }),
  };
}

export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return error.errors.map(messageOf).join('; ');
  return error instanceof Error ? error.message : String(error);
}

function textField(error: unknown, key: 'where' | 'todo'): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const value: unknown = Reflect.get(error, key);
  return typeof value === 'string' ? value : undefined;
}
