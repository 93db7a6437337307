/** `tributary nats-config`: writes the configuration, certificates and keys of NATS servers for a federation. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { reachableHost } from '../identity.ts';
import type { NatsConfig, NatsLeafNode, NatsServerPlace } from '../nats-config.ts';
import { MAX_NATS_PORT, type NatsPeer } from '../nats-server-config.ts';

interface Flags {
  readonly out: string;
  readonly sites: readonly string[];
  readonly host?: string;
  readonly port: number;
  readonly prefix: string;
  readonly cluster?: readonly Named[];
  readonly leaf?: readonly Named[];
  readonly json?: boolean;
}

/** `name=host` or `name=host:port`. */
interface Named {
  readonly name: string;
  readonly host: string;
  readonly port: number | undefined;
}

const MAX_SERVERS = 16;

export function natsConfigCommand(context: CliContext): Command {
  return new Command('nats-config')
    .description('write the configuration, certificates and keys of NATS servers for a federation')
    .requiredOption('--sites <names>', 'the sites, by name, with commas in between', siteList)
    .option('--out <dir>', 'a new folder', 'nats')
    .option('--host <name>', 'what sites dial (default: this machine’s address)')
    .option('--port <number>', 'the port to listen on', wholeNumber(1, MAX_NATS_PORT), 4222)
    .option(
      '--prefix <word>',
      'begins all subjects: one for each federation on a server',
      prefix,
      'tributary',
    )
    .option(
      '--cluster <servers>',
      'several servers in place of one: NAME=HOST[:PORT],…, where HOST is what nodes dial',
      namedList,
    )
    .option(
      '--leaf <nodes>',
      'servers inside sites, which dial ours: SITE=HOST[:PORT],…; SITE+SITE=HOST for several behind one',
      namedList,
    )
    .action(async (_options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { natsConfig } = await import('../nats-config.ts');
      const dir = resolve(context.cwd, flags.out);
      if (existsSync(dir) && readdirSync(dir).length > 0) {
        throw new CliError('FED_CLI_FILE_EXISTS', `${dir} has files in it already.`, {
          where: '--out',
          todo: 'Name a new folder: keys that are in use must not be written over.',
        });
      }
      const config = await natsConfig({
        prefix: flags.prefix,
        sites: flags.sites,
        servers: serversOf(flags),
        leafNodes: leafNodesOf(flags),
      });
      for (const { path, text, secret } of config.files) {
        mkdirSync(dirname(join(dir, path)), { recursive: true, mode: 0o700 });
        writeFileSync(join(dir, path), text, { mode: secret ? 0o600 : 0o644, flag: 'wx' });
      }
      if (flags.json) {
        const { url, authority, servers, leafNodes } = config;
        return printJson(context, {
          type: 'nats-config',
          dir,
          url,
          authority,
          servers,
          leafNodes: leafNodes.map((leaf) => ({ sites: leaf.sites, dir: leaf.dir, url: leaf.url })),
          files: config.files.map(({ path }) => path),
        });
      }
      await tell(context, flags, dir, config);
    });
}

/** Who needs what, and what to type there. */
async function tell(context: CliContext, flags: Flags, dir: string, config: NatsConfig): Promise<void> {
  const { COORDINATOR_KEY, SERVER_CONFIG, siteKey } = await import('../nats-config.ts');
  const shown = relative(context.cwd, dir) || '.';
  const { dim } = context.colours;
  const { servers, leafNodes, url, authority } = config;
  const count = (number: number, one: string) => `${number} ${one}${number === 1 ? '' : 's'}`;
  const [first] = servers;
  print(
    context,
    `\n  Written to ${shown}: ${servers.length === 1 ? 'a server that lets' : `${servers.length} servers that let`} in the coordinator and ${count(flags.sites.length, 'site')}.\n`,
  );
  if (servers.length === 1 && first !== undefined)
    print(context, `  the server       cd ${join(shown, first.dir)} && nats-server -c ${SERVER_CONFIG}`);
  else
    for (const server of servers)
      print(
        context,
        `  server ${server.name}: ${join(shown, server.dir)} goes to ${server.dial.host}; there: nats-server -c ${SERVER_CONFIG}`,
      );
  for (const { sites, dir: folder, dial } of leafNodes)
    print(
      context,
      `  leaf node of ${sites.join(', ')}: ${join(shown, folder)} goes to ${dial.host}; there: nats-server -c ${SERVER_CONFIG}`,
    );
  print(
    context,
    `  the coordinator  tributary coordinator --nats ${url} --nats-credentials ${join(shown, COORDINATOR_KEY)} --nats-ca ${join(shown, authority)}`,
  );
  for (const site of flags.sites) {
    const behind = leafNodes.find(({ sites }) => sites.includes(site));
    print(
      context,
      `  ${site}: give it ${join(shown, siteKey(site))}; it joins with tributary join INVITE --data DIR --nats-credentials FILE${behind === undefined ? '' : ` --nats ${behind.url}`}`,
    );
  }
  print(
    context,
    dim('\n  The keys are secrets: send each by a way of its own, and keep none that is not yours.\n'),
  );
}

