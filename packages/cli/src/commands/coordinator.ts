/** `tributary coordinator`: starts a run, or goes on with the one in its run directory. */
import { Command, Option } from 'commander';
import { wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import type { FederationOverrides } from '../federation.ts';

interface Flags {
  readonly runDir?: string;
  readonly host?: string;
  readonly port?: number;
  readonly rounds?: number;
  readonly inviteUses?: number;
  readonly nats?: string;
  readonly natsCredentials?: string;
  readonly natsCa?: string;
  readonly store: 'files' | 'jetstream';
  readonly printConfig?: boolean;
  readonly json?: boolean;
}

const OVERRIDES = [
  'runDir',
  'host',
  'port',
  'rounds',
  'inviteUses',
  'nats',
  'natsCredentials',
  'natsCa',
] as const satisfies readonly (keyof FederationOverrides)[];

export function coordinatorCommand(context: CliContext): Command {
  return new Command('coordinator')
    .description('start a run, or go on with the one in its run directory')
    .argument('[config]', 'the configuration (default: tributary.config.ts, .yaml or .json here)')
    .option('--run-dir <dir>', 'where the run is kept (default: runs/NAME beside the configuration)')
    .option('--host <address>', 'the address to listen on')
    .option('--port <number>', 'the port to listen on; 0 takes a free one', wholeNumber(0, 65_535))
    .option(
      '--rounds <number>',
      'rounds to train, in place of the configuration’s',
      wholeNumber(1, 1_000_000),
    )
    .option('--invite-uses <number>', 'sites that one invite lets in', wholeNumber(1, 4096))
    .option('--nats <url>', 'listen at a NATS server: tls://host:4222/prefix')
    .option('--nats-credentials <file>', 'the coordinator’s key for that server')
    .option('--nats-ca <file>', 'the authority of that server’s certificate')
    .addOption(
      new Option(
        '--store <where>',
        'jetstream: keep the run in the NATS server too, and take over from, or stand by for, another coordinator',
      )
        .choices(['files', 'jetstream'])
        .default('files'),
    )
    .option('--print-config', 'print the resolved configuration as JSON and stop')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { findConfig, prepareFederation } = await import('../federation.ts');
      const overrides: FederationOverrides = Object.fromEntries(
        OVERRIDES.flatMap((key) => (flags[key] === undefined ? [] : [[key, flags[key]]])),
      );
      const prepared = await prepareFederation(findConfig(context.cwd, argument), context.cwd, overrides);
      if (flags.printConfig) {
        context.stdout.write(`${JSON.stringify(prepared.federation, undefined, 2)}\n`);
        return;
      }
      const { playRun } = await import('../play-run.ts');
      const summary = await playRun(context, prepared, { json: flags.json ?? false, store: flags.store });
      if (flags.json) return printJson(context, { type: 'summary', runDir: prepared.runDir, ...summary });
      const { dim } = context.colours;
      print(context, `\n  run folder  ${prepared.runDir}`);
      print(context, `  best model  round ${summary.bestRound}  ${dim(summary.bestCheckpoint)}`);
      print(context, `  export it   tributary export ${prepared.runDir} --out ./model\n`);
    });
}
