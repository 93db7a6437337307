/** The demo's tables: who holds which digits, and what the model takes for what. */
import type { Colours } from '../context.ts';
import { formatCount, formatMetric } from '../terminal/numbers.ts';
import { createTable } from '../terminal/table.ts';

/** One row a site, one column a digit. Cells that hold little are dim: that is where the other sites must help. */
export function holdingsTable(
  trainCounts: Readonly<Record<string, readonly number[]>>,
  colours: Colours,
): string[] {
  const sites = Object.keys(trainCounts);
  const digits = [...(trainCounts[sites[0]!] ?? []).keys()];
  const table = createTable([
    { title: 'site', width: Math.max(...sites.map((site) => site.length)), align: 'left' },
    { title: 'images', width: 6 },
    ...digits.map((digit) => ({ title: `${digit}`, width: 4 })),
  ]);
  const rows = sites.map((site) => {
    const counts = trainCounts[site]!;
    const total = counts.reduce((a, b) => a + b, 0);
    const cell = (count: number) =>
      count < 60 ? colours.dim(String(count)) : count > 400 ? colours.bold(String(count)) : String(count);
    return table.row([site, formatCount(total), ...counts.map(cell)]);
  });
  return [colours.dim(table.header), ...rows];
}

/** Rows are what an image is, columns what the model says; zeros are dots so that the mistakes stand out. */
export function confusionTable(
  matrix: readonly (readonly number[])[],
  classes: readonly string[],
  colours: Colours,
): string[] {
  const width = Math.max(4, ...classes.map((name) => name.length));
  const table = createTable([
    { title: '', width, align: 'left' },
    ...classes.map((title) => ({ title, width })),
    { title: 'right', width: 6 },
  ]);
  const rows = matrix.map((row, truth) => {
    const total = row.reduce((a, b) => a + b, 0);
    const cells = row.map((count, said) => {
      if (count === 0) return colours.dim('·');
      return truth === said ? colours.green(String(count)) : colours.yellow(String(count));
    });
    return table.row([
      classes[truth]!,
      ...cells,
      total === 0 ? '–' : formatMetric((row[truth] ?? 0) / total),
    ]);
  });
  return [colours.dim(table.header), ...rows];
}
