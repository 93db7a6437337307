/**
 * What a supervisor or a container needs of the commands: an invite that is handed over as a file, a file that shows
 * whether a worker hears its coordinator, and an exit code that says whether a coordinator answers.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openPulse, withPulse } from '../src/pulse.ts';
import { run } from './support.ts';
import { openHousehold, writeTwoSites, writeTwoSitesConfig } from './two-sites.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-watched-'));
const { begin, end } = openHousehold(dir);

beforeAll(async () => {
  await writeTwoSites(dir, 60);
  writeTwoSitesConfig(dir, {
    name: 'watched',
    rounds: 2,
    cohort: { quorum: 1 },
    deadlines: { heartbeatSeconds: 0.2 },
    server: { host: '127.0.0.1', port: 0 },
  });
});
afterAll(async () => {
  await end();
  rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
});

test('an invite travels as a file, and status --running goes with the coordinator', {
  timeout: 120_000,
}, async () => {
  const coordinator = begin('coordinator');
  await coordinator.event('invite');
  expect(await run(dir, 'status', '--running')).toMatchObject({ code: 0 });

  const { code, out } = await run(dir, 'invite', '--out', 'invite.txt');
  expect(code).toBe(0);
  expect(out).not.toContain('trib1.');
  const file = join(dir, 'invite.txt');
  expect(statSync(file).mode & 0o077).toBe(0);
  expect(readFileSync(file, 'utf8')).toMatch(/^trib1\.\S+\n$/);

  // What an earlier life left is no sign of this one.
  const pulse = join(dir, 'pulse');
  writeFileSync(pulse, '');
  utimesSync(pulse, 1000, 1000);
  const join_ = begin('join', 'invite.txt', '--data', 'east', '--engine', 'cpu', '--pulse', 'pulse');
  const { at } = await join_.event('joined');
  // File systems count in steps of up to 10 ms.
  expect(statSync(pulse).mtimeMs).toBeGreaterThan(Number(at) - 10_000);

  coordinator.kill('SIGKILL');
  await coordinator.ended;
  const { code: gone, err } = await run(dir, 'status', '--running');
  expect(gone).toBe(5);
  expect(err).toContain('FED_CLI_NOT_RUNNING');
  expect(await run(dir, 'status')).toMatchObject({ code: 0 });
});

describe('the pulse', () => {
  test('there is none before the first beat, and one for a reply, a request and a notification', async () => {
    const far = createMemoryTransport();
    const path = join(dir, 'beats', 'pulse');
    for (const way of ['reply', 'request', 'notification'] as const) {
      const pulse = openPulse(path);
      expect(existsSync(path)).toBe(false);
      const listener = await far.listen((link) => {
        link.onRequest(async (packet) => packet);
        if (way === 'request') void link.request({ head: Uint8Array.of(1) }).catch(() => {});
        if (way === 'notification') link.notify({ head: Uint8Array.of(1) });
      });
      const near = await withPulse(far, pulse).connect(listener.url);
      const heard = new Promise<void>((resolve) => {
        near.onNotify(() => resolve());
        near.onRequest(async (packet) => {
          resolve();
          return packet;
        });
      });
      await (way === 'reply' ? near.request({ head: Uint8Array.of(1) }) : heard);
      expect(existsSync(path), way).toBe(true);
      await listener.close();
    }
  });

  test('an excuse dates it ahead', () => {
    const path = join(dir, 'excused');
    const until = Date.now() + 3_600_000;
    openPulse(path).excuse(until);
    expect(Math.abs(statSync(path).mtimeMs - until)).toBeLessThan(10);
  });
});
