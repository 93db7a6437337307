/** `tributary init`: a commented configuration to start from. It never overwrites. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { writeNewFile } from '../new-file.ts';
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
      writeNewFile(path, CONFIG_TEMPLATE, 'tributary init other.config.ts');
      if (command.optsWithGlobals()['json']) return printJson(context, { type: 'written', file: path });
      const { bold, green } = context.colours;
      print(context, `${green('✓')} Wrote ${path}`);
      print(context, `  Set its classes, then start it: ${bold('tributary coordinator')}`);
    });
}
