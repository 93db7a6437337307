/**
 * Many runs, a few at a time. The undisturbed run of each federation is played once, when the first run needs it;
 * what it leaves is what every other run of that federation must leave.
 */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Reference, referenceOf, violationsOf } from './invariants.ts';
import { planRun, type RunPlan } from './plan.ts';
import { type FaultRecord, type Outcome, playRun } from './play.ts';
import type { Stage } from './stage.ts';
import type { TransportName } from './transports.ts';

export interface RunResult {
  readonly plan: RunPlan;
  readonly durationMs: number;
  readonly faults: readonly FaultRecord[];
  /** Lives of all processes beyond the first ones. */
  readonly restarts: number;
  readonly violations: readonly string[];
  /** The last events before the end, for a run with violations. */
  readonly tail: readonly string[];
  /** Where its files are; undefined when they were removed. */
  readonly keptAt: string | undefined;
}

export interface CampaignOptions {
  readonly seed: number;
  /** Numbers, from 1. */
  readonly runs: readonly number[];
  /** Each run is over one of these. */
  readonly transports: readonly TransportName[];
  readonly lanes: number;
  /** Keeps the files of runs without violations, too. */
  readonly keep: boolean;
  readonly signal?: AbortSignal;
  onResult?(result: RunResult): void;
  onProgress?(underWay: number): void;
}

const TAIL_EVENTS = 40;
/** The number that an undisturbed run has in folder names: none that a run can have. */
const REFERENCE_RUNS = 100_000;

/** Plays all runs; results are in the order of `runs`. Runs not begun when `signal` is aborted are missing. */
export async function playCampaign(stage: Stage, options: CampaignOptions): Promise<RunResult[]> {
  const { seed, runs, transports, lanes, signal, onResult, onProgress } = options;
  const references = new Map<number, Promise<Reference>>();
  const results = new Map<number, RunResult>();
  const left = [...runs];
  let underWay = 0;

  function undisturbed(plan: RunPlan): Promise<Reference> {
    const { id } = plan.federation;
    const known =
      references.get(id) ??
      // The weights do not depend on what carries them, nor on masks.
      playUndisturbed({
        ...plan,
        federation: { ...plan.federation, masked: false },
        run: REFERENCE_RUNS + id,
        transport: 'socketio',
        faults: [],
      });
    references.set(id, known);
    return known;
  }

  async function playUndisturbed(plan: RunPlan): Promise<Reference> {
    const outcome = await playRun(plan, stage, options);
    try {
      const wrong = violationsOf(outcome, undefined);
      if (wrong.length > 0) throw new Error(`the undisturbed run is not sound: ${wrong.join('; ')}`);
      return referenceOf(outcome);
    } finally {
      await tidy(outcome, false);
    }
  }

  async function playOne(run: number): Promise<RunResult> {
    const plan = planRun(seed, run, transports);
    const reference = await undisturbed(plan);
    const outcome = await playRun(plan, stage, options);
    const violations = violationsOf(outcome, reference);
    const keep = options.keep || violations.length > 0;
    if (keep) await writeReport(outcome, violations);
    await tidy(outcome, keep);
    const { durationMs, faults, lives, folder } = outcome;
    return {
      plan,
      durationMs,
      faults,
      restarts: lives.length - new Set(lives.map(({ name }) => name)).size,
      violations,
      tail: violations.length > 0 ? outcome.events.filter(isTelling).slice(-TAIL_EVENTS).map(inALine) : [],
      keptAt: keep ? folder : undefined,
    };
  }

  async function lane(): Promise<void> {
    for (;;) {
      const run = left.shift();
      if (run === undefined || signal?.aborted) return;
      onProgress?.(++underWay);
      try {
        const result = await playOne(run);
        // What an interruption broke off is no result.
        if (signal?.aborted) return;
        results.set(run, result);
        onResult?.(result);
      } finally {
        onProgress?.(--underWay);
      }
    }
  }

  await Promise.all(Array.from({ length: Math.min(lanes, runs.length) }, lane));
  return runs.flatMap((run) => results.get(run) ?? []);
}

async function tidy(outcome: Outcome, keep: boolean): Promise<void> {
  outcome.dispose({ keep });
  if (!keep) await rm(outcome.folder, { recursive: true, force: true });
}

/** All that is known of a run, beside its files. */
async function writeReport(outcome: Outcome, violations: readonly string[]): Promise<void> {
  const { plan, durationMs, faults, lives, hung, orphans, events } = outcome;
  const report = { violations, plan, durationMs, faults, lives, hung, orphans };
  await writeFile(join(outcome.folder, 'report.json'), `${JSON.stringify(report, undefined, 2)}\n`);
  await writeFile(join(outcome.folder, 'events.txt'), events.map((one) => `${inALine(one)}\n`).join(''));
}

/** All but the many that say how far something is. */
function isTelling({ event }: Outcome['events'][number]): boolean {
  return !['progress', 'fetching', 'sending', 'training', 'evaluating', 'preflight'].includes(event.type);
}

function inALine({ ms, name, event }: Outcome['events'][number]): string {
  return `${(ms / 1000).toFixed(3).padStart(8)}  ${name.padEnd(11)}  ${JSON.stringify(event).slice(0, 300)}`;
}
