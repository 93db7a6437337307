/** Means of the sites' numbers, and how a run compares them. */

interface Weighted {
  readonly name: string;
  readonly numExamples: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/**
 * Each metric's mean over the sites that report it, weighted by their examples. Sites are taken in the order of their
 * names, so that the sum has the same bits whatever the order of arrival. Sites without examples count for nothing.
 */
export function weightedMetrics(results: readonly Weighted[]): Record<string, number> {
  const sorted = results.filter((r) => r.numExamples > 0).sort((a, b) => (a.name < b.name ? -1 : 1));
  const keys = [...new Set(sorted.flatMap((r) => Object.keys(r.metrics)))].sort();
  return Object.fromEntries(
    keys.map((key) => {
      const reporting = sorted.filter((r) => r.metrics[key] !== undefined);
      const examples = reporting.reduce((n, r) => n + r.numExamples, 0);
      return [key, reporting.reduce((sum, r) => sum + r.numExamples * r.metrics[key]!, 0) / examples];
    }),
  );
}

/** Whether `value` beats `best` by more than `minDelta`; anything beats undefined, NaN beats nothing. */
export function improves(
  value: number | undefined,
  best: number | undefined,
  mode: 'min' | 'max',
  minDelta = 0,
): boolean {
  if (value === undefined || Number.isNaN(value)) return false;
  if (best === undefined) return true;
  return mode === 'min' ? value < best - minDelta : value > best + minDelta;
}
