/**
 * A cluster of three servers and a leaf node, as `nats-config` writes them, with real processes: a federation of two
 * sites, one of them behind the leaf node, goes on when a server is killed; and each node keeps to its own subjects
 * wherever it comes in.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectNats, nkeyAuthenticator } from '@nats-io/transport-node';
import { fingerprintOf, type Link } from '@tributary/shared-protocol';
import { createNatsTransport } from '@tributary/shared-protocol/nats';
import { withCode } from '@tributary/testkit';
import { natsServerMissing } from '@tributary/testkit/nats-server';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dialingTransport } from '../src/transports.ts';
import {
  freePorts,
  nodeIn,
  plainTls,
  type RunningServer,
  serversOf,
  startServerIn,
  until,
} from './nats-servers.ts';
import { run } from './support.ts';
import { openHousehold, writeTwoSites, writeTwoSitesConfig } from './two-sites.ts';

const missing = natsServerMissing();
const dir = mkdtempSync(join(tmpdir(), 'tributary-nats-cluster-'));
const nats = join(dir, 'nats');
const NAMES = ['a', 'b', 'c'] as const;

describe.skipIf(missing !== undefined)('nats-config --cluster --leaf', () => {
  const servers = new Map<string, RunningServer>();
  const ports: Record<string, number> = {};
  const household = openHousehold(dir);
  let written: Record<string, unknown> = {};
  const key = (name: string) => readFileSync(join(nats, name), 'utf8');
  const as = (name: string) => createNatsTransport({ credentials: { nkeySeed: key(name) } });
  const fingerprint = () => fingerprintOf(readFileSync(join(nats, 'ca.pem'), 'utf8'));
  const at = (name: string) => `tls://127.0.0.1:${ports[name]}/ward`;
  const start = async (name: string, folder: string) =>
    servers.set(name, await startServerIn(join(nats, folder), ports[name]!));

  beforeAll(async () => {
    const free = await freePorts(5);
    for (const [index, name] of [...NAMES, 'leaf', 'spy'].entries()) ports[name] = free[index]!;
    const cluster = NAMES.map((name) => `${name}=127.0.0.1:${ports[name]}`).join(',');
    const { code, out, err } = await run(
      dir,
      ...['nats-config', '--sites', 'east,west', '--prefix', 'ward', '--json'],
      ...['--cluster', cluster, '--leaf', `east=127.0.0.1:${ports['leaf']}`],
    );
    expect(code, err).toBe(0);
    written = JSON.parse(out) as Record<string, unknown>;
    for (const name of NAMES) await start(name, `servers/${name}`);
    for (const name of NAMES)
      await until(async () => Number((await servers.get(name)!.ask('routez'))['num_routes']) >= 2);
    await start('leaf', 'leaf-nodes/east');
    await until(async () => Number((await servers.get('leaf')!.ask('leafz'))['leafnodes']) === 1);
  });
  afterAll(async () => {
    await household.end();
    for (const server of servers.values()) await server.kill();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  });

  test('what is secret is readable by its owner only, and no server has another’s key', () => {
    const files = written['files'] as string[];
    const readable = files.filter((path) => (statSync(join(nats, path)).mode & 0o077) !== 0);
    expect(readable.every((path) => /(ca|server-cert)\.pem$/.test(path))).toBe(true);
    const keys = files.filter((path) => path.endsWith('server-key.pem')).map((path) => key(path));
    expect(new Set(keys).size).toBe(4);
    expect(written['url']).toBe(`tls://${NAMES.map((name) => `127.0.0.1:${ports[name]}`).join(',')}/ward`);
    expect(written['authority']).toBe('ca.pem');
  });

  describe('permissions', () => {
    const closing: (() => Promise<unknown>)[] = [];
    const links: Link[] = [];
    beforeAll(async () => {
      const listener = await createNatsTransport({
        url: at('a'),
        credentials: { nkeySeed: key('coordinator.nk') },
        ca: readFileSync(join(nats, 'ca.pem'), 'utf8'),
      }).listen((link) => {
        links.push(link);
        link.onRequest(async (packet) => packet);
      });
      closing.push(() => listener.close());
    });
    afterAll(async () => {
      for (const close of closing.splice(0).reverse()) await close();
    });
    const echo = async (link: Link) => [...(await link.request({ head: Uint8Array.of(7) })).head];

    test('a site gets a link through another server, and through the leaf node of its own', async () => {
      for (const [site, server] of [
        ['west', 'b'],
        ['east', 'leaf'],
        ['east', 'c'],
      ] as const) {
        const link = await as(`sites/${site}.nk`).connect(at(server), { fingerprint: fingerprint() });
        expect(await echo(link), `${site} by ${server}`).toEqual([7]);
        await link.close();
      }
    });

    test('a leaf node lets in nobody but its sites', async () => {
      await expect(
        as('sites/west.nk').connect(at('leaf'), { fingerprint: fingerprint() }),
      ).rejects.toMatchObject(withCode('FED_TRANSPORT_FORBIDDEN'));
    });

    test('a site can’t speak as another at any server', async () => {
      const hostile = await connectNats({
        servers: `127.0.0.1:${ports['b']}`,
        tls: plainTls(join(nats, 'ca.pem')),
        authenticator: nkeyAuthenticator(new TextEncoder().encode(key('sites/west.nk').trim())),
      });
      closing.push(() => hostile.close());
      const east = nodeIn(key('servers/b/nats-server.conf'), 'east');
      const errors = hostile.status()[Symbol.asyncIterator]();
      hostile.publish(`ward.up.${east}.${'0'.repeat(24)}`, Uint8Array.of(0));
      for (;;) {
        const { value } = await errors.next();
        if (value?.type !== 'error') continue;
        expect(value.error.message).toMatch(/permissions violation/i);
        break;
      }
    });

    test('a leaf node that lets everything through hears and says no more than its sites may', async () => {
      // The site's own operator changes what the leaf node permits; the cluster's servers do not care.
      cpSync(join(nats, 'leaf-nodes/east'), join(nats, 'leaf-nodes/spy'), { recursive: true });
      const path = join(nats, 'leaf-nodes/spy/nats-server.conf');
      const lead = nodeIn(key('servers/a/nats-server.conf'), 'the coordinator');
      const west = nodeIn(key('servers/a/nats-server.conf'), 'west');
      const text = readFileSync(path, 'utf8')
        .replaceAll(`:${ports['leaf']}"`, `:${ports['spy']}"`)
        .replaceAll(`:${ports['leaf']! + 4000}"`, `:${ports['spy']! + 4000}"`)
        .replace('server_name: "ward-leaf-1"', 'server_name: "spy"')
        .replace(/users: \[/, `users: [ { nkey: ${lead} }, { nkey: ${west} }`);
      writeFileSync(path, text);
      await start('spy', 'leaf-nodes/spy');
      await until(async () => Number((await servers.get('spy')!.ask('leafz'))['leafnodes']) === 1);

      // West's key at this leaf node: its hello reaches nobody.
      await expect(
        as('sites/west.nk').connect(at('spy'), { fingerprint: fingerprint() }),
      ).rejects.toMatchObject(withCode('FED_TRANSPORT_UNREACHABLE'));

      const spy = await connectNats({
        servers: `127.0.0.1:${ports['spy']}`,
        tls: plainTls(join(nats, 'ca.pem')),
        authenticator: nkeyAuthenticator(new TextEncoder().encode(key('coordinator.nk').trim())),
        noEcho: true,
      });
      closing.push(() => spy.close());
      const heard: string[] = [];
      spy.subscribe('>', { callback: (_error, { subject }) => void heard.push(subject) });
      await spy.flush();

      // West's own link, on another server: its hello, its requests and the answers.
      const link = await as('sites/west.nk').connect(at('b'), { fingerprint: fingerprint() });
      closing.push(() => link.close());
      const { length } = links;
      expect(await echo(link)).toEqual([7]);
      // East's link by the same leaf node works, and is all that passes through it: its frames are heard, in order.
      const own = await as('sites/east.nk').connect(at('spy'), { fingerprint: fingerprint() });
      expect(await echo(own)).toEqual([7]);
      expect(links.length).toBe(length + 1);
      await own.close();
      const east = nodeIn(text, 'east');
      expect(heard.length).toBeGreaterThan(0);
      expect(heard.filter((subject) => !subject.includes(east))).toEqual([]);
    });

    test('a leaf node with a wrong password stays outside', async () => {
      await servers.get('spy')!.kill();
      const path = join(nats, 'leaf-nodes/spy/nats-server.conf');
      writeFileSync(
        path,
        readFileSync(path, 'utf8').replaceAll(/leaf-1:[0-9a-f]{64}/g, `leaf-1:${'0'.repeat(64)}`),
      );
      await start('spy', 'leaf-nodes/spy');
      expect(await servers.get('spy')!.line(/authorization violation/i)).toBeDefined();
      expect(await servers.get('spy')!.ask('leafz')).toMatchObject({ leafnodes: 0 });
    });
  });

  test('a federation goes on when the server at which the coordinator is dies', {
    timeout: 240_000,
  }, async () => {
    await writeTwoSites(join(dir, 'data'), 40);
    writeTwoSitesConfig(dir);
    const coordinator = household.begin(
      ...['coordinator', '--nats', String(written['url']), '--nats-ca', 'nats/ca.pem'],
      ...['--nats-credentials', 'nats/coordinator.nk', '--invite-uses', '2'],
    );
    const invite = String((await coordinator.event('invite'))['invite']);
    const join_ = (site: string, ...more: string[]) =>
      household.begin(
        ...[
          'join',
          invite,
          '--data',
          `data/${site}`,
          '--name',
          site,
          '--engine',
          'onnxruntime',
          '--threads',
          '1',
        ],
        ...['--nats-credentials', `nats/sites/${site}.nk`, ...more],
      );
    const east = join_('east', '--nats', `tls://127.0.0.1:${ports['leaf']}`);
    const west = join_('west');
    await coordinator.event('committed');

    const lead = nodeIn(key('servers/a/nats-server.conf'), 'the coordinator');
    const [victim] = await serversOf(lead, servers, NAMES);
    await servers.get(victim!)!.kill();

    const { code, out, err } = await coordinator.ended;
    expect(code, `${out.slice(-2000)}\n${err}`).toBe(0);
    const events = out.split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events.at(-1)).toMatchObject({ type: 'summary', reason: 'rounds', rounds: 3 });
    // It was noticed: both sites came back over other servers.
    const back = events.filter((event) => event['type'] === 'joined' && event['rejoined'] === true);
    expect(new Set(back.map((event) => event['name']))).toEqual(new Set(['east', 'west']));
    for (const site of [east, west]) expect(await site.ended).toMatchObject({ code: 0 });
  });
});

describe.skipIf(missing !== undefined)('nats-config --leaf', () => {
  test('one server and a leaf node at a site: the site’s worker gets a link through it', async () => {
    const [port = 0, leafPort = 0] = await freePorts(2);
    const { code, out, err } = await run(
      dir,
      ...['nats-config', '--sites', 'north,hill', '--host', '127.0.0.1', '--port', String(port)],
      ...['--leaf', `north+hill=127.0.0.1:${leafPort}`, '--out', 'single', '--json'],
    );
    expect(code, err).toBe(0);
    const { url, authority, leafNodes } = JSON.parse(out) as {
      url: string;
      authority: string;
      leafNodes: { dir: string; url: string }[];
    };
    const at = (name: string) => join(dir, 'single', name);
    const read = (name: string) => readFileSync(at(name), 'utf8');
    const running = [await startServerIn(at(''), port)];
    try {
      running.push(await startServerIn(at(leafNodes[0]!.dir), leafPort));
      await until(async () => Number((await running[1]!.ask('leafz'))['leafnodes']) === 1);
      const listener = await createNatsTransport({
        url,
        credentials: { nkeySeed: read('coordinator.nk') },
        ca: read(authority),
      }).listen((link) => link.onRequest(async (packet) => packet));
      const through = dialingTransport({ credentials: at('sites/hill.nk'), server: leafNodes[0]!.url });
      const link = await through.connect(listener.url, { fingerprint: listener.fingerprint! });
      // Larger than one message of the server: 2 MiB.
      const { body } = await link.request({ head: Uint8Array.of(1), body: new Uint8Array(5 << 20) });
      expect(body?.byteLength).toBe(5 << 20);
      await link.close();
      await listener.close();
    } finally {
      for (const server of running) await server.kill();
    }
  });

  test('a leaf node for a coordinator that is at no NATS server is a mistake, and is told', async () => {
    const through = dialingTransport({ server: 'tls://127.0.0.1:1' });
    await expect(through.connect('https://127.0.0.1:1')).rejects.toMatchObject({ code: 'FED_CLI_USAGE' });
    const { code, err } = await run(dir, 'join', 'trib1.x', '--data', '.', '--nats', 'nats.example.org');
    expect(code).toBe(2);
    expect(err.replaceAll(/\s+/g, ' ')).toContain('tls://host:4222');
  });
});

describe('nats-config', () => {
  test.each([
    [['--cluster', 'a=h1'], '--cluster has 1 servers'],
    [['--cluster', 'a=h1,b'], '"b" is not NAME=HOST'],
    [['--cluster', 'a=h1,a=h2'], '"a" is there twice'],
    [['--cluster', 'a/b=h1,c=h2'], 'can\'t name a server "a/b"'],
    [['--cluster', 'a=h1,b=h2:70000'], 'a port is from 1 to 61535'],
    [['--cluster', 'a=h1,b=h2', '--host', 'h3'], '--host names one server'],
    [['--leaf', 'south=h1'], '"south", which is not among the sites'],
    [['--leaf', 'north=h1,north+hill=h2'], '"north" twice'],
    [['--leaf', 'north="h1"'], 'is not NAME=HOST'],
  ])('%j is refused', async (flags, problem) => {
    const { code, err } = await run(
      dir,
      'nats-config',
      '--sites',
      'north,hill',
      '--out',
      'refused',
      ...flags,
    );
    expect(code).toBe(2);
    expect(err.replaceAll(/\s+/g, ' ')).toContain(problem);
  });
});
