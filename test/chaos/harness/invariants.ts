/**
 * What must hold after every run, whatever was done to it. Each rule returns what is wrong, in sentences; none is
 * right. Files are read as they lie on disk, and compared with those of the undisturbed run of the same federation.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type LogRecord, runPaths, verifyRun, verifyRunLog } from '@tributary/coordinator';
import { decodeSafetensors, encodeFrame, type RunEvent, sha256 } from '@tributary/shared-protocol';
import type { Life } from './household.ts';
import type { Outcome } from './play.ts';

/** What the undisturbed run left: per round who took part with which bytes, and the final weights. */
export interface Reference {
  /** SHA-256 of the last checkpoint. */
  readonly weights: string;
  /** What it holds, one tensor after the other. */
  readonly values: readonly number[];
  readonly updates: readonly (readonly string[])[];
  /** By round: who took part, and how many examples they had together. */
  readonly cohorts: readonly string[];
  readonly durationMs: number;
}

const LINE_FAULTS: ReadonlySet<string> = new Set(['partition', 'delay', 'slow line', 'loss']);
/** Of the 16 bits over ±1 that a masked value has by default. */
const STEP = 2 / (2 ** 16 - 2);
/** A killed broker is started again by then. */
const BROKER_BACK_MS = 1500;

type Commit = Extract<LogRecord, { type: 'committed' }>;

/** Everything that is wrong with a run. Without a reference the weights are not compared. */
export function violationsOf(outcome: Outcome, reference: Reference | undefined): string[] {
  if (outcome.hung !== undefined) return [`no end: ${outcome.hung}`, ...surprisingEnds(outcome)];
  const found = [...surprisingEnds(outcome), ...ending(outcome), ...outcome.orphans.map(orphan)];
  try {
    for (const runDir of outcome.runDirs) {
      const log = readLog(runDir);
      found.push(...rounds(outcome, log), ...checkpoints(runDir, log), ...reports(outcome, runDir, log));
      found.push(...leftovers(runDir, RUN_FILES, 'the run directory'));
      const report = verifyRun(runDir);
      found.push(...report.findings.map(({ file, what }) => `tributary verify: ${file} ${what}`));
      if (reference !== undefined) {
        const own = referenceOf(outcome, runDir);
        const { masked, rounds: count } = outcome.plan.federation;
        found.push(...(masked ? near(reference, own, count) : sameAs(reference, own)));
      }
    }
    found.push(...leftStates(outcome), ...signedSums(outcome));
  } catch (error) {
    found.push(`the run's files: ${error instanceof Error ? error.message : String(error)}`);
  }
  return found;
}

/** @param runDir that of a coordinator; by default of the first */
export function referenceOf(outcome: Outcome, runDir = outcome.runDirs[0]): Reference {
  const checkpoint = readFileSync(runPaths(runDir).checkpoint(outcome.plan.federation.rounds));
  const commits = commitsOf(readLog(runDir));
  const weights = decodeSafetensors(checkpoint).tensors.filter(isWeight);
  return {
    weights: sha256(checkpoint),
    values: weights.flatMap(({ data }) => [...(data as Float32Array)]),
    updates: commits.map(({ updates }) =>
      updates.map(({ name, digest, numExamples }) => `${name} ${digest} ${numExamples}`),
    ),
    cohorts: commits.map(
      ({ updates, numExamples }) =>
        `${updates.map(({ name }) => name).join(', ')} with ${numExamples} examples`,
    ),
    durationMs: outcome.durationMs,
  };
}

function orphan(line: string): string {
  return `a process outlived the run: ${line}`;
}

/** Ends that nobody asked for: not a kill of ours, not for want of a disk, nor of a broker to listen at. */
function surprisingEnds({ lives, faults, hung, durationMs }: Outcome): string[] {
  const ours = (life: Life) =>
    life.signal === 'SIGKILL' &&
    faults.some(
      ({ fault, hit, struckMs }) => fault.kind === 'kill' && hit === life.name && during(life, struckMs),
    );
  const diskless = (life: Life) =>
    faults.some(
      ({ fault, struckMs, healedMs }) =>
        fault.kind === 'full disk' &&
        fault.victim === life.name &&
        struckMs !== undefined &&
        struckMs <= life.endedMs &&
        (healedMs ?? Number.POSITIVE_INFINITY) >= life.startedMs,
    );
  // A coordinator that starts while the broker is away, or its line to it, says so and ends.
  const brokerless = (life: Life) =>
    isCoordinator(life.name) &&
    /^FED_(TRANSPORT_UNREACHABLE|STORE_UNAVAILABLE)/.test(life.lastError ?? '') &&
    faults.some(
      ({ fault, struckMs, healedMs = Number.POSITIVE_INFINITY }) =>
        (fault.victim === 'broker' || (fault.victim === 'coordinator' && LINE_FAULTS.has(fault.kind))) &&
        struckMs !== undefined &&
        struckMs <= life.endedMs &&
        healedMs + BROKER_BACK_MS >= life.startedMs,
    );
  // One that was frozen, or cut off, while another took over.
  const replaced = (life: Life) =>
    isCoordinator(life.name) && life.lastError?.startsWith('FED_STORE_LEASE_LOST') === true;
  return (
    lives
      .filter((life) => life.code !== 0 && life.signal !== 'SIGTERM')
      // One that hangs is ended by us.
      .filter((life) => hung === undefined || life.endedMs < durationMs)
      .filter((life) => !ours(life) && !diskless(life) && !brokerless(life) && !replaced(life))
      .map(
        ({ name, number, endedMs, code, signal, lastError, stderr }) =>
          `${name} ended by itself (life ${number}, at ${(endedMs / 1000).toFixed(1)} s, ${code ?? signal}): ${lastError ?? stderr.slice(-600)}`,
      )
  );
}

