/** Tables that can grow a row at a time: the columns' widths are fixed when the header is printed. */
import { padEnd, padStart, widthOf } from './text.ts';

export interface Column {
  readonly title: string;
  /** Cells; a wider value pushes its row out rather than being cut. @default the title's width */
  readonly width?: number;
  /** @default 'right' */
  readonly align?: 'left' | 'right';
}

export interface Table {
  readonly header: string;
  row(cells: readonly string[]): string;
}

const GAP = '  ';

/** Lines of equal layout for `columns`, indented by two. */
export function createTable(columns: readonly Column[]): Table {
  const line = (cells: readonly string[]) =>
    GAP +
    columns
      .map((column, i) => {
        const width = Math.max(column.width ?? 0, widthOf(column.title));
        return (column.align === 'left' ? padEnd : padStart)(cells[i] ?? '', width);
      })
      .join(GAP)
      .trimEnd();
  return { header: line(columns.map((column) => column.title)), row: line };
}
