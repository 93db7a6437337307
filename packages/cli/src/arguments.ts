/** Checks of single arguments, with messages that say the range; commander shows them beside the flag's name. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { CliError } from './errors.ts';

/** A parser for whole numbers from `min` to `max`. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It is a whole number from ${min} to ${max}.`);
  };
}

/** A parser for numbers more than 0 and at most `max`, or less than it. */
export function positiveNumber(
  max: number,
  limit: 'at most' | 'less than' = 'at most',
): (text: string) => number {
  return (text) => {
    const value = Number(text);
    const written = /^\d*\.?\d+(e[+-]?\d+)?$/i.test(text);
    if (written && value > 0 && (value < max || (value === max && limit === 'at most'))) return value;
    throw new InvalidArgumentError(`It is a number more than 0 and ${limit} ${max}.`);
  };
}

/** A parser that takes one of `choices` and nothing else. */
export function oneOf<const T extends string>(choices: readonly T[]): (text: string) => T {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found !== undefined) return found;
    throw new InvalidArgumentError(`It is one of ${choices.join(', ')}.`);
  };
}

/** The absolute path of a folder that is there. Throws FED_CLI_FILE_MISSING. */
export function existingFolder(cwd: string, path: string, where: string): string {
  const absolute = resolve(cwd, path);
  if (!existsSync(absolute)) {
    throw new CliError('FED_CLI_FILE_MISSING', `There is no folder ${absolute}.`, {
      where,
      todo: 'Check the path; a relative one starts at the current folder.',
    });
  }
  if (!statSync(absolute).isDirectory()) {
    throw new CliError('FED_CLI_FILE_MISSING', `${absolute} is a file, and a folder is needed.`, { where });
  }
  return absolute;
}

/** The absolute path of a file that is there. Throws FED_CLI_FILE_MISSING. */
export function existingFile(cwd: string, path: string, where: string): string {
  const absolute = resolve(cwd, path);
  if (!existsSync(absolute) || !statSync(absolute).isFile()) {
    throw new CliError('FED_CLI_FILE_MISSING', `There is no file ${absolute}.`, { where });
  }
  return absolute;
}

/** The text of an invite that was given as itself, or as a file: a secret need not be on a command line. */
export function inviteIn(cwd: string, argument: string | undefined): string | undefined {
  if (argument === undefined) return undefined;
  const path = resolve(cwd, argument);
  return existsSync(path) && statSync(path).isFile() ? readFileSync(path, 'utf8') : argument;
}

/** A parser for the address of a NATS server without a prefix. */
export function natsServer(text: string): string {
  if (/^(tls|nats):\/\/[^/\s]+\/?$/.test(text)) return text;
  throw new InvalidArgumentError('It looks like tls://host:4222; the prefix is the invite’s.');
}

export const ENGINE_CHOICES = ['auto', 'tensorflow', 'webgpu', 'onnxruntime', 'wasm', 'cpu'] as const;