function isCoordinator(name: string): boolean {
  return name === 'coordinator' || name === 'standby';
}

function during(life: Life, ms: number | undefined): boolean {
  return ms !== undefined && life.startedMs <= ms && ms <= life.endedMs;
}

/** The run came to its goal; every site that heard a goodbye heard that. */
function ending({ events, plan }: Outcome): string[] {
  const summary = events.findLast(
    ({ name, event }) => isCoordinator(name) && event.type === 'summary',
  )?.event;
  if (summary === undefined) return ['the coordinator never told how the run ended'];
  const found: string[] = [];
  if (summary['reason'] !== 'rounds' || summary['rounds'] !== plan.federation.rounds) {
    found.push(
      `the run ended as "${summary['reason']}" after round ${summary['rounds']}: ${summary['message']}`,
    );
  }
  for (const { name, event } of events) {
    if (event.type === 'finished' && event['ended'] === 'goodbye' && event['code'] !== 'rounds') {
      found.push(`${name} was sent away with "${event['code']}": ${event['reason']}`);
    }
  }
  return found;
}

/** The log verifies by the key it began with, and holds every round once, in order, with every site once. */
function readLog(runDir: string): LogRecord[] {
  const { log } = runPaths(runDir);
  const first = JSON.parse(readFileSync(log, 'utf8').split('\n', 1)[0] ?? '{}') as Partial<{
    publicKey: string;
  }>;
  return verifyRunLog(log, first.publicKey ?? '');
}

function commitsOf(log: readonly LogRecord[]): Commit[] {
  return log.filter((record) => record.type === 'committed');
}

function rounds({ plan }: Outcome, log: readonly LogRecord[]): string[] {
  const { rounds: count, sites, masked } = plan.federation;
  const found: string[] = [];
  const commits = commitsOf(log);
  const numbers = commits.map(({ round }) => round).join();
  const wanted = Array.from({ length: count }, (_, i) => i + 1).join();
  if (numbers !== wanted) found.push(`the log has the commits of rounds ${numbers}, not ${wanted}`);
  for (const { round, updates, numExamples } of commits) {
    const names = updates.map(({ name }) => name).join();
    if (names !== [...sites].sort().join()) found.push(`round ${round} was made of the updates of ${names}`);
    const sum = updates.reduce((n, update) => n + (update.numExamples ?? 0), 0);
    if (!masked && sum !== numExamples)
      found.push(`round ${round} says ${numExamples} examples, its updates have ${sum}`);
    const accepted = log.flatMap((r) => (r.type === 'update-accepted' && r.round === round ? [r] : []));
    for (const { name, digest } of updates) {
      if (!accepted.some((one) => one.name === name && one.digest === digest)) {
        found.push(`round ${round} counts an update of ${name} that was never accepted`);
      }
    }
  }
  for (const { name } of members(log)) {
    const times = members(log).filter((one) => one.name === name).length;
    if (times > 1) found.push(`${name} joined ${times} times as a new site`);
  }
  return found;
}

function members(log: readonly LogRecord[]) {
  return log.filter((record) => record.type === 'joined');
}

/** Every committed model is still there, and is the one that the log names. */
function checkpoints(runDir: string, log: readonly LogRecord[]): string[] {
  const found: string[] = [];
  const paths = runPaths(runDir);
  for (const { round, model } of commitsOf(log)) {
    const { tensors } = decodeSafetensors(readFileSync(paths.checkpoint(round)));
    const weights = tensors.filter(isWeight);
    const digest = sha256(encodeFrame(inOrder(weights, paths.federation)));
    if (digest !== model) {
      found.push(
        `the checkpoint of round ${round} holds model ${digest.slice(0, 12)}, not ${model.slice(0, 12)}`,
      );
    }
  }
  return found;
}

