/** `tributary rotate`: another key for a site, or another certificate for a run's coordinator, while the run goes on. */
import { resolve } from 'node:path';
import { errorCode, fingerprintOf, keyFingerprint } from '@tributary/shared-protocol';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import type { Run } from '../runs.ts';

export function rotateCommand(context: CliContext): Command {
  return new Command('rotate')
    .description('change a site’s key, or a coordinator’s certificate, while the run goes on')
    .addCommand(keyCommand(context))
    .addCommand(certificateCommand(context));
}

interface KeyFlags {
  readonly stateDir?: string;
  readonly name?: string;
  readonly natsCredentials?: string;
  readonly natsCa?: string;
  readonly json?: boolean;
}

function keyCommand(context: CliContext): Command {
  return new Command('key')
    .description('give this site another key; its worker must not be running')
    .option('--state-dir <dir>', 'where this site’s key is kept')
    .option('--name <name>', 'this site’s name in the run, where several were joined from here')
    .option('--nats-credentials <file>', 'over NATS: this site’s key, as `tributary nats-config` wrote it')
    .option('--nats-ca <file>', 'over NATS: the authority of the server’s certificate')
    .action(async (_options: unknown, command: Command) => {
      const { stateDir, name, natsCredentials, natsCa, json } = command.optsWithGlobals<KeyFlags>();
      const { rotateKey } = await import('@tributary/worker');
      const { dialingTransport } = await import('../transports.ts');
      const rotated = await rotateKey({
        transport: dialingTransport({
          ...(natsCredentials === undefined ? {} : { credentials: resolve(context.cwd, natsCredentials) }),
          ...(natsCa === undefined ? {} : { ca: resolve(context.cwd, natsCa) }),
        }),
        signal: context.signal,
        ...(name === undefined ? {} : { name }),
        ...(stateDir === undefined ? {} : { stateDir: resolve(context.cwd, stateDir) }),
      });
      const fingerprint = keyFingerprint(rotated.publicKey);
      if (json) return printJson(context, { type: 'rotated', what: 'key', fingerprint, ...rotated });
      const { bold, green, dim } = context.colours;
      print(context, `\n  ${green('✓')} ${bold(rotated.name)} has another key in ${rotated.runId}`);
      print(context, `    ${fingerprint}  ${dim(rotated.path)}`);
      print(context, '    `tributary join` goes on with it; the former one is worth nothing any more.\n');
    });
}

function certificateCommand(context: CliContext): Command {
  return new Command('certificate')
    .description('give a run’s coordinator another certificate; the sites learn of it by the run’s key')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const { openRun } = await import('../runs.ts');
      const run = openRun(context.cwd, argument);
      const { fingerprint, running } = await rotateCertificate(run);
      if (command.optsWithGlobals()['json'])
        return printJson(context, {
          type: 'rotated',
          what: 'certificate',
          runDir: run.dir,
          fingerprint,
          running,
        });
      const { bold, green } = context.colours;
      print(context, `\n  ${green('✓')} ${bold('another certificate')}  ${fingerprint}`);
      print(
        context,
        running
          ? '    It is shown from now on. Links that are up stay; whoever dials again learns of it by the run’s key.\n'
          : '    No coordinator was running: it is shown when the run goes on.\n',
      );
    });
}

async function rotateCertificate(run: Run): Promise<{ fingerprint: string; running: boolean }> {
  const { askCoordinator } = await import('../admin.ts');
  try {
    const { fingerprint } = await askCoordinator(run, { type: 'rotate' }, 'rotated');
    return { fingerprint, running: true };
  } catch (error) {
    if (errorCode(error) !== 'FED_CLI_NOT_RUNNING') throw error;
  }
  const { server } = run.federation;
  if (server.nats !== undefined || !server.tls) {
    const { CoordinatorError } = await import('@tributary/coordinator');
    throw new CoordinatorError(
      'FED_RUN_CERTIFICATE',
      `${run.dir} has no certificate of its own: over NATS it is the server’s, and without TLS there is none`,
    );
  }
  const { certificateHosts, renewTlsIdentity } = await import('../identity.ts');
  const { cert } = await renewTlsIdentity(run.dir, certificateHosts(server.host));
  return { fingerprint: fingerprintOf(cert), running: false };
}
