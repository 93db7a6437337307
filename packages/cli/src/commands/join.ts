/** `tributary join`: a site takes part with its own images until the run ends. */
import { resolve } from 'node:path';
import type { WorkerEvent, WorkerEventType } from '@tributary/worker';
import { Command } from 'commander';
import { ENGINE_CHOICES, existingFolder, inviteIn, natsServer, oneOf, wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';

const COUNTING: ReadonlySet<WorkerEventType> = new Set(['fetching', 'training', 'evaluating', 'sending']);

interface Flags {
  readonly data: string;
  readonly name?: string;
  readonly engine: (typeof ENGINE_CHOICES)[number];
  readonly threads?: number;
  readonly imageThreads?: number;
  readonly imageCache?: number;
  readonly stateDir?: string;
  readonly policy?: string;
  readonly nats?: string;
  readonly natsCredentials?: string;
  readonly natsCa?: string;
  readonly pulse?: string;
  readonly json?: boolean;
}

export function joinCommand(context: CliContext): Command {
  return new Command('join')
    .description('take part with the images of this site')
    .argument('[invite]', 'what the coordinator printed, or a file with it; not needed to come back to a run')
    .requiredOption('--data <dir>', 'the images: train/<class>/* and test/<class>/*, or <class>/*')
    .option('--name <name>', 'this site’s name in the run (default: the host’s name)')
    .option('--engine <name>', `one of ${ENGINE_CHOICES.join(', ')}`, oneOf(ENGINE_CHOICES), 'auto')
    .option('--threads <number>', 'threads of the engine, where it has any', wholeNumber(1, 256))
    .option(
      '--image-threads <number>',
      'threads that decode and augment images; 0: the engine’s does',
      wholeNumber(0, 64),
    )
    .option('--image-cache <MiB>', 'memory for decoded images', wholeNumber(0, 1_048_576))
    .option('--state-dir <dir>', 'where this site’s key and finished work are kept')
    .option('--policy <file>', 'this site’s policy (default: site-policy.yaml in the data folder)')
    .option('--nats <url>', 'over NATS: dial this server instead, a leaf node: tls://host:4222', natsServer)
    .option('--nats-credentials <file>', 'over NATS: this site’s key, as `tributary nats-config` wrote it')
    .option(
      '--nats-ca <file>',
      'over NATS: the authority of the server’s certificate, when no invite pins it',
    )
    .option('--pulse <file>', 'a file that is dated anew whenever the coordinator is heard')
    .action(async (invite: string | undefined, _options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const dataDir = existingFolder(context.cwd, flags.data, '--data');
      const summary = await takePart(context, inviteIn(context.cwd, invite), dataDir, flags);
      if (context.signal.aborted) {
        throw new CliError('FED_CLI_INTERRUPTED', 'This site has left the run.', {
          todo: 'The same command, with or without the invite, comes back.',
        });
      }
      if (summary.code === 'failed')
        throw new CliError(
          'FED_CLI_RUN_FAILED',
          `The run ended without reaching its goal: ${summary.reason}.`,
        );
      if (flags.json) return printJson(context, { type: 'summary', ...summary });
      print(context, `  ${summary.updatesAccepted} updates accepted, ${summary.updatesRefused} refused\n`);
    });
}

async function takePart(context: CliContext, invite: string | undefined, dataDir: string, flags: Flags) {
  const { joinFederation, startTrainer } = await import('@tributary/worker');
  const { dialingTransport } = await import('../transports.ts');
  const { createSiteView } = await import('../terminal/site-view.ts');
  const { openSession } = await import('../terminal/session.ts');
  const { openPulse, withPulse } = await import('../pulse.ts');
  const { name, engine, threads, imageThreads, imageCache, stateDir, natsCredentials, natsCa } = flags;
  const { policy, nats, json = false } = flags;
  const pulse = flags.pulse === undefined ? undefined : openPulse(resolve(context.cwd, flags.pulse));
  const dialing = dialingTransport({
    ...(nats === undefined ? {} : { server: nats }),
    ...(natsCredentials === undefined ? {} : { credentials: resolve(context.cwd, natsCredentials) }),
    ...(natsCa === undefined ? {} : { ca: resolve(context.cwd, natsCa) }),
  });
  const isDue = oncePerSecond();
  const view = createSiteView({ colours: context.colours, print: (text) => session.print(text) });
  const session = openSession(context, (now) => (json ? [] : view.live(now)));
  if (!json) session.print(`\n  ${context.colours.bold('Tributary')}  before joining:\n`);
  try {
    return await joinFederation({
      dataDir,
      engine,
      transport: pulse === undefined ? dialing : withPulse(dialing, pulse),
      startTrainer,
      signal: context.signal,
      onEvent: (event) => {
        if (event.type === 'resting') pulse?.excuse(event.until);
        if (!json) view.on(event);
        else if (isDue(event)) printJson(context, event);
      },
      ...(invite === undefined ? {} : { invite }),
      ...(name === undefined ? {} : { name }),
      ...(threads === undefined ? {} : { threads }),
      ...(imageThreads === undefined ? {} : { imageThreads }),
      ...(imageCache === undefined ? {} : { maxCacheBytes: imageCache * 2 ** 20 }),
      ...(stateDir === undefined ? {} : { stateDir: resolve(context.cwd, stateDir) }),
      ...(policy === undefined ? {} : { policyFile: resolve(context.cwd, policy) }),
    });
  } finally {
    session.end();
  }
}

/** For JSON: every event, but of those that only count upwards one a second. */
function oncePerSecond(): (event: WorkerEvent) => boolean {
  let last = 0;
  return ({ type, at }) => {
    if (!COUNTING.has(type)) return true;
    if (at - last < 1000) return false;
    last = at;
    return true;
  };
}
