/** `tributary demo`: a whole federation on this machine, from real digits to a measured model. */
import { Command } from 'commander';
import { ENGINE_CHOICES, oneOf, positiveNumber, wholeNumber } from '../arguments.ts';
import { type CliContext, printJson } from '../context.ts';
import { CliError } from '../errors.ts';

interface Flags {
  readonly rounds: number;
  readonly sites: number;
  readonly seed: number;
  readonly engine: (typeof ENGINE_CHOICES)[number];
  readonly transport: (typeof TRANSPORTS)[number];
  readonly private?: boolean;
  readonly epsilon: number;
  readonly keep?: boolean;
  readonly json?: boolean;
}

export const DEMO_ROUNDS = 12;
/** A usual bound of a strong guarantee for each record. */
const DEMO_EPSILON = 8;
const TRANSPORTS = ['socketio', 'nats'] as const;

export function demoCommand(context: CliContext): Command {
  return new Command('demo')
    .description('train handwritten digits over three sites on this machine')
    .option('--rounds <number>', 'rounds to train', wholeNumber(1, 1000), DEMO_ROUNDS)
    .option('--sites <number>', 'worker processes', wholeNumber(2, 8), 3)
    .option('--seed <number>', 'decides the split and the training', wholeNumber(0, 0xffff_ffff), 1)
    .option(
      '--engine <name>',
      `of the workers: one of ${ENGINE_CHOICES.join(', ')}`,
      oneOf(ENGINE_CHOICES),
      'auto',
    )
    .option(
      '--transport <name>',
      `one of ${TRANSPORTS.join(', ')}; nats starts a nats-server with TLS and a key a site`,
      oneOf(TRANSPORTS),
      'socketio',
    )
    .option(
      '--private',
      'protect each digit by noise (DP-SGD at the sites), each update by secure aggregation',
    )
    .option(
      '--epsilon <number>',
      'with --private: the most that a site may spend, at delta 1e-5',
      positiveNumber(1000),
      DEMO_EPSILON,
    )
    .option('--keep', 'keep the run of the last demo beside the new one')
    .action(async (_options: unknown, command: Command) => {
      const { json = false, keep = false, epsilon, ...flags } = command.optsWithGlobals<Flags>();
      if (flags.private && flags.sites < 3)
        throw new CliError(
          'FED_CLI_USAGE',
          `--private with ${flags.sites} sites: a sum hides nobody among fewer than three.`,
          {
            where: '--sites',
            todo: 'Take three sites or more.',
          },
        );
      const { runDemo } = await import('../demo/run-demo.ts');
      const result = await runDemo(context, {
        ...flags,
        epsilon: flags.private ? epsilon : undefined,
        keep,
        json,
      });
      if (json) printJson(context, { type: 'demo', ...result });
    });
}
