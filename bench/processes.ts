/** Benchmarks run every party in a process of its own, so that memory and processor time are the party's alone. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

export interface Party {
  readonly child: ChildProcess;
  /** Resolves with the next message of this type. */
  next<T = unknown>(type: string): Promise<T>;
  send(type: string, value?: unknown): void;
  stop(): Promise<void>;
}

/** Starts `bench/<name>.ts` with a JSON-able setup as its argument. */
export function startParty(name: string, setup: unknown): Party {
  const child = fork(fileURLToPath(new URL(`./${name}.ts`, import.meta.url)), [JSON.stringify(setup)], {
    execArgv: process.execArgv,
    serialization: 'advanced',
  });
  const waiting = new Map<string, ((value: unknown) => void)[]>();
  const early = new Map<string, unknown[]>();
  let failure: Error | undefined;
  child.on('message', ({ type, value }: { type: string; value: unknown }) => {
    const resolve = waiting.get(type)?.shift();
    if (resolve) resolve(value);
    else early.set(type, [...(early.get(type) ?? []), value]);
  });
  const died = once(child, 'exit').then(([code]: unknown[]) => {
    failure = new Error(`${name} ended early with code ${String(code)}`);
    throw failure;
  });
  died.catch(() => {});
  return {
    child,
    next<T>(type: string): Promise<T> {
      const queue = early.get(type);
      if (queue !== undefined && queue.length > 0) return Promise.resolve(queue.shift() as T);
      const message = new Promise<T>((resolve) => {
        waiting.set(type, [...(waiting.get(type) ?? []), resolve as (value: unknown) => void]);
      });
      return Promise.race([message, died as Promise<never>]);
    },
    send: (type, value) => void child.send({ type, value }),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGTERM');
      await gone;
    },
  };
}

/** The party's side: its setup, and messages to and from the harness. */
export function party<Setup>(): {
  setup: Setup;
  send: (type: string, value?: unknown) => void;
  on: (type: string, handler: (value: unknown) => void) => void;
} {
  process.on('disconnect', () => process.exit(0));
  return {
    setup: JSON.parse(process.argv[2] ?? '{}') as Setup,
    send: (type, value) => void process.send?.({ type, value }),
    on: (type, handler) =>
      void process.on('message', (message: { type: string; value: unknown }) => {
        if (message.type === type) handler(message.value);
      }),
  };
}

/** Peak resident memory of this process so far, in MiB. */
export function peakMemoryMiB(): number {
  return process.resourceUsage().maxRSS / 1024;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
