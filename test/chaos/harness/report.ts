/** The words of the harness: a line a run, what a violation looks like, and the table at the end. */
import type { RunResult } from './campaign.ts';
import { describeFault } from './plan.ts';
import type { SlowLinkReport } from './slow-link.ts';

export function runLine(result: RunResult): string {
  const { plan, durationMs, faults, violations } = result;
  const mark = violations.length === 0 ? 'ok    ' : 'FAILED';
  const deeds = faults.map(({ fault, struckMs }) =>
    struckMs === undefined ? `(${describeFault(fault)})` : describeFault(fault),
  );
  return `${String(plan.run).padStart(5)}  ${mark}  ${plan.transport.padEnd(9)}  ${plan.federation.masked ? 'masked' : '      '}  ${seconds(durationMs).padStart(6)}  ${deeds.join('; ')}`;
}

/** What to know of a run that went wrong, and how to see it again. */
export function violationLines({ plan, faults, violations, tail, keptAt }: RunResult): string[] {
  const { sites, rounds, modelBytes, chunkBytes, realTrainer, strategy, masked } = plan.federation;
  return [
    '',
    `Run ${plan.run} of seed ${plan.seed}: ${violations.length === 1 ? 'a violation' : `${violations.length} violations`}`,
    ...violations.map((violation) => `  ✗ ${violation}`),
    `  federation: ${sites.join(', ')} over ${plan.transport}; ${rounds} rounds of ${strategy}${masked ? ' under masks' : ''}; ${Math.round(modelBytes / 1024)} KiB in chunks of ${chunkBytes / 1024} KiB${realTrainer ? `; ${sites[0]} with a real trainer` : ''}`,
    ...faults.map(({ fault, struckMs, healedMs }) => {
      const when =
        struckMs === undefined
          ? 'did not strike'
          : `struck at ${seconds(struckMs)}${healedMs === undefined ? '' : `, over at ${seconds(healedMs)}`}`;
      return `  fault: ${describeFault(fault)} (${when})`;
    }),
    '  last events:',
    ...tail.map((line) => `    ${line}`),
    `  files: ${keptAt}`,
    `  again: npm run chaos -- --seed ${plan.seed} --only ${plan.run}`,
    '',
  ];
}

/** Faults by kind: how many struck, in how many runs, and how many of these went well. */
export function summaryLines(results: readonly RunResult[], elapsedMs: number): string[] {
  const kinds = new Map<string, { faults: number; runs: Set<number>; good: Set<number> }>();
  let missed = 0;
  for (const { plan, faults, violations } of results) {
    for (const { fault, struckMs } of faults) {
      if (struckMs === undefined) {
        missed++;
        continue;
      }
      const key = `${fault.kind}${whose(fault.victim)}`;
      const entry = kinds.get(key) ?? { faults: 0, runs: new Set(), good: new Set() };
      kinds.set(key, entry);
      entry.faults++;
      entry.runs.add(plan.run);
      if (violations.length === 0) entry.good.add(plan.run);
    }
  }
  const failed = results.filter(({ violations }) => violations.length > 0).length;
  const total = [...kinds.values()].reduce((sum, { faults }) => sum + faults, 0);
  const restarts = results.reduce((sum, one) => sum + one.restarts, 0);
  const masked = results.filter(({ plan }) => plan.federation.masked).length;
  const title = (text: string) => text.padEnd(24);
  return [
    '',
    `  ${title('fault')}  faults  in runs  that went well`,
    ...[...kinds]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(
        ([kind, { faults, runs, good }]) =>
          `  ${title(kind)}  ${String(faults).padStart(6)}  ${String(runs.size).padStart(7)}  ${String(good.size).padStart(14)}`,
      ),
    '',
    `${count(total, 'fault')} struck${missed === 0 ? '' : ` (the moment of ${missed} more never came)`}; processes were started again ${restarts === 1 ? 'once' : `${restarts} times`}.`,
    `${count(results.length, 'run')}${byTransport(results)}, ${masked} under masks, ${failed} with a violated invariant, in ${minutes(elapsedMs)}`,
  ];
}

export function slowLinkLines(report: SlowLinkReport): string[] {
  const { violations, chunks, asked, links, transferMs, worstRoundTripMs, roundTrips } = report;
  return [
    `  the update   ${chunks} chunks over ${links} links in ${minutes(transferMs)}; ${asked - chunks} that were on the line when it was cut were sent again`,
    `  other site   ${roundTrips} heartbeats, the slowest answered in ${Math.round(worstRoundTripMs)} ms`,
    ...violations.map((violation) => `  ✗ ${violation}`),
    violations.length === 0
      ? 'It arrived; no chunk that had arrived was sent twice, and the other site never waited.'
      : `${violations.length} ${violations.length === 1 ? 'violation' : 'violations'}`,
  ];
}

/** " (12 over socketio, 8 over nats)" */
function byTransport(results: readonly RunResult[]): string {
  const counts = new Map<string, number>();
  for (const { plan } of results) counts.set(plan.transport, (counts.get(plan.transport) ?? 0) + 1);
  return ` (${[...counts].map(([name, runs]) => `${runs} over ${name}`).join(', ')})`;
}

function whose(victim: string): string {
  switch (victim) {
    case 'coordinator':
    case 'trainer':
    case 'broker':
    case 'standby':
      return `, ${victim}`;
    default:
      return ', site';
  }
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

export function minutes(ms: number): string {
  const whole = Math.round(ms / 1000);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
