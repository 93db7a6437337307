/**
 * Checks a run directory that nobody has open, without trusting it: the log's chain and signatures, its head, what it
 * says, and the files that it speaks of. Never throws for what it finds; it says it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { canonicalJson, decodeSafetensors, sha256 } from '@tributary/shared-protocol';
import { globalModel, readCheckpoint } from '../checkpoint.ts';
import type { ResolvedFederation } from '../config/resolve.ts';
import { checkChain, checkHead } from '../run/chain.ts';
import { type RunPaths, runPaths } from '../run/directory.ts';
import { headBytes, readHead } from '../run/head.ts';
import { hasHead, type LogRecord } from '../run/log.ts';
import { checkMeaning } from './meaning.ts';
import { compareCopy, readCopy } from './verify-copy.ts';

export type FindingKind =
  /** Of one line of the log by itself. */
  | 'format'
  | 'changed'
  | 'signature'
  /** Of a line's place. */
  | 'order'
  | 'missing'
  | 'fork'
  /** Of the head file. */
  | 'head'
  /** The log holds together but contradicts itself. */
  | 'contradiction'
  /** Of files beside the log. */
  | 'configuration'
  | 'checkpoint'
  /** Of a site's copy. */
  | 'copy';

export interface Finding {
  readonly kind: FindingKind;
  /** Relative to the run directory. */
  readonly file: string;
  /** From 1, in `file`; undefined when it is about the whole file. */
  readonly line: number | undefined;
  /** A predicate of the line or file. */
  readonly what: string;
  /** What that tells, in a sentence. */
  readonly meaning: string;
}

export interface VerifyReport {
  /** No findings. */
  readonly ok: boolean;
  readonly runId: string | undefined;
  /** Base64url of the key that all was checked with. */
  readonly publicKey: string | undefined;
  /** The key came from whoever asked, not from the log itself. */
  readonly pinned: boolean;
  /** Lines that hold. */
  readonly records: number;
  /** Rounds committed in them. */
  readonly rounds: number;
  /** Updates of which a site's signature shows that they came from it. */
  readonly signedUpdates: number;
  /** Checkpoint files whose model is the one that the log names. */
  readonly checkpoints: number;
  /** Whether a signed head vouches for the log's end. */
  readonly head: boolean;
  /** First the chain's, then the others. */
  readonly findings: readonly Finding[];
  /** What could not be checked, and what is not wrong but worth knowing; sentences. */
  readonly notes: readonly string[];
}

export interface VerifyOptions {
  /** Base64url of the run's public key, from a source that is trusted. @default the key that the log names */
  readonly publicKey?: string;
  /** Copies of the log's lines that sites have kept, which the log must agree with. */
  readonly copies?: readonly { readonly file: string; readonly bytes: Uint8Array }[];
}

/** Checks all of `runDir`. Throws only when there is no log that could be read. */
export function verifyRun(runDir: string, options: VerifyOptions = {}): VerifyReport {
  const paths = runPaths(runDir);
  // In this order, so that a run that goes on meanwhile is never taken for one whose end is missing.
  const traces = tracesOf(paths);
  const bytes = readFileSync(paths.log);
  const findings: Finding[] = [];
  const notes: string[] = [];
  const publicKey = options.publicKey ?? keyInLog(bytes);
  if (publicKey === undefined) {
    findings.push({
      kind: 'format',
      file: 'log.jsonl',
      line: 1,
      what: bytes.length === 0 ? 'is missing: the log is empty' : 'names no key',
      meaning: 'without the first record, or the key from another source, nothing can be checked',
    });
    return reportOf([], { publicKey, pinned: false, head: false, checkpoints: 0, findings, notes });
  }

  const { records, fault, tornBytes } = checkChain(bytes, publicKey);
  if (fault) findings.push({ file: 'log.jsonl', ...fault });
  const head = fault === undefined && checkEnd(traces, records, publicKey, findings, notes);
  if (fault === undefined)
    for (const copy of options.copies ?? []) checkAgainst(copy, records, publicKey, findings);
  if (tornBytes > 0 && findings.length === 0)
    notes.push(
      `after its last whole line the log has ${tornBytes} bytes of another: what a crash leaves; they are cut off when the run goes on`,
    );
  if (fault)
    notes.push('what comes after the first line that does not hold proves nothing and was not looked at');
  if (options.publicKey === undefined)
    notes.push(
      'the key was taken from the log itself: whoever can write the whole log anew can put another key there. Pass --public-key with the key that the coordinator printed, or that an invite carries',
    );

  if (records.some((record) => record.type === 'joined' && record.key === undefined))
    notes.push(
      'sites joined under protocol 1, without keys: nothing shows that their updates came from them',
    );
  for (const contradiction of checkMeaning(records, publicKey))
    findings.push({ kind: 'contradiction', file: 'log.jsonl', ...contradiction });
  const federation = checkFederation(paths, records, findings);
  const checkpoints = federation ? checkCheckpoints(paths, records, federation, findings, notes) : 0;
  return reportOf(records, {
    publicKey,
    pinned: options.publicKey !== undefined,
    head,
    checkpoints,
    findings,
    notes,
  });
}

