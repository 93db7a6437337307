/** Reading run directories: finding one by path or name, its federation, its commits and the model of any round. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import {
  type LogEntry,
  type ResolvedFederation,
  type RunPaths,
  type RunState,
  readCheckpoint,
  replay,
  runPaths,
} from '@tributary/coordinator';
import type { RunEvent, Tensor } from '@tributary/shared-protocol';
import { CliError } from './errors.ts';

export interface Run {
  readonly dir: string;
  readonly paths: RunPaths;
  readonly federation: ResolvedFederation;
  readonly state: RunState;
}

/**
 * The run named by `argument`: a run directory, a name under `runs/`, or when absent the newest run in `runs/`.
 * Throws FED_CLI_RUN_NOT_FOUND.
 */
export function openRun(cwd: string, argument: string | undefined): Run {
  const dir = findRun(cwd, argument);
  const paths = runPaths(dir);
  try {
    const federation = JSON.parse(readFileSync(paths.federation, 'utf8')) as ResolvedFederation;
    return { dir, paths, federation, state: replay(readEntries(paths.log)) };
  } catch (error) {
    throw new CliError(
      'FED_CLI_RUN_NOT_FOUND',
      `${dir} can't be read as a run: ${(error as Error).message}`,
      { cause: error },
    );
  }
}

/** Whether `path` is a run directory. */
export function isRun(path: string): boolean {
  return existsSync(runPaths(path).federation);
}

export function findRun(cwd: string, argument: string | undefined): string {
  if (argument !== undefined) {
    for (const path of [resolve(cwd, argument), resolve(cwd, 'runs', argument)]) if (isRun(path)) return path;
    throw new CliError(
      'FED_CLI_RUN_NOT_FOUND',
      `There is no run at ${resolve(cwd, argument)}, nor one of that name in runs/.`,
      {
        todo: 'Give a run directory: the folder that holds federation.json and log.jsonl.',
      },
    );
  }
  const runs = resolve(cwd, 'runs');
  const found = existsSync(runs)
    ? readdirSync(runs)
        .map((name) => join(runs, name))
        .filter(isRun)
    : [];
  const newest = found.sort((a, b) => changedAt(b) - changedAt(a))[0];
  if (newest !== undefined) return newest;
  throw new CliError('FED_CLI_RUN_NOT_FOUND', `There is no run in ${runs}.`, {
    todo: 'Give the run directory, or start a run: tributary coordinator',
  });
}

/** The weights after a round: 'best', 'last', or its number (0 is the initial model). */
export function weightsOf(
  run: Run,
  which: 'best' | 'last' | number,
): { round: number; tensors: readonly Tensor[] } {
  const last = run.state.commits.at(-1)?.round ?? 0;
  const round =
    which === 'last'
      ? last
      : which === 'best'
        ? (run.state.commits.findLast((c) => c.best)?.round ?? last)
        : which;
  const path = run.paths.checkpoint(round);
  if (!existsSync(path)) {
    const there = readdirSync(run.paths.checkpoints)
      .filter((name) => name.endsWith('.safetensors'))
      .map((name) => Number(/\d+/.exec(name)?.[0]));
    throw new CliError('FED_CLI_RUN_NOT_FOUND', `There is no checkpoint of round ${round} in ${run.dir}.`, {
      where: '--round',
      todo:
        there.length === 0
          ? 'No round is committed yet.'
          : `There are checkpoints of ${there.sort((a, b) => a - b).join(', ')}.`,
    });
  }
  return { round, tensors: readCheckpoint(path, run.federation.tensors).tensors };
}

/** The events that metrics.jsonl kept; an unfinished last line is left out. */
export function readEvents(run: Pick<Run, 'paths'>): RunEvent[] {
  return readLines(run.paths.metrics) as RunEvent[];
}

function readEntries(path: string): LogEntry[] {
  return readLines(path) as LogEntry[];
}

function readLines(path: string): unknown[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean);
  return lines.flatMap((line, i) => {
    try {
      return [JSON.parse(line) as unknown];
    } catch (error) {
      if (i === lines.length - 1) return [];
      throw error;
    }
  });
}

function changedAt(dir: string): number {
  const { log, federation } = runPaths(dir);
  return statSync(existsSync(log) ? log : federation).mtimeMs;
}
