/**
 * Work that meets a full disk waits for room instead of failing: what was trained for an hour is worth some minutes,
 * and the coordinator has a deadline of its own. Whoever can make room is told once, and when it goes on.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { WorkerError } from '../errors.ts';
import { isNoRoom } from './atomic-file.ts';

export interface RoomOptions {
  /** What the room is for, as in "the update of round 3". */
  readonly what: string;
  /** Told when the wait begins and when it is over. */
  readonly onLog: (message: string) => void;
  /** Rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** @default 1000 millis */
  readonly retryMs?: number;
  /** How long there may be no room. @default 5 minutes in millis */
  readonly patienceMs?: number;
}

/**
 * Returns what `work` returns, repeating it for as long as it fails for want of room. `work` must be repeatable.
 *
 * @throws WorkerError FED_WORKER_STORAGE when its patience is at an end; any other error of `work` at once
 */
export async function withRoom<T>(work: () => Promise<T>, options: RoomOptions): Promise<T> {
  const { what, onLog, signal, retryMs = 1000, patienceMs = 5 * 60 * 1000 } = options;
  const startedAt = performance.now();
  let waiting = false;
  for (;;) {
    try {
      const result = await work();
      if (waiting) onLog(`There is room again for ${what}.`);
      return result;
    } catch (error) {
      if (!isNoRoom(error)) throw error;
      const cause = (error as Error).message;
      if (performance.now() - startedAt >= patienceMs) {
        throw new WorkerError(
          'FED_WORKER_STORAGE',
          `there was no room on this disk for ${what} for ${Math.round(patienceMs / 1000)} s (${cause}); free some, or name another folder (TRIBUTARY_HOME)`,
          { cause: error },
        );
      }
      if (!waiting) {
        onLog(
          `No room on this disk for ${what} (${cause}): free some. Trying again for ${Math.round(patienceMs / 1000)} s.`,
        );
      }
      waiting = true;
      await pause(retryMs, undefined, signal === undefined ? {} : { signal }).catch(
        (interrupted: unknown) => {
          throw signal?.aborted ? (signal.reason as Error) : interrupted;
        },
      );
    }
  }
}