function reportOf(
  records: readonly LogRecord[],
  rest: Omit<VerifyReport, 'ok' | 'runId' | 'records' | 'rounds' | 'signedUpdates'>,
): VerifyReport {
  const first = records.find((record) => record.type === 'run-started');
  return {
    ok: rest.findings.length === 0,
    runId: first?.runId,
    records: records.length,
    rounds: records.filter((record) => record.type === 'committed').length,
    signedUpdates: records.filter((record) => record.type === 'update-accepted' && record.offer).length,
    ...rest,
  };
}

/** What a copy can't vouch for is not held against the log, but said. */
function checkAgainst(
  { file, bytes }: { readonly file: string; readonly bytes: Uint8Array },
  records: readonly LogRecord[],
  publicKey: string,
  findings: Finding[],
): void {
  const copy = readCopy(bytes, { file, publicKey });
  findings.push(...copy.findings, ...compareCopy(records, copy.records, file));
}

/** The key that the log's first line names, whatever else is wrong with that line. */
function keyInLog(bytes: Buffer): string | undefined {
  try {
    const end = bytes.indexOf(10);
    const first: unknown = JSON.parse(bytes.toString('utf8', 0, end < 0 ? bytes.length : end));
    const key = (first as { publicKey?: unknown }).publicKey;
    return typeof key === 'string' ? key : undefined;
  } catch {
    return undefined;
  }
}

/** What lies beside a log and tells how long it must be. */
interface Traces {
  readonly head: Uint8Array | undefined;
  /** Of the newest checkpoint file; -1 when there is none. */
  readonly newestCheckpoint: number;
  /** The last round whose commit metrics.jsonl tells of; 0 when of none. */
  readonly committed: number;
}

function tracesOf(paths: RunPaths): Traces {
  return {
    head: headBytes(paths.head),
    newestCheckpoint: Math.max(-1, ...checkpointRounds(paths)),
    committed: lastCommitTold(paths.metrics),
  };
}

/** Whether lines are missing at the end: by the head, and by what lies beside the log. */
function checkEnd(
  traces: Traces,
  records: readonly LogRecord[],
  publicKey: string,
  findings: Finding[],
  notes: string[],
): boolean {
  const head = readHead(traces.head, publicKey);
  if (head !== undefined && head !== 'damaged') {
    const fault = checkHead(records, head);
    if (fault) findings.push({ file: 'log.jsonl', ...fault });
  } else if (hasHead(records) || head === 'damaged') {
    findings.push({
      kind: 'head',
      file: 'log.head',
      line: undefined,
      what: head === 'damaged' ? 'has no slot that is signed by this run' : 'is missing',
      meaning:
        'it was kept from the first record on and says where the log ends; without it, lines may be missing there',
    });
  } else {
    notes.push(
      'this run has no log.head: it began before there was one. Lines missing at the log’s very end show only by checkpoints and metrics of later rounds',
    );
  }
  const last = records.findLast((record) => record.type === 'committed')?.round ?? 0;
  // A crash between checkpoint and commit leaves one checkpoint ahead of the log, never two.
  const newest = traces.newestCheckpoint;
  if (newest > last + 1)
    findings.push({
      kind: 'missing',
      file: 'log.jsonl',
      line: records.length + 1,
      what: `is where the log ends, after the commit of round ${last}, and there is a checkpoint of round ${newest}`,
      meaning: 'the end of the log was cut off, or the checkpoint is of another run',
    });
  else if (newest === last + 1)
    notes.push(
      `there is a checkpoint of round ${newest}, which is not committed: what a crash between the two leaves; the round is played again`,
    );
  const told = traces.committed;
  if (told > last)
    findings.push({
      kind: 'missing',
      file: 'log.jsonl',
      line: records.length + 1,
      what: `is where the log ends, after the commit of round ${last}, and metrics.jsonl tells of the commit of round ${told}`,
      meaning: 'the end of the log was cut off: an event is written after its record',
    });
  return head !== undefined && head !== 'damaged';
}

