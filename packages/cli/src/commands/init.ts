/** `tributary init`: a commented configuration to start from. It never overwrites. */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { CONFIG_TEMPLATE } from './init-template.ts';

export function initCommand(context: CliContext): Command {
  return new Command('init')
    .description('write a commented configuration to start from')
    .argument('[file]', 'where to write it', 'tributary.config.ts')
    .action((file: string, _options: unknown, command: Command) => {
      const path = resolve(context.cwd, file);
      if (!/\.m?ts$/.test(path)) {
        throw new CliError(
          'FED_CLI_USAGE',
          `The configuration is written as TypeScript, so ${file} can't be its name.`,
          {
            where: 'file',
            todo: 'Give a name that ends in .ts, such as tributary.config.ts.',
          },
        );
      }
      try {
        writeFileSync(path, CONFIG_TEMPLATE, { flag: 'wx' });
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        if (code === 'EEXIST') {
          throw new CliError('FED_CLI_FILE_EXISTS', `${path} is there already; it was left as it is.`, {
            todo: 'Give another name: tributary init other.config.ts',
            cause: error,
          });
        }
        if (code === 'ENOENT') {
          throw new CliError('FED_CLI_FILE_MISSING', `${path} can't be written: its folder is not there.`, {
            cause: error,
          });
        }
        throw error;
      }
      if (command.optsWithGlobals()['json']) return printJson(context, { type: 'written', file: path });
      const { bold, green } = context.colours;
      print(context, `${green('✓')} Wrote ${path}`);
      print(context, `  Set its classes, then start it: ${bold('tributary coordinator')}`);
    });
}
