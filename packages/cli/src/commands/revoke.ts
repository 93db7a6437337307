/** `tributary revoke`: expels a site, through the running coordinator, or in the log of a run that nobody has open. */
import { errorCode } from '@tributary/shared-protocol';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';

interface Flags {
  readonly reason: string;
  readonly json?: boolean;
}

export function revokeCommand(context: CliContext): Command {
  return new Command('revoke')
    .description('expel a site from a run, at once and for good')
    .argument('<site>', 'its name, as `tributary members` shows it')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .option('--reason <text>', 'told to the site, and kept in the log', 'no reason was given')
    .action(async (site: string, argument: string | undefined, _options: unknown, command: Command) => {
      const { reason, json } = command.optsWithGlobals<Flags>();
      const { openRun } = await import('../runs.ts');
      const { askCoordinator } = await import('../admin.ts');
      const run = openRun(context.cwd, argument);
      let running = true;
      try {
        await askCoordinator(run, { type: 'revoke', name: site, reason }, 'ok');
      } catch (error) {
        if (errorCode(error) !== 'FED_CLI_NOT_RUNNING') throw error;
        running = false;
        const { revokeOffline } = await import('@tributary/coordinator');
        await revokeOffline(run.dir, { name: site, reason });
      }
      if (json) return printJson(context, { type: 'revoked', runDir: run.dir, name: site, reason, running });
      const { bold, green } = context.colours;
      print(context, `\n  ${green('✓')} ${bold(site)} is expelled`);
      print(
        context,
        running
          ? '    Its link is closed, and what it sent for the open round does not count.'
          : '    No coordinator was running: it is in the log, and holds when the run goes on.',
      );
      print(context, '    Its key, its name and the invite that it came with let nobody in any more.\n');
    });
}
