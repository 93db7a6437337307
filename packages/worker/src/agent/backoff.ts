/**
 * Waiting between dials: exponential back-off with full jitter (Brooker, "Exponential Backoff and Jitter", 2015), so
 * that a hundred sites that lost the same coordinator don't all come back in the same instant.
 */

export interface BackoffOptions {
  /** The first wait is at most this. @default 500 millis */
  readonly baseMs?: number;
  /** No wait is longer than this. @default 30_000 millis */
  readonly capMs?: number;
  /** A number in [0, 1). @default Math.random */
  readonly random?: () => number;
}

export interface Backoff {
  /** Dials since the last success, from 0. */
  readonly attempt: number;
  /** Counts one failed dial and returns the millis to wait before the next: uniform in [0, min(capMs, baseMs·2^attempt)). */
  next(): number;
  /** Called once a dial has led somewhere; the next wait is short again. */
  reset(): void;
}

/** Returns a fresh back-off: no attempt made yet. */
export function createBackoff(options: BackoffOptions = {}): Backoff {
  const { baseMs = 500, capMs = 30_000, random = Math.random } = options;
  let attempt = 0;
  return {
    get attempt() {
      return attempt;
    },
    next() {
      const ceiling = Math.min(capMs, baseMs * 2 ** attempt);
      attempt++;
      return Math.floor(random() * ceiling);
    },
    reset() {
      attempt = 0;
    },
  };
}