function serversOf(flags: Flags): readonly [NatsServerPlace, ...NatsServerPlace[]] {
  const alsoKnownAs = ['localhost', '127.0.0.1'];
  const { cluster } = flags;
  if (cluster === undefined) {
    return [{ name: 'server', dial: { host: flags.host ?? reachableHost(), port: flags.port }, alsoKnownAs }];
  }
  if (flags.host !== undefined)
    throw mistaken('--host', 'names one server, and --cluster several', 'Leave one of the two out.');
  const odd = cluster.find(({ name }) => !/^[A-Za-z0-9_-]{1,64}$/.test(name));
  if (odd !== undefined)
    throw mistaken('--cluster', `can't name a server "${odd.name}"`, 'Letters, digits, - and _ only.');
  if (cluster.length < 2 || cluster.length > MAX_SERVERS)
    throw mistaken(
      '--cluster',
      `has ${cluster.length} servers`,
      `Name 2 to ${MAX_SERVERS}; 3 go on when one is lost.`,
    );
  const [first, ...others] = cluster.map(
    ({ name, ...at }): NatsServerPlace => ({ name, dial: dialOf(at, flags), alsoKnownAs }),
  );
  return [first!, ...others];
}

function leafNodesOf(flags: Flags): NatsLeafNode[] {
  const seen = new Set<string>();
  return (flags.leaf ?? []).map(({ name, ...at }) => {
    // A name may have a plus of its own.
    const sites = flags.sites.includes(name) ? [name] : name.split('+').map((one) => one.trim());
    for (const site of sites) {
      if (!flags.sites.includes(site))
        throw mistaken('--leaf', `names "${site}", which is not among the sites`, 'Name it in --sites too.');
      if (seen.has(site)) throw mistaken('--leaf', `names "${site}" twice`, 'A site dials one leaf node.');
      seen.add(site);
    }
    return { sites, dial: dialOf(at, flags) };
  });
}

function dialOf({ host, port }: Omit<Named, 'name'>, flags: Flags): NatsPeer {
  return { host, port: port ?? flags.port };
}

function mistaken(flag: string, problem: string, todo: string): CliError {
  return new CliError('FED_CLI_USAGE', `${flag} ${problem}.`, { where: flag, todo });
}

function siteList(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  if (names.some((name) => name === '')) throw new InvalidArgumentError('a name is empty');
  refuseTwice(names);
  return names;
}

function namedList(text: string): Named[] {
  const named = text.split(',').map((entry) => {
    const [, name = '', place = ''] = /^(.+)=([^=]+)$/.exec(entry.trim()) ?? [];
    const [, bracketed, plain, port] =
      /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(place.trim()) ?? [];
    const host = bracketed ?? plain;
    if (name.trim() === '' || host === undefined)
      throw new InvalidArgumentError(`"${entry.trim()}" is not NAME=HOST or NAME=HOST:PORT`);
    if (port !== undefined && (Number(port) < 1 || Number(port) > MAX_NATS_PORT))
      throw new InvalidArgumentError(`"${entry.trim()}": a port is from 1 to ${MAX_NATS_PORT}`);
    return { name: name.trim(), host, port: port === undefined ? undefined : Number(port) };
  });
  refuseTwice(named.map(({ name }) => name));
  return named;
}

function refuseTwice(names: readonly string[]): void {
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new InvalidArgumentError(`"${twice}" is there twice`);
}

function prefix(text: string): string {
  if (/^[A-Za-z0-9_-]{1,64}$/.test(text)) return text;
  throw new InvalidArgumentError('one word of letters, digits, - and _');
}
