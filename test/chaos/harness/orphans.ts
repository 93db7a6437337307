/** Processes that outlived their run: found by the mark in their environment, which children inherit. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const LOOK_MS = 50;

/**
 * The command lines of processes with `mark` in TRIBUTARY_CHAOS_RUN that are still there after `patienceMs`; `end`
 * kills them. Where the system shows no environments (/proc), none are found.
 */
export async function orphansOf(
  mark: string,
  patienceMs: number,
  { end = false } = {},
): Promise<readonly string[]> {
  const until = performance.now() + patienceMs;
  for (;;) {
    const pids = marked(mark);
    if (pids.length === 0) return [];
    if (performance.now() >= until) {
      const lines = pids.map((pid) => `${pid}: ${commandLine(pid)}`);
      if (end) for (const pid of pids) process.kill(pid, 'SIGKILL');
      return lines;
    }
    await pause(LOOK_MS);
  }
}

function marked(mark: string): number[] {
  const wanted = `TRIBUTARY_CHAOS_RUN=${mark}`;
  return entries('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && pid !== process.pid)
    .filter((pid) => read(`/proc/${pid}/environ`).split('\0').includes(wanted));
}

function commandLine(pid: number): string {
  return read(`/proc/${pid}/cmdline`).split('\0').join(' ').slice(0, 200);
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    // It ended while we looked, or is not ours to look at.
    return '';
  }
}
