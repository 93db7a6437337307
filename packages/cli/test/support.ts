/** Contexts with captured streams, and the command as a real process. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type CliContext, createContext } from '../src/context.ts';
import { runCli } from '../src/program.ts';

export interface Captured {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command line in this process, in a pipe (no terminal, no colours). */
export async function run(cwd: string, ...argv: string[]): Promise<Captured> {
  const out: string[] = [];
  const err: string[] = [];
  const context: CliContext = createContext({
    cwd,
    env: {},
    stdout: { write: (text) => out.push(text) },
    stderr: { write: (text) => err.push(text) },
    signal: new AbortController().signal,
  });
  const code = await runCli(argv, context);
  return { code, out: out.join(''), err: err.join('') };
}

export interface CliProcess {
  /** The next JSON line of this type; rejects with everything printed when the process ends without it. */
  event(type: string): Promise<Record<string, unknown>>;
  readonly ended: Promise<Captured>;
  kill(signal: NodeJS.Signals): void;
}

/** The root of the repository, where the digits are installed. */
export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** Starts `tributary` as its own process, with --json. */
export function start(cwd: string, ...argv: string[]): CliProcess {
  return startWith({ TRIBUTARY_ROOT: ROOT }, cwd, ...argv);
}

/** As `start`, with more in its environment. */
export function startWith(env: Record<string, string>, cwd: string, ...argv: string[]): CliProcess {
  // As users have it, in JavaScript: made from the sources before the first test.
  const main = fileURLToPath(new URL('../dist/main.js', import.meta.url));
  const child = spawn(process.execPath, [main, ...argv, '--json'], {
    cwd,
    env: { ...process.env, ...env },
  });
  const lines: string[] = [];
  const errors: string[] = [];
  const seen: Record<string, unknown>[] = [];
  let look: () => void = () => {};
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    seen.push(JSON.parse(line) as Record<string, unknown>);
    look();
  });
  child.stderr.on('data', (data: Buffer) => errors.push(data.toString()));
  const ended = new Promise<Captured>((resolve) => {
    child.on('close', (code) => {
      resolve({ code: code ?? -1, out: lines.join('\n'), err: errors.join('') });
    });
  });
  return {
    ended,
    kill: (signal) => child.kill(signal),
    event(type) {
      return new Promise((resolve, reject) => {
        look = () => {
          const at = seen.findIndex((event) => event['type'] === type);
          if (at < 0) return;
          look = () => {};
          resolve(seen.splice(0, at + 1)[at]!);
        };
        look();
        void ended.then(({ out, err }) =>
          reject(new Error(`it ended without "${type}":\n${out.slice(-2000)}\n${err}`)),
        );
      });
    },
  };
}
