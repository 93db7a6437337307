/** Measuring and laying out text that may hold colour codes. Widths are in terminal cells; we print no wide glyphs. */

// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what we look for
const ANSI = /\u001b\[[0-9;]*m/g;

/** Cells that `text` takes: its characters without colour codes. */
export function widthOf(text: string): number {
  return [...text.replace(ANSI, '')].length;
}

/** `text` filled with spaces to `width` cells; never shortened. */
export function padEnd(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - widthOf(text)));
}

export function padStart(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - widthOf(text))) + text;
}

/** `text` cut to `width` cells, colour codes kept (and ended) so that nothing bleeds into the next line. */
export function clip(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let cells = 0;
  let out = '';
  let coloured = false;
  for (let i = 0; i < text.length; ) {
    ANSI.lastIndex = i;
    const code = text[i] === '\u001b' ? ANSI.exec(text) : null;
    if (code !== null && code.index === i) {
      out += code[0];
      coloured = true;
      i += code[0].length;
      continue;
    }
    if (cells === width - 1) break;
    const character = String.fromCodePoint(text.codePointAt(i)!);
    out += character;
    cells++;
    i += character.length;
  }
  ANSI.lastIndex = 0;
  return `${out}…${coloured ? '\u001b[0m' : ''}`;
}

/** Paragraphs of at most `width` cells, broken at spaces; a longer word keeps a line of its own. */
export function wrap(text: string, width: number): string[] {
  return text.split('\n').flatMap((paragraph) => {
    const lines: string[] = [];
    let line = '';
    for (const word of paragraph.split(' ')) {
      if (line !== '' && widthOf(line) + 1 + widthOf(word) > width) {
        lines.push(line);
        line = word;
      } else line = line === '' ? word : `${line} ${word}`;
    }
    return [...lines, line];
  });
}
