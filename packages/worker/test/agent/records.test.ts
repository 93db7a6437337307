/** The site's copy of the log's lines that concern it, as a file. */
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSigningKey, FIRST_PREV, signRecord } from '@tributary/shared-protocol';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openRecords } from '../../src/agent/records.ts';

const key = createSigningKey();
const line = (seq: number) =>
  JSON.stringify(signRecord({ type: 'committed', seq, at: seq, config: 'c', prev: FIRST_PREV }, key));

let root: string;
let path: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tributary-records-'));
  path = join(root, 'records.jsonl');
});
afterEach(() => rm(root, { recursive: true, force: true }));

describe('a site’s records', () => {
  test('keep each line once, in order, also those that are brought twice', async () => {
    const records = await openRecords(path, 'lab');
    expect(records.upTo).toBe(-1);
    await Promise.all([
      records.take([line(0), line(3)], key.publicKey),
      records.take([line(3), line(7)], key.publicKey),
    ]);
    expect(records.upTo).toBe(7);
    expect(await readFile(path, 'utf8')).toBe([0, 3, 7].map((seq) => `${line(seq)}\n`).join(''));
    expect((await openRecords(path, 'lab')).upTo).toBe(7);
  });

  test('keep nothing of what the run did not sign', async () => {
    const records = await openRecords(path, 'lab');
    await records.take([line(0)], key.publicKey);
    const other = createSigningKey();
    await expect(records.take([line(1)], other.publicKey)).rejects.toMatchObject({
      code: 'FED_WORKER_RECORDS',
      message: expect.stringContaining('has a signature that is not of this run'),
    });
    const changed = line(2).replace('"at":2', '"at":3');
    await expect(records.take([line(1), changed], key.publicKey)).rejects.toMatchObject({
      code: 'FED_WORKER_RECORDS',
    });
    expect(records.upTo).toBe(0);
    await records.take([line(1)], key.publicKey);
    expect(await readFile(path, 'utf8')).toBe(`${line(0)}\n${line(1)}\n`);
  });

  test('go on behind the last whole line when a crash has left half of another', async () => {
    await writeFile(path, `${line(0)}\n`);
    await appendFile(path, line(4).slice(0, 40));
    const records = await openRecords(path, 'lab');
    expect(records.upTo).toBe(0);
    await records.take([line(4)], key.publicKey);
    expect(await readFile(path, 'utf8')).toBe(`${line(0)}\n${line(4)}\n`);
  });

  test('tell how often noise was drawn over an update of this site, also after a restart', async () => {
    const noised = (seq: number, round: number, sites: readonly string[]) =>
      JSON.stringify(
        signRecord(
          { type: 'noised', seq, at: seq, config: 'c', prev: FIRST_PREV, round, sites, clippingNorm: 1 },
          key,
        ),
      );
    const records = await openRecords(path, 'lab');
    const lines = [
      line(0),
      noised(1, 1, ['lab', 'other']),
      noised(2, 2, ['other']),
      noised(3, 3, ['lab']),
      noised(4, 3, ['lab']),
    ];
    await records.take(lines, key.publicKey);
    await records.take(lines, key.publicKey);
    const expected = new Map([
      [1, 1],
      [3, 2],
    ]);
    expect(records.noised).toEqual(expected);
    await appendFile(path, '{"type":"noised"\n');
    expect((await openRecords(path, 'lab')).noised).toEqual(expected);
  });
});
