import {
  appendFileSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSigningKey, FIRST_PREV, readSigningKey, signRecord } from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { startScriptedWorker } from '@tributary/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createCoordinator,
  type LogRecord,
  resolveFederation,
  runPaths,
  verifyRun,
} from '../../src/index.ts';
import { checkChain } from '../../src/run/chain.ts';
import { openRunLog } from '../../src/run/log.ts';
import { adds, artifact, baseConfig, temporaryDir } from '../federation.ts';

/** A finished run of two rounds, and copies of it to break. */
let original: string;
let publicKey: string;

beforeAll(async () => {
  original = mkdtempSync(join(tmpdir(), 'verify-'));
  const transport = createMemoryTransport();
  const federation = resolveFederation(baseConfig, artifact);
  const coordinator = await createCoordinator({ federation, artifact, runDir: original, transport });
  for (const name of ['a', 'b']) {
    const evaluate = () => ({ numExamples: 1, metrics: { loss: 1 } });
    const invite = coordinator.invite();
    await startScriptedWorker({ transport, name, invite, train: adds(1), evaluate });
  }
  await coordinator.run();
  await coordinator.close();
  publicKey = coordinator.logPublicKey;
});
afterAll(() => rmSync(original, { recursive: true, force: true }));

function copy(): string {
  const dir = temporaryDir();
  cpSync(original, dir, { recursive: true });
  return dir;
}

const linesOf = (dir: string) => readFileSync(runPaths(dir).log, 'utf8').split('\n').slice(0, -1);

function rewrite(dir: string, change: (lines: string[]) => string[]): void {
  writeFileSync(
    runPaths(dir).log,
    change(linesOf(dir))
      .map((line) => `${line}\n`)
      .join(''),
  );
}

/** A copy whose lines are `change`d. */
function broken(change: (lines: string[]) => string[]): string {
  const dir = copy();
  rewrite(dir, change);
  return dir;
}

/** The records from `from` on, chained and signed anew with the run's own key: what only its holder can do. */
function signedAnew(dir: string, change: (records: LogRecord[]) => LogRecord[], key = keyOf(dir)): void {
  let prev = FIRST_PREV;
  rewrite(dir, (lines) =>
    change(lines.map((line) => JSON.parse(line) as LogRecord)).map((record, seq) => {
      const { hash: _hash, sig: _sig, ...body } = record;
      const signed = signRecord({ ...body, seq, prev }, key);
      prev = signed.hash;
      return JSON.stringify(signed);
    }),
  );
}

const joinOf = (records: readonly LogRecord[], name: string) =>
  records.find((record) => record.type === 'joined' && record.name === name) as Extract<
    LogRecord,
    { type: 'joined' }
  >;

/** A record that expels `name`, with the frame of `beside`; to be signed anew. */
function expels(beside: LogRecord, name: string, records: readonly LogRecord[]): LogRecord {
  const { seq, at, config, prev, hash, sig } = beside;
  const { clientId } = joinOf(records, name);
  return { type: 'revoked', clientId, name, reason: 'x', seq, at, config, prev, hash, sig };
}

const keyOf = (dir: string) => readSigningKey(readFileSync(runPaths(dir).key));
const verify = (dir: string) => verifyRun(dir, { publicKey });

