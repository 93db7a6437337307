/** metrics.jsonl: the run's events, one a line, for plots and the dashboard. It is a view of the run, never its record. */
import { appendFileSync, existsSync, readFileSync, truncateSync } from 'node:fs';
import type { RunEvent } from '@tributary/shared-protocol';
import { isStorageError, storageError } from './atomic-file.ts';

/** Events that would only fill the file, or hold a secret. */
const LEFT_OUT: ReadonlySet<RunEvent['type']> = new Set<RunEvent['type']>(['progress', 'invite']);

export interface MetricsFile {
  /** Appends an event; never throws for want of room. */
  write(event: RunEvent): void;
}

/**
 * Opens the file; a torn last line of an earlier process is cut off first. A view must not stop the run: while the disk
 * refuses, events are left out, and `onTrouble` is told when that begins and when it is over. It must not throw.
 */
export function openMetricsFile(path: string, onTrouble: (message: string) => void): MetricsFile {
  let size = 0;
  let missed = 0;
  if (existsSync(path)) {
    const bytes = readFileSync(path);
    size = bytes.lastIndexOf(10) + 1;
    if (size < bytes.length) truncateSync(path, size);
  }
  return {
    write(event) {
      if (LEFT_OUT.has(event.type)) return;
      const line = `${JSON.stringify(event)}\n`;
      try {
        appendFileSync(path, line);
        size += Buffer.byteLength(line);
      } catch (error) {
        if (!isStorageError(error)) throw error;
        // What was written of the line.
        if (existsSync(path)) truncateSync(path, size);
        missed++;
        if (missed === 1)
          onTrouble(`${storageError(path, error).message}. Events are left out of it meanwhile`);
        return;
      }
      if (missed === 0) return;
      const message = `${path} can be written again; ${missed} events are not in it`;
      missed = 0;
      onTrouble(message);
    },
  };
}
