/**
 * The processes of one run, kept alive as an init system would: one that ends other than well is started again a
 * little later with the same command. Each life is remembered with how it ended.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { type Party as Process, startParty } from '../../e2e/processes.ts';

export interface HouseEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface Life {
  readonly name: string;
  readonly number: number;
  readonly startedMs: number;
  readonly endedMs: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last error it reported, and what it wrote to its error output. */
  readonly lastError: string | undefined;
  readonly stderr: string;
}

/** One of our programs; or any other, which reports `ready` once it says so on its error output. */
export type Command =
  | { readonly program: string | URL; readonly setup: unknown }
  | { readonly file: string; readonly args: readonly string[]; readonly ready: string };

/** What is needed of a process, whichever it is. */
type Resident = Pick<Process<HouseEvent>, 'child' | 'onEvent' | 'exited' | 'kill'>;

export interface House {
  /** Millis since the run began. */
  now(): number;
  readonly events: readonly { readonly ms: number; readonly name: string; readonly event: HouseEvent }[];
  readonly lives: readonly Life[];
  /** Starts `name` and keeps it alive; resolves once it has come to a good end, or `isOver` says that it may stay away. */
  keep(name: string, command: Command, isOver: (life: Life) => boolean): Promise<void>;
  /** Called for each event, and for each process that starts. */
  onEvent(listener: (name: string, event: HouseEvent) => void): void;
  onStart(listener: (name: string, pid: number) => void): void;
  pidOf(name: string): number | undefined;
  signal(name: string, signal: NodeJS.Signals): boolean;
  /** The next start of `name` comes so much later than its end. */
  restartAfter(name: string, ms: number): void;
  /** Ends all of them; nothing is started any more. */
  close(): Promise<void>;
}

const RESTART_MS = 200;
/** What ends so often will not come to a good end. */
const MAX_LIVES = 60;

/** Returns an empty house; `mark` is put into every process's environment, and its children's. */
export function openHouse(mark: string): House {
  const startedAt = performance.now();
  const now = () => performance.now() - startedAt;
  const living = new Map<string, Resident>();
  const delays = new Map<string, number>();
  const events: { ms: number; name: string; event: HouseEvent }[] = [];
  const lives: Life[] = [];
  const listeners = new Set<(name: string, event: HouseEvent) => void>();
  const starters = new Set<(name: string, pid: number) => void>();
  const closing = new AbortController();

  async function live(name: string, number: number, command: Command): Promise<Life> {
    const startedMs = now();
    const env = { TRIBUTARY_CHAOS_RUN: mark };
    const one =
      'program' in command
        ? startParty<HouseEvent>(command.program, command.setup, env)
        : startOther(command, env);
    living.set(name, one);
    let lastError: string | undefined;
    one.onEvent((event) => {
      events.push({ ms: now(), name, event });
      if (event.type === 'error') lastError = `${event['code'] ?? ''} ${event['message'] ?? ''}`.trim();
      for (const listener of listeners) listener(name, event);
    });
    const { pid } = one.child;
    if (pid !== undefined) for (const listener of starters) listener(name, pid);
    const { code, signal, stderr } = await one.exited;
    living.delete(name);
    return { name, number, startedMs, endedMs: now(), code, signal, lastError, stderr };
  }

  return {
    now,
    events,
    lives,
    async keep(name, command, isOver) {
      for (let number = 1; !closing.signal.aborted; number++) {
        const life = await live(name, number, command);
        lives.push(life);
        if (life.code === 0 || isOver(life)) return;
        if (number >= MAX_LIVES)
          throw new Error(`${name} ended ${number} times without coming to a good end`);
        const delay = delays.get(name) ?? RESTART_MS;
        delays.delete(name);
        await pause(delay, closing.signal);
      }
    },
    onEvent: (listener) => void listeners.add(listener),
    onStart: (listener) => void starters.add(listener),
    pidOf: (name) => living.get(name)?.child.pid,
    signal: (name, signal) => isRunning(living.get(name)?.child) && living.get(name)!.child.kill(signal),
    restartAfter: (name, ms) => void delays.set(name, ms),
    async close() {
      closing.abort();
      await Promise.all(
        [...living.values()].map((one) => {
          one.kill('SIGKILL');
          return one.exited;
        }),
      );
    },
  };
}

function startOther(
  { file, args, ready }: Extract<Command, { file: string }>,
  env: Record<string, string>,
): Resident {
  const child = spawn(file, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe'] });
  const listeners = new Set<(event: HouseEvent) => void>();
  let stderr = '';
  createInterface({ input: child.stderr }).on('line', (line) => {
    stderr += `${line}\n`;
    if (line.includes(ready)) for (const listener of listeners) listener({ type: 'ready' });
  });
  return {
    child,
    onEvent: (listener) => listeners.add(listener),
    exited: new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => resolve({ code, signal, stderr }));
    }),
    kill: (signal = 'SIGKILL') => child.kill(signal),
  };
}

function isRunning(child: ChildProcess | undefined): boolean {
  return child !== undefined && child.exitCode === null && child.signalCode === null;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
  });
}
