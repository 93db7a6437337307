/**
 * Checks a site's copy of the log by itself. It holds only the lines that concern the site, so there is no chain; but
 * each line is signed by the run, every commit is there, and what was accepted of the site must be in them.
 */
import { readRecordLine } from '@tributary/shared-protocol';
import type { LogRecord } from '../run/log.ts';
import { isSignedOffer, short } from './meaning.ts';
import type { Finding } from './verify-run.ts';

export interface CopyReport {
  readonly ok: boolean;
  readonly runId: string | undefined;
  readonly publicKey: string;
  /** Lines that hold. */
  readonly records: number;
  readonly rounds: number;
  /** Updates of this site that were accepted, with its own signature. */
  readonly signedUpdates: number;
  readonly findings: readonly Finding[];
  readonly notes: readonly string[];
}

export interface CopyOptions {
  /** How findings name the file. */
  readonly file: string;
  /** The site's name in the run. */
  readonly name: string;
  /** Base64url of the run's public key, as the site has pinned it. */
  readonly publicKey: string;
}

/** The records of a copy up to the first line that does not hold, and what is wrong with that one. */
export function readCopy(
  bytes: Uint8Array,
  { file, publicKey }: Pick<CopyOptions, 'file' | 'publicKey'>,
): { readonly records: readonly LogRecord[]; readonly findings: readonly Finding[] } {
  const records: LogRecord[] = [];
  // What a crash leaves behind the last whole line is no line.
  const lines = Buffer.from(bytes).toString('utf8').split('\n').slice(0, -1);
  for (const [index, line] of lines.entries()) {
    const read = readRecordLine(Buffer.from(line), publicKey);
    const at = { file, line: index + 1 };
    if ('fault' in read) {
      const meaning =
        'the copy was changed or damaged after the coordinator brought the line, or is of another run';
      return { records, findings: [{ ...at, ...read.fault, meaning }] };
    }
    const before = records.at(-1);
    if (before !== undefined && read.record.seq <= before.seq) {
      const what = `has number ${read.record.seq} after ${before.seq}`;
      return {
        records,
        findings: [{ ...at, kind: 'order', what, meaning: 'lines of the copy were swapped' }],
      };
    }
    records.push(read.record as LogRecord);
  }
  return { records, findings: [] };
}

/** Checks the bytes of a site's copy. */
export function verifyCopy(bytes: Uint8Array, options: CopyOptions): CopyReport {
  const { file, publicKey } = options;
  const { records, findings } = readCopy(bytes, options);
  const told = [...tale(records, options)].map(({ line, what, meaning }) => ({
    kind: 'contradiction' as const,
    file,
    line,
    what,
    meaning,
  }));
  const notes = [
    'a copy has the lines that concern this site, not the chain between them: a whole log is compared with it by `tributary verify RUN --copy`',
  ];
  if (records.length > 0 && records.at(-1)?.type !== 'finished')
    notes.push('the run was not over when its last line came, or the end of the copy is missing');
  const all = [...findings, ...told];
  return {
    ok: all.length === 0,
    runId: records.find((record) => record.type === 'run-started')?.runId,
    publicKey,
    records: records.length,
    rounds: records.filter(({ type }) => type === 'committed').length,
    signedUpdates: records.filter(({ type }) => type === 'update-accepted').length,
    findings: all,
    notes,
  };
}

/**
 * Where a log tells something else than a copy of it that a site has kept: for each line of the copy, the one with that
 * number and hash must be in the log.
 */
export function compareCopy(log: readonly LogRecord[], copy: readonly LogRecord[], file: string): Finding[] {
  const bySeq = new Map(log.map((record) => [record.seq, record]));
  for (const [index, { seq, hash, type }] of copy.entries()) {
    const own = bySeq.get(seq);
    if (own?.hash === hash) continue;
    const at = `line ${index + 1} of ${file}, "${type}", which this run signed`;
    return own === undefined
      ? [
          {
            kind: 'copy',
            file: 'log.jsonl',
            line: log.length + 1,
            what: `is where the log ends, and a site has ${at}, with number ${seq}`,
            meaning:
              'the end of the log was cut off after the site was told of it, or the log is older than the copy',
          },
        ]
      : [
          {
            kind: 'copy',
            file: 'log.jsonl',
            line: seq + 1,
            what: `is "${own.type}" with another hash than ${at}`,
            meaning: 'the holder of the run’s key has told the site and the log two different histories',
          },
        ];
  }
  return [];
}

