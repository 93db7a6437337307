/**
 * Asking a server that may be away for a moment: one that is started again, or a cluster that has lost a server and has
 * to agree on who keeps what. Everything that is asked this way may be asked twice.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { JetStreamApiError } from '@nats-io/jetstream';
import { CoordinatorError } from '../errors.ts';

const RETRY_MS = 500;
/** Longer than a cluster takes to choose a new leader for each of its streams. */
const PATIENCE_MS = 60_000;

/** The answer; rejects with the signal's reason, what can't get better by asking again, or FED_STORE_UNAVAILABLE. */
export async function patiently<T>(ask: () => Promise<T>, signal: AbortSignal): Promise<T> {
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await ask();
    } catch (error) {
      if (!isPassing(error)) throw error;
      if (performance.now() > until) throw unavailable(error as Error);
    }
    await pause(RETRY_MS);
  }
}

/** Resolves after so many millis, or at once when the signal is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return delay(ms, undefined, { signal }).catch(() => undefined);
}

const PASSING: ReadonlySet<string> = new Set([
  'TimeoutError',
  'RequestError',
  'NoRespondersError',
  'ConnectionError',
  'JetStreamError',
  'JetStreamStatusError',
]);

/** Whether asking again may help. */
export function isPassing(error: unknown): boolean {
  if (error instanceof JetStreamApiError) return error.status >= 500;
  return error instanceof Error && (PASSING.has(error.name) || /timeout|no responders/i.test(error.message));
}

function unavailable(cause: Error): CoordinatorError {
  return new CoordinatorError(
    'FED_STORE_UNAVAILABLE',
    `the NATS server has not answered for the run's store in ${PATIENCE_MS / 1000} s (${cause.message}); look at its log: its disk may be full, or too few servers of the cluster are there. The same command goes on`,
    { cause },
  );
}
