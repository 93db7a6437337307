/**
 * A few lines at the bottom of a terminal that are redrawn in place, with ordinary lines scrolling past above them.
 * On anything but a terminal the live lines are not drawn at all and only the ordinary ones remain.
 */
import { clip } from './text.ts';

const HIDE_CURSOR = '\u001b[?25l';
const SHOW_CURSOR = '\u001b[?25h';
const ERASE_BELOW = '\u001b[J';

export interface TerminalStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly rows?: number;
  write(text: string): unknown;
}

export interface Live {
  /** Whether live lines are drawn at all. */
  readonly drawn: boolean;
  /** Writes lines that stay, above the live ones. */
  print(text: string): void;
  /** Replaces the live lines. Lines wider than the terminal are cut; more than fit are left out. */
  show(lines: readonly string[]): void;
  /** Takes the live lines away and gives the cursor back. Calling it twice is harmless. */
  end(): void;
}

/** A live area on `stream`; `show` draws nothing unless the stream is a terminal. */
export function createLive(stream: TerminalStream): Live {
  const drawn = stream.isTTY === true;
  let lines: readonly string[] = [];
  let last = '';

  const back = () => (lines.length === 0 ? '' : `\r${lines.length > 1 ? `\u001b[${lines.length - 1}A` : ''}`);
  const draw = () => lines.join('\n');

  return {
    drawn,
    print(text) {
      if (lines.length === 0) stream.write(`${text}\n`);
      else stream.write(`${back()}${ERASE_BELOW}${text}\n${draw()}`);
    },
    show(next) {
      if (!drawn) return;
      const width = stream.columns ?? 80;
      const height = Math.max(1, (stream.rows ?? 24) - 2);
      const fitting = next.slice(0, height).map((line) => clip(line, width - 1));
      const key = fitting.join('\n');
      if (key === last && lines.length > 0) return;
      const before = back();
      const hide = lines.length === 0 ? HIDE_CURSOR : '';
      lines = fitting;
      last = key;
      stream.write(`${hide}${before}${ERASE_BELOW}${draw()}`);
    },
    end() {
      if (lines.length === 0) return;
      stream.write(`${back()}${ERASE_BELOW}${SHOW_CURSOR}`);
      lines = [];
      last = '';
    },
  };
}

/** `width` cells of a bar filled to `share` in [0, 1], with eighths for a smooth end. */
export function bar(share: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * width * 8);
  const full = Math.floor(eighths / 8);
  const part = eighths % 8;
  const head = '█'.repeat(full) + (part > 0 ? ' ▏▎▍▌▋▊▉'[part] : '');
  return head + '·'.repeat(width - full - (part > 0 ? 1 : 0));
}