interface Said {
  readonly line: number;
  readonly what: string;
  readonly meaning: string;
}

function* tale(records: readonly LogRecord[], { name, publicKey }: CopyOptions): Generator<Said> {
  let runId = '';
  let key: string | undefined;
  let committed: { round: number; model: string } | undefined;
  let revoked = false;
  let accepted: Extract<LogRecord, { type: 'update-accepted' }> | undefined;
  let survivors: Extract<LogRecord, { type: 'survivors' }> | undefined;
  const config = records[0]?.config;
  for (const [index, record] of records.entries()) {
    const say = (what: string, meaning: string): Said => ({ line: index + 1, what, meaning });
    if (record.config !== config)
      yield say('was written under another configuration', 'rounds of two federations are in one copy');
    if ('name' in record && record.type !== 'run-started' && record.name !== name)
      yield say(`is about "${record.name}", not "${name}"`, 'the copy is of another site');
    switch (record.type) {
      case 'run-started':
        if (index > 0 || record.publicKey !== publicKey)
          yield say('starts a run that is not the one that was joined', 'the copy is of two runs');
        ({ runId } = record);
        committed = { round: 0, model: record.initial };
        break;
      case 'joined':
        ({ key } = record);
        break;
      case 'rekeyed':
        if (record.former !== key)
          yield say('changes a key that this site did not have', 'the coordinator gave its place to another');
        ({ key } = record);
        break;
      case 'revoked':
        revoked = true;
        accepted = undefined;
        break;
      case 'update-accepted':
        if (key === undefined || !isSignedOffer(runId, record, key))
          yield say(
            `accepts an update for round ${record.round} that this site did not sign`,
            'the coordinator has made it up, or changed what the site said of it',
          );
        if (committed && record.round !== committed.round + 1)
          yield say(
            `accepts an update for round ${record.round}, and round ${committed.round} is the last that was committed`,
            'a commit is missing, or a round was repeated',
          );
        else if (committed && record.offer && record.offer.base !== committed.model)
          yield say(
            `accepts an update of model ${short(record.offer.base)}, and round ${committed.round} ended with ${short(committed.model)}`,
            'the global model was changed between two rounds',
          );
        accepted = record;
        break;
      case 'survivors': {
        const before = survivors?.round === record.round ? survivors : undefined;
        if (before && before.names.join() !== record.names.join())
          yield say(
            `has the sum of ${record.names.join(', ')} unmasked in round ${record.round}, and of ${before.names.join(', ')} before`,
            'the difference of two sums of the same updates tells of the sites in one of them only',
          );
        survivors = record;
        break;
      }
      case 'committed': {
        if (
          survivors?.round === record.round &&
          survivors.names.join() !== record.updates.map((u) => u.name).join()
        )
          yield say(
            `commits a sum of other sites than were to unmask it (${survivors.names.join(', ')})`,
            'the model is not what its sites have signed',
          );
        const due = (committed?.round ?? 0) + 1;
        if (record.round !== due)
          yield say(
            `commits round ${record.round} where round ${due} is due`,
            'a commit is missing or was repeated',
          );
        const own = record.updates.find((update) => update.name === name);
        const mine = accepted?.round === record.round ? accepted : undefined;
        if (own && own.digest !== mine?.digest)
          yield say(
            `counts an update of "${name}" (${short(own.digest)}) that was not accepted from it`,
            'the coordinator has put something into the model under this site’s name',
          );
        else if (own && mine && own.numExamples !== mine.numExamples)
          yield say(
            `counts ${own.numExamples} examples of "${name}", which said ${mine.numExamples}`,
            'this site has more or less weight than it said',
          );
        else if (!own && mine && mine.attempt === undefined && !revoked)
          yield say(
            `leaves out the update of "${name}" that it had accepted`,
            'what this site sent does not count, and it was told that it does',
          );
        committed = { round: record.round, model: record.model };
        accepted = undefined;
        break;
      }
      default:
    }
  }
}