describe('verifyRun', () => {
  it('finds nothing in a run as it was written, and says what it checked', () => {
    expect(verify(original)).toMatchObject({
      ok: true,
      pinned: true,
      rounds: 2,
      // The initial model and one a round.
      checkpoints: 3,
      head: true,
      records: linesOf(original).length,
      findings: [],
      notes: [],
    });
  });

  it('takes the key from the log when it is given none, and says so', () => {
    const report = verifyRun(original);
    expect(report).toMatchObject({ ok: true, pinned: false, publicKey });
    expect(report.notes.join()).toContain('the key was taken from the log itself');
  });

  it('finds a changed bit wherever it is in the log, on its line', () => {
    const bytes = readFileSync(runPaths(original).log);
    let line = 1;
    for (const [at, byte] of bytes.entries()) {
      // All of the signatures' ends (their last character has bits to spare), and every third of the other bytes.
      for (const bit of at % 3 === 0 || bytes[at + 3] === 10 ? [1] : []) {
        const changed = Buffer.from(bytes);
        changed[at] = byte ^ bit;
        const { fault, tornBytes, records } = checkChain(changed, publicKey);
        // A last line that is no JSON any more looks torn: there the head tells that it was whole once.
        const found = fault?.line ?? (tornBytes > 0 ? records.length + 1 : undefined);
        expect(found, `bit ${bit} of byte ${at}`).toBe(line);
      }
      if (byte === 10) line++;
    }
  });

  it('takes a changed byte in the last line for damage, and not for what a crash left', () => {
    const dir = broken((lines) => [...lines.slice(0, -1), `x${lines.at(-1)?.slice(1)}`]);
    expect(verify(dir).findings).toMatchObject([{ kind: 'missing', line: linesOf(original).length }]);
  });

  it.each<[string, (lines: string[]) => string[], object]>([
    [
      'a changed number',
      (lines) => lines.map((line, i) => (i === 3 ? line.replace(/"at":\d/, '"at":9') : line)),
      { kind: 'changed', line: 4 },
    ],
    [
      'two lines swapped',
      ([a = '', b = '', c = '', ...rest]) => [a, c, b, ...rest],
      { kind: 'order', line: 2, meaning: expect.stringContaining('number 1 is on line 3') },
    ],
    [
      'a dropped line',
      (lines) => lines.toSpliced(2, 1),
      { kind: 'missing', line: 3, meaning: expect.stringContaining('line 3 was taken out') },
    ],
    ['a line twice', (lines) => lines.toSpliced(2, 0, lines[1] ?? ''), { kind: 'order', line: 3 }],
    [
      'a forged signature',
      (lines) => lines.map((line, i) => (i === 2 ? line.replace(/"sig":"..../, '"sig":"AAAA') : line)),
      { kind: 'signature', line: 3 },
    ],
    [
      'the last whole line cut off',
      (lines) => lines.slice(0, -1),
      { kind: 'missing', meaning: expect.stringContaining('the last line was cut off') },
    ],
    ['half of it cut off', (lines) => lines.slice(0, Math.floor(lines.length / 2)), { kind: 'missing' }],
    ['all of it cut off', () => [], { kind: 'missing', line: 1 }],
  ])('finds %s', (_what, change, finding) => {
    const report = verify(broken(change));
    expect(report.ok).toBe(false);
    expect(report.findings[0]).toMatchObject(finding);
  });

  it('finds a line that another key signed, hashes and all', () => {
    const dir = copy();
    signedAnew(dir, (records) => records, createSigningKey());
    expect(verify(dir).findings[0]).toMatchObject({ kind: 'signature', line: 1 });
    // Its own first line still names the run's key.
    expect(verifyRun(dir).findings[0]).toMatchObject({ kind: 'signature', line: 1 });
  });

  it('finds a whole run signed with another key only when the key is pinned', () => {
    const dir = copy();
    const other = createSigningKey();
    signedAnew(
      dir,
      (records) => records.map((r) => (r.type === 'run-started' ? { ...r, publicKey: other.publicKey } : r)),
      other,
    );
    rmSync(runPaths(dir).head);
    expect(verify(dir).findings[0]).toMatchObject({ kind: 'signature', line: 1 });
    expect(verifyRun(dir).findings[0]).toMatchObject({ kind: 'head' });
  });

  it('finds a line replaced by another one of the same key', () => {
    const dir = copy();
    rewrite(dir, (lines) => {
      const { hash: _hash, sig: _sig, ...body } = JSON.parse(lines[1] ?? '') as LogRecord;
      return lines.with(1, JSON.stringify(signRecord({ ...body, at: body.at + 1 }, keyOf(dir))));
    });
    expect(verify(dir).findings[0]).toMatchObject({ kind: 'fork', line: 3 });
  });

  it('finds a log written anew with the run’s own key, by its head', () => {
    const dir = copy();
    signedAnew(dir, (records) => records.map((r) => ({ ...r, at: r.at + 1 })));
    expect(verify(dir).findings[0]).toMatchObject({ kind: 'fork', line: linesOf(dir).length });
  });

  it('finds a head that is missing, or damaged in both of its slots; one torn slot is what a crash leaves', () => {
    const dir = copy();
    const { head } = runPaths(dir);
    const bytes = readFileSync(head);
    rmSync(head);
    expect(verify(dir).findings).toMatchObject([{ kind: 'head', what: 'is missing' }]);
    writeFileSync(
      head,
      bytes.map((byte, i) => (i % 512 === 10 ? byte ^ 1 : byte)),
    );
    expect(verify(dir).findings).toMatchObject([{ kind: 'head', file: 'log.head' }]);
    for (const slot of [0, 1]) {
      writeFileSync(
        head,
        bytes.map((byte, i) => (i === slot * 512 + 10 ? 0 : byte)),
      );
      expect(verify(dir)).toMatchObject({ ok: true, head: true });
    }
  });

  it('reads runs from before there was a head, and finds a cut in them by checkpoints and metrics', () => {
    const dir = copy();
    rmSync(runPaths(dir).head);
    signedAnew(dir, (records) =>
      records.map((record) => {
        if (record.type !== 'run-started') return record;
        const { head: _head, ...old } = record;
        return old;
      }),
    );
    const whole = verify(dir);
    expect(whole).toMatchObject({ ok: true, head: false, rounds: 2 });
    expect(whole.notes.join()).toContain('before there was one');
    rewrite(dir, (lines) =>
      lines.slice(
        0,
        lines.findIndex((line) => line.includes('"committed"')),
      ),
    );
    expect(verify(dir).findings).toMatchObject([
      { kind: 'missing', what: expect.stringContaining('a checkpoint of round 2') },
      { kind: 'missing', what: expect.stringContaining('metrics.jsonl tells of the commit of round 2') },
    ]);
  });

  it('takes a torn last line for what a crash left', () => {
    const dir = copy();
    appendFileSync(runPaths(dir).log, '{"type":"le');
    const report = verify(dir);
    expect(report.ok).toBe(true);
    expect(report.notes.join()).toContain('11 bytes of another');
  });

  it.each<[string, (records: LogRecord[]) => LogRecord[], string]>([
    [
      'an update that was never accepted',
      (records) => records.filter((r) => r.type !== 'update-accepted' || r.round !== 2 || r.name !== 'b'),
      'commits an update of "b"',
    ],
    [
      'a round left out',
      (records) => records.filter((r) => !('round' in r) || r.round !== 1),
      'starts round 2 where round 1 is due',
    ],
    [
      'a site that nobody invited',
      (records) => records.filter((r) => r.type !== 'invited'),
      'lets in "a" by an invite that was never given out',
    ],
    [
      'a model that does not follow',
      (records) =>
        records.map((r) =>
          r.type === 'round-started' && r.round === 2 ? { ...r, base: 'ab'.repeat(32) } : r,
        ),
      'starts round 2 from model abababababab…',
    ],
    [
      'more weight than was said',
      (records) =>
        records.map((r) =>
          r.type === 'committed'
            ? { ...r, updates: r.updates.map((u) => ({ ...u, numExamples: 99 })), numExamples: 198 }
            : r,
        ),
      'counts 99 examples of "a", which was accepted with 10',
    ],
    [
      'an update that the coordinator made up',
      (records) =>
        records.map((r) => {
          // Of one site: which of two is accepted first is for the run to tell.
          const madeUp = <U extends { name: string }>(update: U) =>
            update.name === 'a' ? { ...update, digest: 'cd'.repeat(32) } : update;
          if (r.type === 'update-accepted') return madeUp(r);
          return r.type === 'committed' ? { ...r, updates: r.updates.map(madeUp) } : r;
        }),
      'accepts an update of "a" for round 1 without that site’s signature over it',
    ],
    [
      'numbers of an update that are not the site’s',
      (records) => records.map((r) => (r.type === 'update-accepted' ? { ...r, metrics: { loss: 0 } } : r)),
      'without that site’s signature over it',
    ],
    [
      'a site that was expelled is asked',
      (records) => records.flatMap((r) => (r.type === 'round-started' ? [expels(r, 'a', records), r] : [r])),
      'asks "a", which was expelled',
    ],
    [
      'a site is expelled, and its update counts in the round that was open',
      (records) => records.flatMap((r) => (r.type === 'committed' ? [expels(r, 'a', records), r] : [r])),
      'that was not accepted before',
    ],
    [
      'a site comes by the invite of one that was expelled',
      (records) =>
        records.flatMap((r) =>
          r.type === 'joined' && r.name === 'b'
            ? [expels(r, 'a', records), { ...r, invite: joinOf(records, 'a').invite }]
            : [r],
        ),
      'by the invite of "a", which was expelled',
    ],
    [
      'a site that was expelled comes back under another name',
      (records) =>
        records.flatMap((r) =>
          r.type === 'joined' && r.name === 'b'
            ? [expels(r, 'a', records), { ...r, key: joinOf(records, 'a').key }]
            : [r],
        ) as LogRecord[],
      'with the key of "a"',
    ],
    [
      'somebody is expelled who never joined',
      (records) =>
        records.map((r) => (r.type === 'finished' ? { ...expels(r, 'a', records), name: 'z' } : r)),
      'expels "z", which never joined',
    ],
  ])('finds a signed log that contradicts itself: %s', (_what, change, says) => {
    const dir = copy();
    signedAnew(dir, change);
    const { findings } = verify(dir);
    expect(findings.find(({ kind }) => kind === 'contradiction')?.what).toContain(says);
  });

  it('finds a checkpoint that is not the model of its commit, and says when one is not there', () => {
    const dir = copy();
    const { checkpoint } = runPaths(dir);
    const bytes = readFileSync(checkpoint(1));
    // The last byte is one of the last tensor.
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(checkpoint(1), bytes);
    renameSync(checkpoint(0), join(dir, 'elsewhere'));
    const report = verify(dir);
    expect(report).toMatchObject({
      checkpoints: 1,
      findings: [{ kind: 'checkpoint', file: 'checkpoints/round-0001.safetensors' }],
      notes: [expect.stringContaining('no checkpoint file of round 0')],
    });
  });

  it('finds a configuration that was changed afterwards', () => {
    const dir = copy();
    const { federation } = runPaths(dir);
    writeFileSync(federation, readFileSync(federation, 'utf8').replace('"rounds": 2', '"rounds": 3'));
    expect(verify(dir).findings).toMatchObject([{ kind: 'configuration', file: 'federation.json' }]);
  });
});

describe('a coordinator that goes on with a run', () => {
  const open = (dir: string) => {
    const { log, key, head } = runPaths(dir);
    const config = (JSON.parse(linesOf(original)[0] ?? '') as LogRecord).config;
    return openRunLog({ path: log, keyPath: key, headPath: head, config });
  };

  it('refuses a log whose end was cut off', async () => {
    const dir = broken((lines) => lines.slice(0, -1));
    await expect(open(dir)).rejects.toMatchObject({
      code: 'FED_RUN_LOG_BROKEN',
      message: expect.stringContaining('the last line was cut off'),
    });
  });

  it('refuses a log whose head is gone, and goes on from a head that is behind', async () => {
    const dir = copy();
    const log = await open(dir);
    // Not durable: the head stays where it was.
    log.append({ type: 'run-resumed', round: 3, repairedBytes: 0 });
    log.close();
    (await open(dir)).close();
    expect(verify(dir)).toMatchObject({ ok: true, records: linesOf(original).length + 1 });
    rmSync(runPaths(dir).head);
    await expect(open(dir)).rejects.toThrow('log.head is missing');
  });
});
