/** What sites are told of the log, and what their copies find out. */
import { readFileSync, writeFileSync } from 'node:fs';
import { FIRST_PREV, readSigningKey, type SigningKey, signRecord } from '@tributary/shared-protocol';
import type { ScriptedWorker } from '@tributary/testkit';
import { describe, expect, it } from 'vitest';
import { type LogRecord, runPaths, verifyCopy, verifyRun } from '../../src/index.ts';
import { adds, startRun, type TestRun } from '../federation.ts';

const noEvaluation = { evaluation: { sites: false } } as const;
const copyOf = (site: ScriptedWorker) => Buffer.from(site.records.map((line) => `${line}\n`).join(''));
const parsed = (site: ScriptedWorker) => site.records.map((line) => JSON.parse(line) as LogRecord);
const logLines = (run: TestRun) => readFileSync(runPaths(run.runDir).log, 'utf8').split('\n').slice(0, -1);

describe('what a site is told of the log', () => {
  it('is each line that concerns it, as it stands in the log, before the goodbye', async () => {
    const run = await startRun({ rounds: 2, ...noEvaluation });
    const a = await run.join('a', { train: adds(1), recordsUpTo: -1 });
    const b = await run.join('b', { train: adds(3) });
    const done = run.coordinator.run();
    await a.goodbye;
    expect(parsed(a).map(({ type }) => type)).toEqual([
      'run-started',
      'joined',
      'update-accepted',
      'committed',
      'update-accepted',
      'committed',
      'finished',
    ]);
    await done;
    const lines = logLines(run);
    for (const line of a.records) expect(lines).toContain(line);
    expect(parsed(a).flatMap((record) => ('name' in record ? [record.name] : []))).not.toContain('b');
    // A site that does not ask is told nothing.
    expect(b.records).toEqual([]);
  });

  it('begins after what it has, also on a new link and after a restart of the coordinator', async () => {
    const first = await startRun({ rounds: 1, ...noEvaluation });
    const a = await first.join('a', { recordsUpTo: -1 });
    await a.until('records');
    await first.coordinator.close();
    const { runDir, transport } = first;
    const run = await startRun({ rounds: 1, ...noEvaluation }, { runDir, transport });
    const upTo = parsed(a).at(-1)!.seq;
    const again = await run.join('a', { credential: a.credential, recordsUpTo: upTo, train: adds(1) });
    await run.join('b', { train: adds(1) });
    const done = run.coordinator.run();
    await again.goodbye;
    await done;
    expect(parsed(a).map(({ type }) => type)).toEqual(['run-started', 'joined']);
    expect(parsed(again).map(({ type }) => type)).toEqual(['update-accepted', 'committed', 'finished']);
  });

  it('has the record that expels it', async () => {
    const run = await startRun();
    const a = await run.join('a', { recordsUpTo: -1 });
    await a.until('records');
    run.coordinator.revoke('a', 'its labels were guessed');
    await a.goodbye;
    expect(parsed(a).at(-1)).toMatchObject({ type: 'revoked', reason: 'its labels were guessed' });
  });
});

