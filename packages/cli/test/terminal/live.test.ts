import { describe, expect, test } from 'vitest';
import { createLive } from '../../src/terminal/live.ts';

/** A terminal that understands what we send it: text, newlines, returns, cursor up, erase below. */
function createScreen(columns: number) {
  const rows: string[] = [''];
  let row = 0;
  let column = 0;
  let cursor = true;
  return {
    isTTY: true,
    columns,
    rows: 24,
    lines: () =>
      rows
        .map((line) => line.trimEnd())
        .join('\n')
        .trimEnd(),
    cursorShown: () => cursor,
    write(text: string) {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what we look for
      for (const [token, up] of text.matchAll(/\u001b\[(\d+)A|\u001b\[\?25[lh]|\u001b\[J|[\s\S]/g)) {
        if (up !== undefined) row -= Number(up);
        else if (token.startsWith('\u001b[?25')) cursor = token.endsWith('h');
        else if (token === '\u001b[J') {
          rows.length = row + 1;
          rows[row] = rows[row]!.slice(0, column);
        } else if (token === '\r') column = 0;
        else if (token === '\n') {
          row++;
          column = 0;
          rows[row] ??= '';
        } else {
          rows[row] = rows[row]!.padEnd(column).slice(0, column) + token + rows[row]!.slice(column + 1);
          column++;
        }
      }
    },
  };
}

describe('live', () => {
  test('live lines stay at the bottom while printed lines scroll past above them', () => {
    const screen = createScreen(40);
    const live = createLive(screen);
    live.show(['one', 'two']);
    expect(screen.lines()).toBe('one\ntwo');
    live.print('kept');
    expect(screen.lines()).toBe('kept\none\ntwo');
    live.show(['three']);
    expect(screen.lines()).toBe('kept\nthree');
    live.print('kept too');
    live.end();
    expect(screen.lines()).toBe('kept\nkept too');
  });

  test('the cursor is hidden while lines are live, and given back at the end', () => {
    const screen = createScreen(40);
    const live = createLive(screen);
    live.show(['x']);
    expect(screen.cursorShown()).toBe(false);
    live.end();
    live.end();
    expect(screen.cursorShown()).toBe(true);
  });

  test('a live line never wraps: it is cut one cell before the edge', () => {
    const screen = createScreen(10);
    createLive(screen).show(['0123456789']);
    expect(screen.lines()).toBe('01234567…');
  });

  test('in a pipe only the printed lines remain, without any control code', () => {
    const written: string[] = [];
    const live = createLive({ write: (text) => written.push(text) });
    live.show(['never']);
    live.print('kept');
    live.end();
    expect(written.join('')).toBe('kept\n');
  });
});
