/** The screen of a command that goes on for a while: lines that stay, and a live part that is redrawn as time passes. */
import type { CliContext } from '../context.ts';
import { createLive } from './live.ts';

/** Redraws a second: enough to look alive, few enough to cost nothing. */
const FRAMES_PER_SECOND = 8;

export interface Session {
  print(text: string): void;
  /** Draws now instead of at the next frame. */
  refresh(): void;
  end(): void;
}

/** A session on stdout. `live` is called for each frame with the time in Unix millis; never in a pipe. */
export function openSession(context: CliContext, live: (nowMs: number) => readonly string[]): Session {
  const screen = createLive(context.stdout);
  const refresh = () => screen.show(live(Date.now()));
  const timer = screen.drawn ? setInterval(refresh, 1000 / FRAMES_PER_SECOND) : undefined;
  timer?.unref();
  return {
    print: (text) => screen.print(text),
    refresh,
    end() {
      clearInterval(timer);
      screen.end();
    },
  };
}
