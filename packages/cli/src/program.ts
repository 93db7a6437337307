/** All commands, and how any of them ends: an exit code, and one calm block when it went wrong. */
import { Command, CommanderError } from 'commander';
import { auditCommand } from './commands/audit.ts';
import { coordinatorCommand } from './commands/coordinator.ts';
import { demoCommand } from './commands/demo.ts';
import { doctorCommand } from './commands/doctor.ts';
import { evaluateCommand } from './commands/evaluate.ts';
import { exportCommand } from './commands/export.ts';
import { initCommand } from './commands/init.ts';
import { inviteCommand } from './commands/invite.ts';
import { joinCommand } from './commands/join.ts';
import { membersCommand } from './commands/members.ts';
import { natsConfigCommand } from './commands/nats-config.ts';
import { policyCommand } from './commands/policy.ts';
import { predictCommand } from './commands/predict.ts';
import { privacyCommand } from './commands/privacy.ts';
import { revokeCommand } from './commands/revoke.ts';
import { rotateCommand } from './commands/rotate.ts';
import { statusCommand } from './commands/status.ts';
import { verifyCommand } from './commands/verify.ts';
import { type CliContext, coloursFor, printJson } from './context.ts';
import { CliError } from './errors.ts';
import { EXIT_CODES, exitCodeOf } from './exit-codes.ts';
import { errorBlock, errorRecord } from './terminal/error-block.ts';
import { VERSION } from './version.ts';

/** Runs one command line (without `node` and the script) and resolves with the exit code. Never rejects. */
export async function runCli(argv: readonly string[], context: CliContext): Promise<number> {
  let exit = 0;
  const program = createProgram(context, (code) => {
    exit = code;
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exit;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    return report(context, argv, usageError(error));
  }
}

/** The program, with every command; `setExit` is for a command that says its result by the exit code. */
export function createProgram(context: CliContext, setExit: (code: number) => void): Command {
  const program = new Command('tributary')
    .description('Federated training: many private streams, one open model.')
    .version(VERSION, '--version', 'print the version')
    .helpOption('-h, --help', 'show this')
    .helpCommand('help [command]', 'show the help of a command')
    .option('--json', 'one JSON object a line on stdout, for scripts')
    .option('--verbose', 'show where an error comes from')
    .option('--no-color', 'no colours (NO_COLOR does the same)')
    .addHelpText('after', exitHelp);
  for (const command of [
    initCommand(context),
    coordinatorCommand(context),
    joinCommand(context),
    policyCommand(context, setExit),
    inviteCommand(context),
    statusCommand(context),
    membersCommand(context),
    revokeCommand(context),
    rotateCommand(context),
    evaluateCommand(context),
    predictCommand(context),
    exportCommand(context),
    verifyCommand(context, setExit),
    privacyCommand(context),
    auditCommand(context, setExit),
    natsConfigCommand(context),
    doctorCommand(context, setExit),
    demoCommand(context),
  ]) {
    program.addCommand(command);
  }
  for (const command of [program, ...program.commands.flatMap((one) => [one, ...one.commands])]) {
    command
      .exitOverride()
      .showSuggestionAfterError()
      .configureOutput({
        writeOut: (text) => context.stdout.write(text),
        // Mistakes are shown in our own block.
        writeErr: () => {},
        getOutHelpWidth: () => Math.min(context.stdout.columns ?? 100, 100),
      });
  }
  return program;
}

function report(context: CliContext, argv: readonly string[], error: unknown): number {
  if (argv.includes('--json')) printJson(context, errorRecord(error));
  else {
    const colours = coloursFor(context.stderr, argv.includes('--no-color') ? { NO_COLOR: '1' } : context.env);
    const width = context.stderr.columns;
    const block = errorBlock(error, {
      colours,
      verbose: argv.includes('--verbose'),
      ...(width === undefined ? {} : { width }),
    });
    context.stderr.write(`\n${block}\n`);
  }
  return exitCodeOf(error);
}

/** What commander found wrong, as an error of ours. */
function usageError(error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error;
  const [first = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const sentence = first.charAt(0).toUpperCase() + first.slice(1);
  const hint = rest.join(' ').replace(/^\((.*)\)$/, '$1');
  return new CliError('FED_CLI_USAGE', /[.?!]$/.test(sentence) ? sentence : `${sentence}.`, {
    todo: hint || '`tributary --help` lists the commands, `tributary COMMAND --help` its flags.',
  });
}

function exitHelp(): string {
  const rows = EXIT_CODES.map(({ code, name }) => `${code} ${name}`);
  return `\nExit codes: ${rows.join(', ')}.\n`;
}
