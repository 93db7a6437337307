import { describe, expect, test } from 'vitest';
import { bar } from '../../src/terminal/live.ts';
import { formatBytes, formatCount, formatMetric, formatSeconds } from '../../src/terminal/numbers.ts';
import { createTable } from '../../src/terminal/table.ts';
import { clip, padEnd, widthOf, wrap } from '../../src/terminal/text.ts';

const red = (text: string) => `\u001b[31m${text}\u001b[39m`;

describe('text', () => {
  test('widthOf: colour codes take no cells', () => {
    expect(widthOf(red('abc'))).toBe(3);
    expect(padEnd(red('abc'), 5)).toBe(`${red('abc')}  `);
  });

  test('clip: a long line ends in an ellipsis and switches its colours off', () => {
    expect(clip('abcdef', 6)).toBe('abcdef');
    expect(clip('abcdef', 4)).toBe('abc…');
    expect(clip(red('abcdef'), 4)).toBe('\u001b[31mabc…\u001b[0m');
  });

  test('wrap: breaks at spaces, and never inside a word', () => {
    expect(wrap('one two three', 7)).toEqual(['one two', 'three']);
    expect(wrap('unbreakable x', 4)).toEqual(['unbreakable', 'x']);
    expect(wrap('a\nb', 10)).toEqual(['a', 'b']);
  });
});

describe('numbers', () => {
  test('formatBytes: binary units with at most one decimal', () => {
    // 1536 / 1024 = 1.5; 200 * 2^20 has no decimal from 100 up.
    expect([842, 1536, 200 * 2 ** 20].map(formatBytes)).toEqual(['842 B', '1.5 KiB', '200 MiB']);
  });

  test('formatSeconds: seconds, minutes, hours', () => {
    // 9.96 rounds to 10; 185 s = 3 min 5 s; 7620 s = 2 h 7 min.
    expect([0.84, 9.96, 185, 7620].map(formatSeconds)).toEqual(['0.8 s', '10 s', '3 min 05 s', '2 h 07 min']);
  });

  test('formatCount and formatMetric: thousands apart, four decimals, a dash for nothing', () => {
    expect([999, 8500, 1234567].map(formatCount)).toEqual(['999', '8,500', '1,234,567']);
    expect([0.98204, undefined].map(formatMetric)).toEqual(['0.9820', '–']);
  });
});

describe('table and bar', () => {
  test('createTable: columns line up under their titles, coloured or not', () => {
    // Left column 6 cells, a gap of 2, right column 3 cells: the last character is in cell 2 + 6 + 2 + 3 = 13.
    const table = createTable([
      { title: 'site', align: 'left', width: 6 },
      { title: 'n', width: 3 },
    ]);
    expect(table.header).toBe('  site      n');
    expect(table.row([red('a'), '12'])).toBe(`  ${red('a')}        12`);
  });

  test('bar: filled by eighths of a cell, and held to its width', () => {
    expect(bar(0.5, 4)).toBe('██··');
    // 0.53 * 4 * 8 = 16.96, 17 eighths: two full cells and one eighth.
    expect(bar(0.53, 4)).toBe('██▏·');
    expect(bar(7, 2)).toBe('██');
    expect(bar(-1, 2)).toBe('··');
  });
});
