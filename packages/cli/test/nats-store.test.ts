/**
 * Two coordinators by the command line, with `--store jetstream`, at a cluster of three servers as `nats-config` writes
 * it: the leader dies and the server that it was at with it, and the other one plays the run to its end.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectNats, nkeyAuthenticator } from '@nats-io/transport-node';
import { natsServerMissing } from '@tributary/testkit/nats-server';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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
const dir = mkdtempSync(join(tmpdir(), 'tributary-nats-store-'));
const NAMES = ['a', 'b', 'c'] as const;

describe.skipIf(missing !== undefined)('coordinator --store jetstream', () => {
  const servers = new Map<string, RunningServer>();
  const ports: Record<string, number> = {};
  const household = openHousehold(dir);
  let url = '';
  beforeAll(async () => {
    const free = await freePorts(3);
    for (const [index, name] of NAMES.entries()) ports[name] = free[index]!;
    const cluster = NAMES.map((name) => `${name}=127.0.0.1:${ports[name]}`).join(',');
    const { code, out, err } = await run(
      dir,
      ...['nats-config', '--sites', 'east,west', '--prefix', 'ward', '--cluster', cluster, '--json'],
    );
    expect(code, err).toBe(0);
    ({ url } = JSON.parse(out) as { url: string });
    for (const name of NAMES)
      servers.set(name, await startServerIn(join(dir, 'nats/servers', name), ports[name]!));
    // JetStream is there once the servers have agreed on who leads them.
    await until(async () => {
      const { meta_cluster: meta } = await servers.get('a')!.ask('jsz');
      const { leader, cluster_size: size } = (meta ?? {}) as { leader?: string; cluster_size?: number };
      return leader !== undefined && size === 3;
    });
    writeTwoSitesConfig(dir);
    await writeTwoSites(join(dir, 'data'), 40);
  });
  afterAll(async () => {
    await household.end();
    for (const server of servers.values()) await server.kill();
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  });

  const AT = () => ['--nats', url, '--nats-ca', 'nats/ca.pem'];
  const KEY = ['--nats-credentials', 'nats/coordinator.nk'];

  test('says what it needs: a server, and a key for it', async () => {
    const alone = await run(dir, 'coordinator', '--store', 'jetstream');
    expect(alone).toMatchObject({ code: 2, err: expect.stringContaining('--nats tls://') });
    const keyless = await run(dir, 'coordinator', '--store', 'jetstream', ...AT());
    expect(keyless).toMatchObject({ code: 2, err: expect.stringContaining('--nats-credentials') });
  });

  test('a site’s key opens nothing of what is kept', async () => {
    const site = await connectNats({
      servers: `127.0.0.1:${ports['a']}`,
      tls: plainTls(join(dir, 'nats/ca.pem')),
      authenticator: nkeyAuthenticator(readFileSync(join(dir, 'nats/sites/west.nk')).subarray(0, 58)),
    });
    try {
      const errors = site.status()[Symbol.asyncIterator]();
      const subjects = [
        '$JS.API.STREAM.INFO.KV_tributary_ward',
        '$KV.tributary_ward.lease',
        'ward.store.log',
      ];
      for (const subject of subjects) {
        site.publish(subject, '');
        const { value } = await errors.next();
        expect(value).toMatchObject({ type: 'error', error: { operation: 'publish', subject } });
      }
    } finally {
      await site.close();
    }
  });

  test('the leader dies with the server that it was at: the other one ends the run, and it verifies', {
    timeout: 240_000,
  }, async () => {
    const lead = (folder: string) =>
      household.begin(
        'coordinator',
        '--store',
        'jetstream',
        ...AT(),
        ...KEY,
        '--run-dir',
        folder,
        '--invite-uses',
        '2',
      );
    const leader = lead('first');
    const invite = String((await leader.event('invite'))['invite']);
    const standby = lead('second');
    await standby.event('standing-by');
    const sites = ['east', 'west'].map((site) =>
      household.begin(
        ...['join', invite, '--data', `data/${site}`, '--name', site, '--engine', 'onnxruntime'],
        ...['--threads', '1', '--nats-credentials', `nats/sites/${site}.nk`],
      ),
    );
    await leader.event('committed');
    const config = readFileSync(join(dir, 'nats/servers/a/nats-server.conf'), 'utf8');
    const node = nodeIn(config, 'the coordinator');
    leader.kill('SIGKILL');
    const [at = NAMES[0]] = await serversOf(node, servers, NAMES);
    await servers.get(at)!.kill();

    const { code, out, err } = await standby.ended;
    expect(code, `${out.slice(-2000)}\n${err}`).toBe(0);
    const events = out.split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(events.at(-1)).toMatchObject({ type: 'summary', reason: 'rounds', rounds: 3 });
    expect(events.filter(({ type }) => type === 'leading')).toEqual([expect.objectContaining({ term: 2 })]);
    for (const site of sites) expect(await site.ended).toMatchObject({ code: 0 });
    const verified = await run(dir, 'verify', 'second');
    expect(verified.code, verified.out + verified.err).toBe(0);
  });
});
