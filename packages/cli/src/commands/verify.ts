/** `tributary verify`: whether a run's record holds, without its coordinator: the chain, the signatures, the files. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { CopyReport, Finding, VerifyReport } from '@tributary/coordinator';
import { isPublicKey } from '@tributary/shared-protocol';
import { Command, InvalidArgumentError } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { exitCode } from '../exit-codes.ts';
import { wrap } from '../terminal/text.ts';

interface Flags {
  readonly publicKey?: string;
  readonly copy?: string;
  readonly json?: boolean;
}

/** Findings that are shown; a damaged disk may make thousands. */
const MAX_SHOWN = 20;

export function verifyCommand(context: CliContext, setExit: (code: number) => void): Command {
  return new Command('verify')
    .description('check a run’s signed log, and its checkpoints against it')
    .argument('[run]', 'the run directory (default: the newest in runs/); or a site’s state folder')
    .option('--public-key <key>', 'the run’s log key, as the coordinator printed it', publicKey)
    .option('--copy <path>', 'a site’s copy of the log, or its state folder, that the log must agree with')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const site = argument === undefined ? undefined : await siteAt(context.cwd, argument);
      if (site !== undefined) return await verifySite(context, site, flags, setExit);
      const { findRun } = await import('../runs.ts');
      const { runPaths, verifyRun } = await import('@tributary/coordinator');
      const runDir = findRun(context.cwd, argument);
      if (!existsSync(runPaths(runDir).log)) {
        throw new CliError('FED_CLI_RUN_NOT_FOUND', `${runDir} has no log.jsonl: nothing can be verified.`, {
          todo: 'A run that has begun has one; restore it from a copy.',
        });
      }
      const copies = flags.copy === undefined ? [] : [copyAt(context.cwd, flags.copy)];
      const report = verifyRun(runDir, {
        copies,
        ...(flags.publicKey === undefined ? {} : { publicKey: flags.publicKey }),
      });
      if (!report.ok) setExit(exitCode('unverified'));
      if (flags.json) return printJson(context, { type: 'verify', runDir, ...report });
      printReport(context, runDir, report);
    });
}

/** What lies in a site's state folder, when the argument names one. */
async function siteAt(cwd: string, argument: string) {
  const { readSiteFacts } = await import('@tributary/worker');
  return await readSiteFacts(resolve(cwd, argument));
}

/** Checks a site's copy by itself, against the key that the site has pinned. */
async function verifySite(
  context: CliContext,
  { name, recordsFile, publicKey: pinned }: NonNullable<Awaited<ReturnType<typeof siteAt>>>,
  flags: Flags,
  setExit: (code: number) => void,
): Promise<void> {
  const { verifyCopy } = await import('@tributary/coordinator');
  const key = flags.publicKey ?? pinned;
  if (key === undefined || !existsSync(recordsFile)) {
    throw new CliError(
      'FED_CLI_RUN_NOT_FOUND',
      `There is no ${recordsFile}: this site has no copy of the log yet.`,
      {
        todo: 'The coordinator brings it once the site is ready in the run.',
      },
    );
  }
  const report = verifyCopy(readFileSync(recordsFile), { file: 'records.jsonl', name, publicKey: key });
  if (!report.ok) setExit(exitCode('unverified'));
  if (flags.json) return printJson(context, { type: 'verify', copy: recordsFile, site: name, ...report });
  const { bold, dim } = context.colours;
  print(context, `\n  copy        ${recordsFile}  ${dim(report.runId ?? '')}`);
  print(context, `  site        ${bold(name)}`);
  print(
    context,
    `  log key     ${key}  ${dim(flags.publicKey === undefined ? 'as this site has pinned it' : 'as given')}`,
  );
  print(context);
  printFindings(context, report, [
    count(report.records, 'line'),
    count(report.rounds, 'round'),
    `${count(report.signedUpdates, 'update')} of this site`,
  ]);
}

/** A copy, or that of a state folder. */
function copyAt(cwd: string, path: string): { file: string; bytes: Uint8Array } {
  const given = resolve(cwd, path);
  const file = existsSync(given) && statSync(given).isDirectory() ? join(given, 'records.jsonl') : given;
  if (existsSync(file)) return { file: path, bytes: readFileSync(file) };
  throw new CliError('FED_CLI_FILE_MISSING', `There is no file ${file}.`, {
    where: '--copy',
    todo: 'A site keeps its copy as records.jsonl in its state folder.',
  });
}

/** The key in the spelling that the coordinator prints. */
function publicKey(text: string): string {
  if (isPublicKey(text)) return text;
  throw new InvalidArgumentError('It is the 43 characters that the coordinator prints as "log key".');
}

function printReport(context: CliContext, runDir: string, report: VerifyReport): void {
  const { dim } = context.colours;
  const { records, rounds, checkpoints, signedUpdates } = report;
  print(context, `\n  run folder  ${runDir}  ${dim(report.runId ?? '')}`);
  if (report.publicKey !== undefined)
    print(
      context,
      `  log key     ${report.publicKey}  ${dim(report.pinned ? 'as given' : 'as the log says')}`,
    );
  print(context);
  printFindings(context, report, [
    count(records, 'line'),
    count(rounds, 'round'),
    `${count(signedUpdates, 'update')} signed by their sites`,
    count(checkpoints, 'checkpoint'),
  ]);
}

/** What was found, or how much holds; then the notes. */
function printFindings(
  context: CliContext,
  { ok, findings, records, notes }: Pick<VerifyReport | CopyReport, 'ok' | 'findings' | 'records' | 'notes'>,
  holds: readonly string[],
): void {
  const { bold, dim, green, red } = context.colours;
  if (ok) {
    print(context, `  ${green('✓')} ${bold('it holds')}: ${holds.join(', ')}`);
  } else {
    for (const finding of findings.slice(0, MAX_SHOWN)) printFinding(context, finding);
    if (findings.length > MAX_SHOWN)
      print(context, `  and ${findings.length - MAX_SHOWN} more (--json shows all)`);
    print(
      context,
      `\n  ${red('✗')} ${bold('it does not hold')}; ${count(records, 'line')} before the first broken one ${records === 1 ? 'does' : 'do'}`,
    );
  }
  for (const note of notes) {
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
