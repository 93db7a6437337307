/**
 * `npm run chaos`: plays federations of real processes, does them harm at random moments that a seed decides, and
 * checks after each run that nothing was lost, counted twice or left behind. Exit code 1 when something was.
 */
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { playCampaign, type RunResult } from './harness/campaign.ts';
import { findDiskKind } from './harness/disk.ts';
import { missingForNetem } from './harness/netem.ts';
import { runLine, slowLinkLines, summaryLines, violationLines } from './harness/report.ts';
import { playSlowLink, SLOW_LINK } from './harness/slow-link.ts';
import { openStage } from './harness/stage.ts';
import { findTransports } from './harness/transports.ts';

const USAGE = `Usage: npm run chaos -- [options]
  --runs <number>    runs to play (100)
  --seed <number>    decides every federation and fault (1)
  --only <number>    plays this run of the seed alone
  --lanes <number>   runs at a time (3)
  --slow-link        instead: 100 MB over 10 Mbit/s with 200 ms, 1% loss and a cut of 3 minutes (7 minutes)
  --keep             keeps every run's files, not only those of runs that went wrong
  --json             one JSON object a run, and one at the end`;

const { runs, seed, only, lanes, slowLink, keep, json } = readArguments();
const numbers = only === undefined ? Array.from({ length: runs }, (_, i) => i + 1) : [only];
const startedAt = performance.now();
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop.abort());

const root = await mkdtemp(join(tmpdir(), 'tributary-chaos-'));
const disks = findDiskKind();
const netem = missingForNetem();
const transports = findTransports();
const say = (line: string) => {
  if (!json) process.stdout.write(`${erase()}${line}\n`);
};
if (slowLink) process.exit(await overSlowLink());
say(
  `Chaos of seed ${seed}: ${numbers.length === 1 ? `run ${numbers[0]}` : `${numbers.length} runs, ${lanes} at a time`}. Disks: ${disks.reason}. Networks: a TCP proxy${netem === undefined ? '' : ` (no netem here: ${netem})`}. Transports: ${transports.names.join(' and ')}${transports.reason === undefined ? '' : ` (${transports.reason})`}.`,
);

const stage = await openStage({ root, diskKind: disks.kind });
let results: RunResult[] = [];
let done = 0;
let failed = 0;
try {
  results = await playCampaign(stage, {
    seed,
    runs: numbers,
    transports: transports.names,
    lanes,
    keep,
    signal: stop.signal,
    onResult(result) {
      done++;
      if (result.violations.length > 0) failed++;
      if (json) process.stdout.write(`${JSON.stringify(result)}\n`);
      say(runLine(result));
      if (result.violations.length > 0) for (const line of violationLines(result)) say(line);
      progress();
    },
    onProgress: progress,
  });
} finally {
  await stage.close();
  if (results.some(({ keptAt }) => keptAt !== undefined)) rmSync(join(root, 'data'), { recursive: true });
  else await rm(root, { recursive: true, force: true });
}
const elapsedMs = performance.now() - startedAt;
if (json) {
  process.stdout.write(
    `${JSON.stringify({ type: 'summary', seed, runs: results.length, failed, elapsedMs })}\n`,
  );
} else {
  for (const line of summaryLines(results, elapsedMs)) say(line);
}
if (stop.signal.aborted) say('Interrupted: not every run was played.');
process.exit(failed > 0 ? 1 : stop.signal.aborted ? 130 : 0);

async function overSlowLink(): Promise<number> {
  const { updateBytes, bytesPerSecond, delayMs, lossRate, cutMs } = SLOW_LINK;
  say(
    `An update of ${updateBytes / 2 ** 20} MiB over ${(8 * bytesPerSecond) / 1e6} Mbit/s with ${2 * delayMs} ms there and back, ${100 * lossRate}% loss and a cut of ${cutMs / 60_000} minutes; a TCP proxy is the line.`,
  );
  const stage = await openStage({ root, diskKind: 'none' });
  try {
    const report = await playSlowLink(stage, SLOW_LINK, { limitMs: 20 * 60_000, signal: stop.signal });
    if (json) process.stdout.write(`${JSON.stringify(report)}\n`);
    else for (const line of slowLinkLines(report)) say(line);
    return report.violations.length > 0 ? 1 : 0;
  } finally {
    await stage.close();
    await rm(root, { recursive: true, force: true });
  }
}

/** On a terminal the last line says how far we are. */
function progress(): void {
  if (json || !process.stdout.isTTY) return;
  process.stdout.write(`${erase()}  ${done} of ${numbers.length} played, ${failed} with a violation …`);
}

function erase(): string {
  return process.stdout.isTTY ? '\r\u001b[K' : '';
}

function readArguments() {
  const whole = (text: string | undefined, name: string, low: number): number | undefined => {
    if (text === undefined) return undefined;
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= low && value <= 0xffff_ffff) return value;
    return refuse(`--${name} is a whole number from ${low}, not "${text}".`);
  };
  try {
    const { values } = parseArgs({
      options: {
        runs: { type: 'string' },
        seed: { type: 'string' },
        only: { type: 'string' },
        lanes: { type: 'string' },
        'slow-link': { type: 'boolean', default: false },
        keep: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
      },
    });
    return {
      runs: whole(values.runs, 'runs', 1) ?? 100,
      seed: whole(values.seed, 'seed', 0) ?? 1,
      only: whole(values.only, 'only', 1),
      lanes: whole(values.lanes, 'lanes', 1) ?? 3,
      slowLink: values['slow-link'],
      keep: values.keep,
      json: values.json,
    };
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function refuse(problem: string): never {
  console.error(`${problem}\n\n${USAGE}`);
  process.exit(2);
}
