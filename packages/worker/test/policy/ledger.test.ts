import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openLedger } from '../../src/policy/ledger.ts';

let folder: string;
let path: string;
let now: number;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tributary-ledger-'));
  path = join(folder, 'policy-ledger.json');
  now = new Date(2026, 2, 2, 23, 59).getTime();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = () => openLedger({ path, now: () => now, aheadBytes: 100 });
const stored = () => JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;

describe('the ledger', () => {
  test('a site that was killed has counted too many bytes rather than too few', () => {
    const ledger = open();
    ledger.addBytes(10);
    // 10, and 100 ahead of it.
    expect(stored()).toMatchObject({ day: '2026-03-02', bytes: 110 });
    ledger.addBytes(99);
    expect(stored()).toMatchObject({ bytes: 110 });
    ledger.addBytes(2); // 111 are more than what is written down
    expect(stored()).toMatchObject({ bytes: 211 });
    expect(ledger.bytesToday()).toBe(111);
    expect(open().bytesToday()).toBe(211);
  });

  test('a site that stops in order has counted exactly', () => {
    const ledger = open();
    ledger.addBytes(10);
    ledger.close();
    expect(open().bytesToday()).toBe(10);
  });

  test('a new day begins at local midnight; a clock that is set back begins none', () => {
    const ledger = open();
    ledger.addBytes(10);
    now += 60_000;
    expect(ledger.bytesToday()).toBe(0);
    ledger.addBytes(5);
    now -= 3_600_000;
    expect(ledger.bytesToday()).toBe(5);
  });

  test('a round counts once, over restarts too', () => {
    open().addRound('1-aa');
    const again = open();
    again.addRound('1-aa');
    again.addRound('1-bb');
    expect(open().rounds).toEqual(['1-aa', '1-bb']);
  });

  test('a file that is not a ledger stops the site instead of beginning anew', () => {
    writeFileSync(path, '{"version":1');
    expect(open).toThrow(expect.objectContaining({ code: 'FED_WORKER_STATE_UNUSABLE' }));
  });
});
