/** Real processes for the tests: each runs from the sources and reports one JSON object a line. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const FROM_SOURCE = ['--conditions=@tributary/source', '--import', 'tsx'];

export interface Party<E> {
  readonly child: ChildProcess;
  readonly events: readonly E[];
  /** Resolves with the `count`th (from 1) event that `match` holds for; rejects when the process ends without it. */
  seen(match: (event: E) => boolean, count?: number): Promise<E>;
  onEvent(listener: (event: E) => void): void;
  /** Resolves when the process is gone and all of its output was read. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }>;
  kill(signal?: NodeJS.Signals): void;
}

/** Starts `file` (TypeScript beside this one, or the URL of a bundle) with `setup` as its argument, as JSON. */
export function startParty<E>(
  file: string | URL,
  setup: unknown,
  env: Record<string, string> = {},
): Party<E> {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const child = spawn(
    process.execPath,
    [...(path.endsWith('.ts') ? FROM_SOURCE : []), path, JSON.stringify(setup)],
    { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const events: E[] = [];
  const listeners = new Set<(event: E) => void>();
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  lines.on('line', (line) => {
    if (!line.startsWith('{')) {
      stderr += `${line}\n`;
      return;
    }
    const event = JSON.parse(line) as E;
    events.push(event);
    for (const listener of listeners) listener(event);
  });
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }>(
    (resolve) => {
      child.on('close', (code, signal) => resolve({ code, signal, stderr }));
    },
  );
  return {
    child,
    events,
    onEvent: (listener) => listeners.add(listener),
    seen(match, count = 1) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const found = events.filter(match)[count - 1];
          if (found === undefined) return;
          listeners.delete(look);
          resolve(found);
        };
        listeners.add(look);
        look();
        void exited.then(({ code, signal }) => {
          reject(new Error(`${path} ended (${code ?? signal}) before the event came\n${stderr}`));
        });
      });
    },
    exited,
    kill: (signal = 'SIGKILL') => child.kill(signal),
  };
}

/** In the child: the setup, and a way to report. */
export function party<S>(): { setup: S; report(event: unknown): void } {
  const text = process.argv[2];
  if (text === undefined) throw new TypeError('no setup was given');
  return {
    setup: JSON.parse(text) as S,
    report: (event) => process.stdout.write(`${JSON.stringify(event)}\n`),
  };
}
