/** What `nats-config` writes, read by the real nats-server and used by the real commands' transports. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { natsServerMissing } from '@tributary/testkit/nats-server';
import { afterAll, describe, expect, test } from 'vitest';
import { run } from './support.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-nats-config-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const missing = natsServerMissing();

describe('nats-config', () => {
  test('writes a server’s files with a key a node, and says who needs which', async () => {
    const { code, out, err } = await run(
      dir,
      'nats-config',
      '--sites',
      'north,the hill',
      '--host',
      'nats.test',
    );
    expect(err).toBe('');
    expect(code).toBe(0);
    expect(out).toContain('--nats tls://nats.test:4222/tributary');
    const folder = join(dir, 'nats');
    expect(readdirSync(join(folder, 'sites')).sort()).toEqual(['north.nk', 'the%20hill.nk']);
    const config = readFileSync(join(folder, 'nats-server.conf'), 'utf8');
    // Three nodes: the coordinator and two sites. No seed is in the configuration.
    expect(config.match(/nkey: U[A-Z2-7]{55}\b/g)).toHaveLength(3);
    expect(config).not.toMatch(/\bSU[A-Z2-7]{20}/);
    for (const key of ['coordinator.nk', 'sites/north.nk', 'server-key.pem'])
      expect(statSync(join(folder, key)).mode & 0o077).toBe(0);
  });

  test.skipIf(missing !== undefined)('the server takes the configuration', async () => {
    const { status, stderr } = spawnSync('nats-server', ['-t', '-c', 'nats-server.conf'], {
      cwd: join(dir, 'nats'),
      encoding: 'utf8',
    });
    expect(stderr).not.toMatch(/unknown field|error/i);
    expect(status).toBe(0);
  });

  test('never writes over keys that may be in use', async () => {
    writeFileSync(join(dir, 'nats', 'mine'), '');
    const { code, err } = await run(dir, 'nats-config', '--sites', 'north');
    expect(code).toBe(2);
    expect(err).toContain('has files in it already');
  });

  test.each([
    ['a,,b', 'a name is empty'],
    ['a,b,a', '"a" is there twice'],
  ])('--sites %s is refused', async (sites, problem) => {
    const { code, err } = await run(dir, 'nats-config', '--sites', sites, '--out', 'other');
    expect(code).toBe(2);
    expect(err.replaceAll(/\s+/g, ' ')).toContain(problem);
  });

  test('join and coordinator name a key file that is not there', async () => {
    writeFileSync(
      join(dir, 'tributary.config.json'),
      JSON.stringify({
        name: 'tiny',
        model: 'image-cnn-small',
        classes: ['a', 'b'],
        input: { height: 8, width: 8, channels: 1 },
      }),
    );
    const flags = ['--nats', 'tls://127.0.0.1:1/tributary', '--nats-credentials', 'nowhere.nk'];
    const { code, err } = await run(dir, 'coordinator', ...flags);
    expect(code).toBe(2);
    expect(err).toContain('nowhere.nk');
    const alone = await run(dir, 'coordinator', '--nats-credentials', 'nowhere.nk');
    expect(alone.code).toBe(2);
    expect(alone.err).toContain('no server');
  });
});
