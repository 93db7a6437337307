/** `tributary invite`: asks the running coordinator for another invite. */
import { Command } from 'commander';
import { wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { formatMoment } from '../terminal/numbers.ts';

const MINUTE_MS = 60_000;

interface Flags {
  readonly uses: number;
  readonly expiresMinutes: number;
  readonly json?: boolean;
}

export function inviteCommand(context: CliContext): Command {
  return new Command('invite')
    .description('ask a running coordinator for another invite')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .option('--uses <number>', 'sites that it lets in', wholeNumber(1, 4096), 1)
    .option('--expires-minutes <number>', 'how long it is good for', wholeNumber(1, 525_600), 1440)
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const { uses, expiresMinutes, json } = command.optsWithGlobals<Flags>();
      const { openRun } = await import('../runs.ts');
      const { askCoordinator } = await import('../admin.ts');
      const run = openRun(context.cwd, argument);
      const expiresMs = expiresMinutes * MINUTE_MS;
      const { invite } = await askCoordinator(run, { type: 'invite', uses, expiresMs }, 'invited');
      const expiresAt = Date.now() + expiresMs;
      if (json) return printJson(context, { type: 'invite', invite, uses, expiresAt });
      print(
        context,
        `\n  Paste this at a site (it works ${uses === 1 ? 'once' : `${uses} times`}, until ${formatMoment(expiresAt)}):\n`,
      );
      print(context, `  ${context.colours.bold(`tributary join '${invite}' --data ./images`)}\n`);
    });
}