function isWeight({ name }: { readonly name: string }): boolean {
  return !name.startsWith('//strategy/');
}

function inOrder<T extends { readonly name: string }>(tensors: readonly T[], federationFile: string): T[] {
  const { tensors: shapes } = JSON.parse(readFileSync(federationFile, 'utf8')) as {
    tensors: readonly { readonly name: string }[];
  };
  return shapes.map(({ name }) => {
    const tensor = tensors.find((one) => one.name === name);
    if (tensor === undefined) throw new Error(`a checkpoint lacks ${name}`);
    return tensor;
  });
}

/** No round is reported as committed twice: neither to who listened, nor in metrics.jsonl. */
function reports({ events }: Outcome, runDir: string, log: readonly LogRecord[]): string[] {
  const found: string[] = [];
  const said = events.flatMap(({ name, event }) =>
    isCoordinator(name) ? [event as unknown as RunEvent] : [],
  );
  const written = readFileSync(runPaths(runDir).metrics, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as RunEvent);
  for (const [where, list] of [
    ['events', said],
    ['metrics.jsonl', written],
  ] as const) {
    const seen = new Map<number, number>();
    for (const event of list) {
      if (event.type !== 'committed') continue;
      seen.set(event.round, (seen.get(event.round) ?? 0) + 1);
      const { model } = commitsOf(log).find(({ round }) => round === event.round) ?? {};
      if (event.digest !== model) found.push(`${where}: round ${event.round} is told with another model`);
    }
    for (const [round, times] of seen) {
      if (times > 1) found.push(`${where}: round ${round} is told as committed ${times} times`);
    }
  }
  return found;
}

/** Files that docs/architecture.md names, and no others. */
const RUN_FILES =
  /^(federation\.json|log\.(jsonl|key|head)|admin\.key|metrics\.jsonl|checkpoints\/round-\d{4}\.safetensors)$/;
const STATE_FILES =
  /^(credential\.json|federation\.json|node\.key|records\.jsonl|peers\.json|signed-sums\.jsonl|lock\.\d+|models\/[0-9a-f]{64}\.frame|spool\/(train|evaluate)-\d{6}-[0-9a-f]{64}\.(json|update)|work\/[^/]+\.json)$/;

function leftovers(folder: string, named: RegExp, what: string): string[] {
  return filesIn(folder)
    .filter((file) => !named.test(file))
    .map((file) => `${what} still has ${file}`);
}

function leftStates({ stateDirs }: Outcome): string[] {
  const found: string[] = [];
  for (const [site, folder] of Object.entries(stateDirs)) {
    const files = filesIn(folder);
    found.push(...leftovers(folder, STATE_FILES, `the state folder of ${site}`));
    const locks = files.filter((file) => file.startsWith('lock.'));
    if (locks.length > 1) found.push(`the state folder of ${site} has ${locks.length} locks`);
    const models = files.filter((file) => file.startsWith('models/'));
    if (models.length > 2) found.push(`the state folder of ${site} has ${models.length} models`);
  }
  return found;
}

/** Of each update a site has signed one sum at most, however often that was tried; enough others may have signed without it. */
function signedSums({ plan, stateDirs }: Outcome): string[] {
  if (!plan.federation.masked) return [];
  return Object.entries(stateDirs).flatMap(([site, folder]) => {
    const file = join(folder, 'signed-sums.jsonl');
    const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : [];
    const signed = lines
      .filter((line) => line.endsWith('}'))
      .map((line) => (JSON.parse(line) as { round: number }).round);
    return new Set(signed).size === signed.length
      ? []
      : [`${site} has signed sums of rounds ${signed.join()}`];
  });
}

function filesIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}

function sameAs(reference: Reference, own: Reference): string[] {
  const found: string[] = [];
  for (const [i, updates] of reference.updates.entries()) {
    if (updates.join() !== own.updates[i]?.join()) found.push(`round ${i + 1} was made of other updates`);
  }
  if (own.weights !== reference.weights) {
    found.push(
      `the final weights are ${own.weights.slice(0, 12)}, those of the undisturbed run ${reference.weights.slice(0, 12)}`,
    );
  }
  return found;
}

/** Each value of a sum is rounded to a step at each site, which a round can't make more of. */
function near(reference: Reference, own: Reference, count: number): string[] {
  const found: string[] = [];
  for (const [i, cohort] of reference.cohorts.entries())
    if (cohort !== own.cohorts[i])
      found.push(`round ${i + 1} was made of ${own.cohorts[i]}, not of ${cohort}`);
  const off = own.values.reduce(
    (most, value, i) => Math.max(most, Math.abs(value - reference.values[i]!)),
    0,
  );
  if (own.values.length !== reference.values.length || !(off < count * STEP))
    found.push(`a final weight is ${off} off, in ${count} rounds of steps of ${STEP}`);
  return found;
}