describe('a site’s copy', () => {
  let run: TestRun;
  let site: ScriptedWorker;
  let key: SigningKey;
  let publicKey: string;
  let log: Buffer;

  async function played() {
    run = await startRun({ rounds: 3, ...noEvaluation });
    site = await run.join('a', { train: adds(1), recordsUpTo: -1 });
    await run.join('b', { train: adds(3) });
    await run.coordinator.run();
    await run.coordinator.close();
    publicKey = run.coordinator.logPublicKey;
    key = readSigningKey(readFileSync(runPaths(run.runDir).key));
    log = readFileSync(runPaths(run.runDir).log);
  }

  const verify = (bytes: Uint8Array) => verifyCopy(bytes, { file: 'records.jsonl', name: 'a', publicKey });
  /** The copy with its records changed and signed anew: what only the holder of the run's key can do. */
  const forged = (change: (record: LogRecord) => LogRecord | undefined): Buffer =>
    Buffer.from(
      parsed(site)
        .flatMap((record) => change(record) ?? [])
        .map(({ hash: _hash, sig: _sig, ...body }) => `${JSON.stringify(signRecord(body, key))}\n`)
        .join(''),
    );
  const lines = () => site.records.map((line) => `${line}\n`);

  it('holds by itself, and with the log that it is of', async () => {
    await played();
    expect(verify(copyOf(site))).toMatchObject({ ok: true, rounds: 3, signedUpdates: 3, findings: [] });
    const copies = [{ file: 'a', bytes: copyOf(site) }];
    expect(verifyRun(run.runDir, { publicKey, copies })).toMatchObject({ ok: true });
  });

  it('finds a changed byte, a dropped commit, swapped lines, a forged signature, each on its line', async () => {
    await played();
    const [first = '', second = '', third = '', ...rest] = lines();
    const changed = [first, second, third.replace('"numExamples":10', '"numExamples":11'), ...rest];
    expect(verify(Buffer.from(changed.join(''))).findings).toMatchObject([{ kind: 'changed', line: 3 }]);
    const swapped = [first, third, second, ...rest];
    expect(verify(Buffer.from(swapped.join(''))).findings[0]).toMatchObject({ kind: 'order', line: 3 });
    const dropped = lines().filter((line) => !line.includes('"committed","round":2'));
    expect(verify(Buffer.from(dropped.join(''))).findings[0]?.what).toContain(
      'an update for round 3, and round 1 is the last',
    );
    const sig = JSON.parse(second) as LogRecord;
    const stolen = [first, `${JSON.stringify({ ...sig, sig: JSON.parse(first).sig })}\n`, third, ...rest];
    expect(verify(Buffer.from(stolen.join(''))).findings).toMatchObject([{ kind: 'signature', line: 2 }]);
  });

  it.each<[string, (record: LogRecord) => LogRecord | undefined, string]>([
    [
      'an update under its name that it did not send',
      (r) =>
        r.type === 'committed'
          ? { ...r, updates: r.updates.map((u) => (u.name === 'a' ? { ...u, digest: 'f'.repeat(64) } : u)) }
          : r,
      'that was not accepted from it',
    ],
    [
      'an update that was accepted and does not count',
      (r) => (r.type === 'committed' ? { ...r, updates: r.updates.filter(({ name }) => name !== 'a') } : r),
      'leaves out the update',
    ],
    [
      'numbers that it did not sign',
      (r) => (r.type === 'update-accepted' ? { ...r, numExamples: 99 } : r),
      'that this site did not sign',
    ],
    [
      'a model between two rounds that nobody committed',
      (r) => (r.type === 'committed' ? { ...r, model: 'f'.repeat(64) } : r),
      'accepts an update of model',
    ],
  ])('finds what the holder of the run’s key has made up: %s', async (_what, change, says) => {
    await played();
    expect(verify(forged(change)).findings[0]?.what).toContain(says);
  });

  it('finds a log that tells something else, and one that ends before what the site was told', async () => {
    await played();
    const copies = [{ file: 'records.jsonl', bytes: copyOf(site) }];
    // The same run with another number in round 1, chained and signed anew by the holder of its key.
    let prev = FIRST_PREV;
    const records = log
      .toString()
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as LogRecord);
    const anew = records.map(({ hash: _hash, sig: _sig, ...body }) => {
      const told = body.type === 'committed' && body.round === 1 ? { ...body, seconds: 1e6 } : body;
      const signed = signRecord({ ...told, prev }, key);
      prev = signed.hash;
      return signed;
    });
    const paths = runPaths(run.runDir);
    writeFileSync(paths.log, anew.map((record) => `${JSON.stringify(record)}\n`).join(''));
    const line = anew.findIndex((record) => record.type === 'committed') + 1;
    const { findings } = verifyRun(run.runDir, { publicKey, copies });
    expect(findings.find(({ kind }) => kind === 'copy')).toMatchObject({ file: 'log.jsonl', line });
    // Cut off behind the first commit.
    const short = log.toString().split('\n').slice(0, line);
    writeFileSync(paths.log, short.map((text) => `${text}\n`).join(''));
    const cut = verifyRun(run.runDir, { publicKey, copies }).findings.find(({ kind }) => kind === 'copy');
    expect(cut).toMatchObject({ line: line + 1, what: expect.stringContaining('is where the log ends') });
  });
});
