/** metrics.jsonl: the run's events, one a line, for plots and the dashboard. It is a view of the run, never its record. */
import { appendFileSync, existsSync, readFileSync, truncateSync } from 'node:fs';
import type { RunEvent } from '@tributary/shared-protocol';

/** Events that would only fill the file, or hold a secret. */
const LEFT_OUT: ReadonlySet<RunEvent['type']> = new Set<RunEvent['type']>(['progress', 'invite']);

/** Returns the function that appends an event; a torn last line of an earlier process is cut off first. */
export function openMetricsFile(path: string): (event: RunEvent) => void {
  if (existsSync(path)) {
    const bytes = readFileSync(path);
    const end = bytes.lastIndexOf(10) + 1;
    if (end < bytes.length) truncateSync(path, end);
  }
  return (event) => {
    if (!LEFT_OUT.has(event.type)) appendFileSync(path, `${JSON.stringify(event)}\n`);
  };
}
