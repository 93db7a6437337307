/** What a subject reports: each case once, with how far it is from the oracle and how far it may be. */

/** Runs all cases of one parsed oracle file; `text` is the file as written. Throws when the file is not of its form. */
export type Subject = (oracle: Record<string, unknown>, score: Score, text: string) => Promise<void> | void;

export class Score {
  cases = 0;
  /** Largest absolute error of all numbers compared. */
  worst = 0;
  readonly misses: string[] = [];
  /** Cases of what is not built yet: not run, and so neither passed nor failed. */
  readonly skipped: string[] = [];

  /**
   * Counts one case of numbers, or lists of them. A number passes within `tolerance`, absolute for expected values up to
   * 255 and in that proportion above (a ZCA matrix may hold thousands); with 0 it must be equal.
   */
  numbers(name: string, actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
    this.cases++;
    if (actual.length !== expected.length) {
      this.misses.push(`${name}: ${actual.length} values where ${expected.length} were expected`);
      return;
    }
    let worstAt = -1;
    let worst = 0;
    let missed = false;
    for (let i = 0; i < expected.length; i++) {
      const error = Math.abs(actual[i]! - expected[i]!);
      if (!(error <= tolerance * Math.max(1, Math.abs(expected[i]!) / 255))) missed = true;
      if (Number.isNaN(error) || error > worst)
        [worst, worstAt] = [Number.isNaN(error) ? Infinity : error, i];
    }
    this.worst = Math.max(this.worst, worst);
    if (!missed) return;
    this.misses.push(`${name}: value ${worstAt} is ${actual[worstAt]}, expected ${expected[worstAt]}`);
  }

  /** Counts one case of a number that must lie from `least` to `most`; `expected` is what its error is measured from. */
  between(name: string, actual: number, expected: number, least: number, most: number): void {
    this.cases++;
    const error = Math.abs(actual - expected);
    this.worst = Math.max(this.worst, Number.isNaN(error) ? Infinity : error);
    if (actual >= least && actual <= most) return;
    this.misses.push(`${name}: got ${actual}, expected ${expected} (${least} to ${most})`);
  }

  /** Counts one case of anything that must be the same as JSON. */
  same(name: string, actual: unknown, expected: unknown): void {
    this.cases++;
    const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
    if (a !== e) this.misses.push(`${name}: got ${shorten(a)}, expected ${shorten(e)}`);
  }

  /** Names a case that can't be run because what it is about is not built yet. */
  skip(name: string): void {
    this.skipped.push(name);
  }

  /** Counts one case that could not be computed. */
  error(name: string, error: unknown): void {
    this.cases++;
    this.misses.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function shorten(text: string | undefined): string {
  const shown = text ?? 'nothing';
  return shown.length > 160 ? `${shown.slice(0, 160)}…` : shown;
}
