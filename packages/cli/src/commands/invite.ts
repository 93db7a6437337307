/** `tributary invite`: asks the running coordinator for another invite. */
import { chmodSync, renameSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { formatMoment } from '../terminal/numbers.ts';

const MINUTE_MS = 60_000;

interface Flags {
  readonly uses: number;
  readonly expiresMinutes: number;
  readonly out?: string;
  readonly json?: boolean;
}

export function inviteCommand(context: CliContext): Command {
  return new Command('invite')
    .description('ask a running coordinator for another invite')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .option('--uses <number>', 'sites that it lets in', wholeNumber(1, 4096), 1)
    .option('--expires-minutes <number>', 'how long it is good for', wholeNumber(1, 525_600), 1440)
    .option('--out <file>', 'write it to a file, readable by you only, and do not print it')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const { uses, expiresMinutes, out, json } = command.optsWithGlobals<Flags>();
      const { openRun } = await import('../runs.ts');
      const { askCoordinator } = await import('../admin.ts');
      const run = openRun(context.cwd, argument);
      const expiresMs = expiresMinutes * MINUTE_MS;
      const { invite } = await askCoordinator(run, { type: 'invite', uses, expiresMs }, 'invited');
      const expiresAt = Date.now() + expiresMs;
      if (out !== undefined) {
        const path = resolve(context.cwd, out);
        writeSecret(path, `${invite}\n`);
        if (json) return printJson(context, { type: 'invite', file: path, uses, expiresAt });
        return print(context, `\n  Written to ${path}: tributary join ${out} --data ./images\n`);
      }
      if (json) return printJson(context, { type: 'invite', invite, uses, expiresAt });
      print(
        context,
        `\n  Paste this at a site (it works ${uses === 1 ? 'once' : `${uses} times`}, until ${formatMoment(expiresAt)}):\n`,
      );
      print(context, `  ${context.colours.bold(`tributary join '${invite}' --data ./images`)}\n`);
    });
}

/** There whole or not at all, because a worker may be waiting for it. An invite that it replaces stays good. */
function writeSecret(path: string, text: string): void {
  const draft = `${path}.tmp`;
  writeFileSync(draft, text, { mode: 0o600 });
  chmodSync(draft, 0o600);
  renameSync(draft, path);
}