function checkpointRounds(paths: RunPaths): number[] {
  if (!existsSync(paths.checkpoints)) return [];
  return readdirSync(paths.checkpoints).flatMap((name) => {
    const round = /^round-(\d+)\.safetensors$/.exec(name)?.[1];
    return round === undefined ? [] : [Number(round)];
  });
}

function lastCommitTold(metricsFile: string): number {
  if (!existsSync(metricsFile)) return 0;
  return readFileSync(metricsFile, 'utf8')
    .split('\n')
    .reduce((last, line) => {
      if (!line.includes('"committed"')) return last;
      try {
        const event = JSON.parse(line) as { type?: unknown; round?: unknown };
        return event.type === 'committed' && typeof event.round === 'number'
          ? Math.max(last, event.round)
          : last;
      } catch {
        return last;
      }
    }, 0);
}

function checkFederation(
  paths: RunPaths,
  records: readonly LogRecord[],
  findings: Finding[],
): ResolvedFederation | undefined {
  const finding = (what: string, meaning: string) =>
    findings.push({ kind: 'configuration', file: 'federation.json', line: undefined, what, meaning });
  let federation: ResolvedFederation;
  try {
    federation = JSON.parse(readFileSync(paths.federation, 'utf8')) as ResolvedFederation;
  } catch (error) {
    finding(
      `can't be read: ${error instanceof Error ? error.message : error}`,
      'what was trained can’t be told',
    );
    return undefined;
  }
  const { server: _server, invites: _invites, runDir: _runDir, digest: _digest, ...described } = federation;
  const logged = records[0]?.config;
  if (logged !== undefined && sha256(canonicalJson(described)) !== logged)
    finding(
      'is not the configuration whose digest every record holds',
      'it was changed after the run began, or is of another run',
    );
  return federation;
}

/** Compares each checkpoint that is there with the model that the log names; returns how many are right. */
function checkCheckpoints(
  paths: RunPaths,
  records: readonly LogRecord[],
  federation: ResolvedFederation,
  findings: Finding[],
  notes: string[],
): number {
  const missing: number[] = [];
  let right = 0;
  for (const [index, record] of records.entries()) {
    if (record.type !== 'committed' && record.type !== 'run-started') continue;
    const round = record.type === 'committed' ? record.round : 0;
    const path = paths.checkpoint(round);
    if (!existsSync(path)) {
      missing.push(round);
      continue;
    }
    const wrong = wrongWith(path, round, record, federation);
    if (wrong === undefined) right++;
    else
      findings.push({
        kind: 'checkpoint',
        file: path.slice(join(paths.root, '/').length),
        line: undefined,
        what: `${wrong} (line ${index + 1} of log.jsonl)`,
        meaning: 'the file was changed or damaged after it was committed, or is of another run',
      });
  }
  if (missing.length > 0)
    notes.push(
      `no checkpoint file of ${missing.length === 1 ? 'round' : 'rounds'} ${missing.join(', ')}: nothing to compare`,
    );
  return right;
}

function wrongWith(
  path: string,
  round: number,
  record: Extract<LogRecord, { type: 'committed' | 'run-started' }>,
  federation: ResolvedFederation,
): string | undefined {
  try {
    const { metadata } = decodeSafetensors(readFileSync(path));
    if (metadata['round'] !== String(round)) return `says that it is of round ${metadata['round']}`;
    if (metadata['config'] !== record.config) return 'says that it is of another configuration';
    const { frame } = globalModel(readCheckpoint(path, federation.tensors).tensors);
    const wanted = record.type === 'committed' ? record.model : record.initial;
    if (sha256(frame) !== wanted) return 'holds another model than the one that the log names';
    return undefined;
  } catch (error) {
    return `can't be read: ${error instanceof Error ? error.message : error}`;
  }
}
