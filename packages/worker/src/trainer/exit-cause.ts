/**
 * Why a trainer ended. SIGKILL says no more than that someone sent it, and it may have been the kernel, for want of
 * memory. The kernel counts whom it kills so: for each control group (memory.events in version 2, memory.oom_control in
 * version 1) and for the whole system (/proc/vmstat). A trainer lives in the control group of the agent that started it.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { WorkerError } from '../errors.ts';
import type { TrainerExit } from './handle.ts';

/** How many processes the kernel has killed for want of memory so far; undefined where it does not say. */
export interface OomKills {
  readonly ofGroup: number | undefined;
  readonly ofSystem: number | undefined;
}

/** Reads a small file, or throws. */
export type ReadText = (path: string) => string;

const readText: ReadText = (path) => readFileSync(path, 'utf8');
const GROUPS = '/sys/fs/cgroup';

/** Returns the kernel's counters for the control group of this process. Never throws. */
export function readOomKills(read: ReadText = readText): OomKills {
  return {
    ofGroup: first(groupFiles(read), read),
    ofSystem: first(['/proc/vmstat'], read),
  };
}

/** Where this process's group is counted, the likeliest first; in a container its path may begin elsewhere. */
function groupFiles(read: ReadText): string[] {
  let lines: string[];
  try {
    lines = read('/proc/self/cgroup').split('\n');
  } catch {
    return [];
  }
  const files: string[] = [];
  for (const line of lines) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    if (controllers!.split(',').includes('memory')) {
      // Version 1 takes precedence: where it has the memory controller, version 2 does not count.
      files.unshift(
        join(GROUPS, 'memory', path, 'memory.oom_control'),
        join(GROUPS, 'memory', 'memory.oom_control'),
      );
    } else if (controllers === '') {
      files.push(join(GROUPS, path, 'memory.events'), join(GROUPS, 'memory.events'));
    }
  }
  return files;
}

function first(files: readonly string[], read: ReadText): number | undefined {
  for (const file of files) {
    try {
      const count = /^oom_kill (\d+)$/m.exec(read(file))?.[1];
      if (count !== undefined) return Number(count);
    } catch {
      // Not there, or not for us: the next may be.
    }
  }
  return undefined;
}

/**
 * Returns the error of a trainer that ended during `what`: FED_TRAINER_OUT_OF_MEMORY when the kernel killed it for
 * want of memory, or its own JavaScript heap was full; FED_TRAINER_CRASHED otherwise.
 * @param before the kernel's counters when the work began
 */
export function crashOf(
  what: string,
  exit: TrainerExit,
  lastWords: readonly string[],
  before: OomKills,
  after: OomKills,
): WorkerError {
  const words = lastWords.length === 0 ? 'It left no words.' : `Its last words:\n${lastWords.join('\n')}`;
  if (exit.signal === 'SIGKILL') {
    const kernel = byKernel(before, after);
    if (kernel === 'yes') {
      return new WorkerError(
        'FED_TRAINER_OUT_OF_MEMORY',
        `The kernel killed the trainer process for want of memory (SIGKILL) during ${what}. ${ADVICE} ${words}`,
      );
    }
    const who =
      kernel === 'no'
        ? 'It was killed from outside; the kernel did not run out of memory.'
        : 'Whether it was killed from outside or for want of memory, this system does not say.';
    return crashed(`by SIGKILL during ${what}. ${who} ${words}`);
  }
  if (lastWords.some((line) => /heap out of memory|Allocation failed - /.test(line))) {
    return new WorkerError(
      'FED_TRAINER_OUT_OF_MEMORY',
      `The trainer process ran out of memory of its own (JavaScript heap) during ${what}. ${ADVICE} ${words}`,
    );
  }
  const how = exit.signal === null ? `with exit code ${exit.code}` : `by ${exit.signal}`;
  return crashed(`${how} during ${what}. ${words}`);
}

const ADVICE =
  'Choose a smaller batch or smaller images, keep fewer decoded images (--image-cache), or give the site more memory.';

function crashed(rest: string): WorkerError {
  return new WorkerError('FED_TRAINER_CRASHED', `The trainer process ended ${rest}`);
}

/** The group's own counter decides; the system's, which counts the processes of others too, only where there is none. */
function byKernel(before: OomKills, after: OomKills): 'yes' | 'no' | 'unknown' {
  const rose = (a: number | undefined, b: number | undefined) =>
    a === undefined || b === undefined ? undefined : b > a;
  const risen = rose(before.ofGroup, after.ofGroup) ?? rose(before.ofSystem, after.ofSystem);
  return risen === undefined ? 'unknown' : risen ? 'yes' : 'no';
}
