/** `tributary verify`: whether a run's record holds, without its coordinator: the chain, the signatures, the files. */
import { existsSync } from 'node:fs';
import type { Finding, VerifyReport } from '@tributary/coordinator';
import { isPublicKey } from '@tributary/shared-protocol';
import { Command, InvalidArgumentError } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { exitCode } from '../exit-codes.ts';
import { wrap } from '../terminal/text.ts';

interface Flags {
  readonly publicKey?: string;
  readonly json?: boolean;
}

/** Findings that are shown; a damaged disk may make thousands. */
const MAX_SHOWN = 20;

export function verifyCommand(context: CliContext, setExit: (code: number) => void): Command {
  return new Command('verify')
    .description('check a run’s signed log, and its checkpoints against it')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .option('--public-key <key>', 'the run’s log key, as the coordinator printed it', publicKey)
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { findRun } = await import('../runs.ts');
      const { runPaths, verifyRun } = await import('@tributary/coordinator');
      const runDir = findRun(context.cwd, argument);
      if (!existsSync(runPaths(runDir).log)) {
        throw new CliError('FED_CLI_RUN_NOT_FOUND', `${runDir} has no log.jsonl: nothing can be verified.`, {
          todo: 'A run that has begun has one; restore it from a copy.',
        });
      }
      const report = verifyRun(runDir, flags.publicKey === undefined ? {} : { publicKey: flags.publicKey });
      if (!report.ok) setExit(exitCode('unverified'));
      if (flags.json) return printJson(context, { type: 'verify', runDir, ...report });
      printReport(context, runDir, report);
    });
}

/** The key in the spelling that the coordinator prints. */
function publicKey(text: string): string {
  if (isPublicKey(text)) return text;
  throw new InvalidArgumentError('It is the 43 characters that the coordinator prints as "log key".');
}

function printReport(context: CliContext, runDir: string, report: VerifyReport): void {
  const { bold, dim, green, red } = context.colours;
  const { findings, records, rounds, checkpoints, signedUpdates } = report;
  print(context, `\n  run folder  ${runDir}  ${dim(report.runId ?? '')}`);
  if (report.publicKey !== undefined)
    print(
      context,
      `  log key     ${report.publicKey}  ${dim(report.pinned ? 'as given' : 'as the log says')}`,
    );
  print(context);
  if (report.ok) {
    print(
      context,
      `  ${green('✓')} ${bold('it holds')}: ${count(records, 'line')}, ${count(rounds, 'round')}, ${count(signedUpdates, 'update')} signed by their sites, ${count(checkpoints, 'checkpoint')}`,
    );
  } else {
    for (const finding of findings.slice(0, MAX_SHOWN)) printFinding(context, finding);
    if (findings.length > MAX_SHOWN)
      print(context, `  and ${findings.length - MAX_SHOWN} more (--json shows all)`);
    print(
      context,
      `\n  ${red('✗')} ${bold('it does not hold')}; ${count(records, 'line')} before the first broken one ${records === 1 ? 'does' : 'do'}`,
    );
  }
  for (const note of report.notes) {
    for (const [i, line] of wrap(note, 92).entries())
      print(context, `  ${i === 0 ? dim('·') : ' '} ${dim(line)}`);
  }
  print(context);
}

function printFinding(context: CliContext, { file, line, what, meaning }: Finding): void {
  const { dim, red } = context.colours;
  const text = `${file}${line === undefined ? '' : `, line ${line}`} ${what}`;
  for (const [i, part] of wrap(text, 92).entries()) print(context, `  ${i === 0 ? red('✗') : ' '} ${part}`);
  for (const part of wrap(meaning, 92)) print(context, `    ${dim(part)}`);
}

function count(n: number, what: string): string {
  return `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;
}
