/**
 * Benchmarks run every party in a process of its own, so that memory and processor time are the party's alone. Those
 * that exchange updates run from a bundle, as built software does: a compiler in the process would be measured too.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { bundlePrograms } from '@tributary/testkit/bundle';

export interface Party {
  readonly child: ChildProcess;
  /** Resolves with the next message of this type. */
  next<T = unknown>(type: string): Promise<T>;
  send(type: string, value?: unknown): void;
  stop(): Promise<void>;
}

const BUNDLED = [
  'coordinator-process',
  'noop-worker',
  'raw-server',
  'raw-client',
  'secagg-party',
  'transfer-receiver',
  'transfer-sender',
];
let bundle: ReturnType<typeof bundlePrograms> | undefined;

/** Starts `bench/<name>.ts` with a JSON-able setup as its argument. */
export async function startParty(name: string, setup: unknown): Promise<Party> {
  const bundled = BUNDLED.includes(name);
  const program = bundled ? (await parties()).program(name) : new URL(`./${name}.ts`, import.meta.url);
  const child = fork(fileURLToPath(program), [JSON.stringify(setup)], {
    execArgv: bundled ? [] : process.execArgv,
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

/** The parties that run from a bundle, made once. */
function parties(): ReturnType<typeof bundlePrograms> {
  bundle ??= bundlePrograms(
    BUNDLED.map((party) => new URL(`./${party}.ts`, import.meta.url)),
    new URL('../node_modules/', import.meta.url),
  ).then((made) => {
    process.once('exit', () => rmSync(made.folder, { recursive: true, force: true }));
    return made;
  });
  return bundle;
}
