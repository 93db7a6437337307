import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { verifyRunLog } from '../../src/index.ts';
import { takeLock } from '../../src/run/lock.ts';
import { openRunLog } from '../../src/run/log.ts';
import { temporaryDir } from '../federation.ts';

async function twoRecords() {
  const dir = temporaryDir();
  const options = {
    path: join(dir, 'log.jsonl'),
    keyPath: join(dir, 'log.key'),
    headPath: join(dir, 'log.head'),
    config: 'c',
  };
  const log = await openRunLog(options);
  log.append({ type: 'invited', invite: 'i', uses: 1, expiresAt: 1 }, { durable: true });
  log.append({ type: 'run-resumed', round: 3, repairedBytes: 0 });
  log.close();
  return { options, publicKey: log.key.publicKey };
}

describe('the log', () => {
  it('can be read back and verified with the public key, and its key is private', async () => {
    const { options, publicKey } = await twoRecords();
    expect(verifyRunLog(options.path, publicKey).map((r) => r.type)).toEqual(['invited', 'run-resumed']);
    expect(statSync(options.keyPath).mode & 0o777).toBe(0o600);
  });

  it.each(['{"type":"comm', '{"type":"comm\n', '\0\0\0'])(
    'cuts off a torn last line %j and goes on',
    async (torn) => {
      const { options, publicKey } = await twoRecords();
      appendFileSync(options.path, torn);
      const log = await openRunLog(options);
      expect(log.repairedBytes).toBe(torn.length);
      log.append({ type: 'run-resumed', round: 4, repairedBytes: torn.length });
      log.close();
      expect(verifyRunLog(options.path, publicKey)).toHaveLength(3);
    },
  );

  it.each([
    [
      'a changed line',
      (text: string) => text.replace('"uses":1', '"uses":9'),
      'line 1: does not match its own hash',
    ],
    [
      'a line taken out',
      (text: string) => `${text.split('\n')[1]}\n`,
      'line 1: has number 1 where 0 belongs',
    ],
    [
      'another signature',
      (text: string) => text.replace(/"sig":"..../, '"sig":"AAAA'),
      'line 1: has a signature that is not of this run',
    ],
  ])('refuses %s', async (_what, change, message) => {
    const { options } = await twoRecords();
    writeFileSync(options.path, change(readFileSync(options.path, 'utf8')));
    await expect(openRunLog(options)).rejects.toThrow(message);
  });
});

describe('the lock', () => {
  it('refuses a second holder, and is free again afterwards', () => {
    const path = join(temporaryDir(), 'lock');
    const free = takeLock(path);
    expect(() => takeLock(path)).toThrow(`process ${process.pid}`);
    free();
    expect(existsSync(path)).toBe(false);
    takeLock(path)();
  });

  it.each([
    ['a process that is gone', JSON.stringify({ pid: 2 ** 22 + 1, started: '1' })],
    ['a process id given away anew', JSON.stringify({ pid: process.pid, started: '1' })],
    ['a torn file', '{"pi'],
  ])('takes over from %s', (_what, content) => {
    const path = join(temporaryDir(), 'lock');
    writeFileSync(path, content);
    takeLock(path)();
  });
});
