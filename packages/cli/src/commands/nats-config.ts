/** `tributary nats-config`: writes a NATS server's configuration, certificate and keys for a federation. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { reachableHost } from '../identity.ts';

interface Flags {
  readonly out: string;
  readonly sites: readonly string[];
  readonly host?: string;
  readonly port: number;
  readonly prefix: string;
  readonly json?: boolean;
}

export function natsConfigCommand(context: CliContext): Command {
  return new Command('nats-config')
    .description('write the configuration, certificate and keys of a NATS server for a federation')
    .requiredOption('--sites <names>', 'the sites, by name, with commas in between', siteList)
    .option('--out <dir>', 'a new folder', 'nats')
    .option('--host <name>', 'what sites dial (default: this machine’s address)')
    .option('--port <number>', 'the port to listen on', wholeNumber(1, 65_535), 4222)
    .option(
      '--prefix <word>',
      'begins all subjects: one for each federation on a server',
      prefix,
      'tributary',
    )
    .action(async (_options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { CERTIFICATE, COORDINATOR_KEY, natsConfigFiles, SERVER_CONFIG, siteKey } = await import(
        '../nats-config.ts'
      );
      const dir = resolve(context.cwd, flags.out);
      if (existsSync(dir) && readdirSync(dir).length > 0) {
        throw new CliError('FED_CLI_FILE_EXISTS', `${dir} has files in it already.`, {
          where: '--out',
          todo: 'Name a new folder: keys that are in use must not be written over.',
        });
      }
      const host = flags.host ?? reachableHost();
      const files = await natsConfigFiles({
        prefix: flags.prefix,
        sites: flags.sites,
        hosts: [...new Set([host, 'localhost', '127.0.0.1'])],
        listen: `0.0.0.0:${flags.port}`,
      });
      for (const { path, text, secret } of files) {
        mkdirSync(dirname(join(dir, path)), { recursive: true, mode: 0o700 });
        writeFileSync(join(dir, path), text, { mode: secret ? 0o600 : 0o644, flag: 'wx' });
      }
      const url = `tls://${host}:${flags.port}/${flags.prefix}`;
      if (flags.json) {
        return printJson(context, { type: 'nats-config', dir, url, files: files.map(({ path }) => path) });
      }
      const shown = relative(context.cwd, dir) || '.';
      const { dim } = context.colours;
      print(
        context,
        `\n  Written to ${shown}: a server that lets in the coordinator and ${flags.sites.length} sites.\n`,
      );
      print(context, `  the server       cd ${shown} && nats-server -c ${SERVER_CONFIG}`);
      print(
        context,
        `  the coordinator  tributary coordinator --nats ${url} --nats-credentials ${join(shown, COORDINATOR_KEY)} --nats-ca ${join(shown, CERTIFICATE)}`,
      );
      for (const site of flags.sites) {
        print(
          context,
          `  ${site}: give it ${join(shown, siteKey(site))}; it joins with tributary join INVITE --data DIR --nats-credentials FILE`,
        );
      }
      print(
        context,
        dim('\n  The keys are secrets: send each by a way of its own, and keep none that is not yours.\n'),
      );
    });
}

function siteList(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  if (names.some((name) => name === '')) throw new InvalidArgumentError('a name is empty');
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new InvalidArgumentError(`"${twice}" is there twice`);
  return names;
}

function prefix(text: string): string {
  if (/^[A-Za-z0-9_-]{1,64}$/.test(text)) return text;
  throw new InvalidArgumentError('one word of letters, digits, - and _');
}
