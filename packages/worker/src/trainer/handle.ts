/**
 * Starts the trainer as a process of its own and speaks to it. A job ends in one of four ways: its result, an error
 * with a code, the abort that was asked for, or FED_TRAINER_CRASHED or FED_TRAINER_OUT_OF_MEMORY with the process's
 * last words.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { RemoteError } from '@tributary/shared-protocol';
import type { Trainer, TrainerReport, TrainerSetup } from '../agent/trainer-keeper.ts';
import { WORKER_ERROR_CODES, WorkerError, type WorkerErrorCode } from '../errors.ts';
import { watchMemory } from '../policy/resources.ts';
import { crashOf, type OomKills, readOomKills } from './exit-cause.ts';
import type { EvaluateJob, FromTrainer, JobResult, ToTrainer, TrainJob } from './messages.ts';

export interface TrainerHandle extends Trainer {
  readonly site: TrainerReport;
  readonly engineReason: string;
  readonly pid: number;
  train(job: TrainJob, options?: { readonly signal?: AbortSignal }): Promise<JobResult>;
  evaluate(job: EvaluateJob, options?: { readonly signal?: AbortSignal }): Promise<JobResult>;
  /** Resolves when the process has ended, for whatever reason. */
  readonly exited: Promise<TrainerExit>;
  /** Ends the process, in the middle of a job if need be. */
  close(): Promise<void>;
}

export interface TrainerExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface TrainerEvents {
  /** Share of the present job (or of the set-up) that is done, in [0, 1]. */
  onProgress?(progress: number): void;
  /** What the trainer says: images set aside, and anything that lands on its error output. */
  onLog?(message: string): void;
}

const LAST_WORDS_LINES = 20;
const LAST_WORDS_COLUMNS = 500;
/** A trainer that doesn't end by itself this long after `close` is killed. */
const CLOSE_GRACE_MS = 3000;

/** A test's kill point is meant for one trainer; every later one would die of it too. */
let isFirstTrainer = true;

/**
 * Returns the handle of a new trainer process that has its engine, images and model ready.
 *
 * Rejects with the code of what failed (FED_ENGINE_…, FED_DATA_…, FED_MODEL_…), or what `crashOf` says when the
 * process ended. Jobs go one at a time: a second before the first has ended is a mistake, a TypeError.
 */
export async function startTrainer(setup: TrainerSetup, events: TrainerEvents = {}): Promise<TrainerHandle> {
  const started = readOomKills();
  const child = forkTrainer(setup);
  let pending:
    | {
        readonly what: string;
        /** When it began. */
        readonly oomKills: OomKills;
        settle(outcome: FromTrainer): void;
        crash(error: Error): void;
      }
    | undefined;
  const lastWords: string[] = [];
  /** Why we killed it ourselves. */
  let stopped: Error | undefined;
  const { maxMemoryBytes } = setup;
  const unwatch =
    maxMemoryBytes === undefined || child.pid === undefined
      ? () => undefined
      : watchMemory(child.pid, maxMemoryBytes, (reason) => {
          stopped = reason;
          child.kill('SIGKILL');
        });

  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    createInterface({ input: stream }).on('line', (line) => {
      lastWords.push(line.slice(0, LAST_WORDS_COLUMNS));
      if (lastWords.length > LAST_WORDS_LINES) lastWords.shift();
      events.onLog?.(line);
    });
  }
  // 'close' comes after the last output; 'exit' may not.
  const exited = new Promise<TrainerExit>((resolve) => {
    child.once('close', (code, signal) => {
      unwatch();
      pending?.crash(
        stopped ?? crashOf(pending.what, { code, signal }, lastWords, pending.oomKills, readOomKills()),
      );
      pending = undefined;
      resolve({ code, signal });
    });
    child.once('error', (error) => {
      pending?.crash(
        new WorkerError('FED_TRAINER_CRASHED', `The trainer process can't be started: ${error.message}`),
      );
      pending = undefined;
      if (child.pid === undefined) resolve({ code: null, signal: null });
    });
  });
  child.on('message', (message: FromTrainer) => {
    if (message.type === 'progress') return events.onProgress?.(message.progress);
    if (message.type === 'log') return events.onLog?.(message.message);
    const settled = pending;
    pending = undefined;
    settled?.settle(message);
  });

  async function request(message: ToTrainer, what: string, signal?: AbortSignal): Promise<FromTrainer> {
    if (pending !== undefined)
      throw new TypeError(`The trainer is busy with ${pending.what}; ${what} has to wait.`);
    signal?.throwIfAborted();
    return await new Promise<FromTrainer>((resolve, reject) => {
      const onAbort = () => send(child, { type: 'abort' });
      const end = () => signal?.removeEventListener('abort', onAbort);
      const oomKills = readOomKills();
      pending = {
        what,
        oomKills,
        settle(outcome) {
          end();
          if (outcome.type === 'failed') reject(asError(outcome.code, outcome.message));
          else if (outcome.type === 'aborted') reject(signal?.reason as Error);
          else resolve(outcome);
        },
        crash(error) {
          end();
          reject(signal?.aborted ? (signal.reason as Error) : error);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      if (child.exitCode !== null || child.signalCode !== null) {
        const exit = { code: child.exitCode, signal: child.signalCode };
        pending.crash(stopped ?? crashOf(what, exit, lastWords, started, readOomKills()));
        pending = undefined;
      } else {
        send(child, message);
      }
    });
  }

  async function close(): Promise<void> {
    send(child, { type: 'close' });
    const timer = setTimeout(() => child.kill('SIGKILL'), CLOSE_GRACE_MS);
    await exited;
    clearTimeout(timer);
  }

  let ready: FromTrainer;
  try {
    ready = await request({ type: 'setup', setup }, 'its set-up');
  } catch (error) {
    await close();
    throw error;
  }
  if (ready.type !== 'ready') throw new TypeError(`The trainer answered its set-up with "${ready.type}".`);
  const run = async (message: ToTrainer, what: string, signal?: AbortSignal): Promise<JobResult> => {
    const outcome = await request(message, what, signal);
    if (outcome.type !== 'done') throw new TypeError(`The trainer answered ${what} with "${outcome.type}".`);
    return outcome.result;
  };
  return {
    site: ready.site,
    engineReason: ready.engineReason,
    pid: child.pid!,
    train: (job, options) => run({ type: 'train', job }, `training round ${job.round}`, options?.signal),
    evaluate: (job, options) =>
      run({ type: 'evaluate', job }, `evaluating round ${job.round}`, options?.signal),
    exited,
    close,
  };
}

/**
 * glibc gives large blocks back to the system as soon as they are free, and a step asks for them again at once. On a
 * virtual machine that costs more than the arithmetic: 4.1 s instead of 0.55 for a step of the seed network at 128
 * pixels. Other systems don't know these names; what the site has set itself stays.
 */
const KEEP_FREED_MEMORY = {
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: String(2 ** 40),
  MALLOC_TOP_PAD_: String(64 * 2 ** 20),
};

function forkTrainer({ threads, maxMemoryBytes }: TrainerSetup): ChildProcess {
  const fromSource = import.meta.url.endsWith('.ts');
  const main = fileURLToPath(new URL(fromSource ? './main.ts' : './main.js', import.meta.url));
  const execArgv = [...process.execArgv];
  // A test runner reads TypeScript by itself; its children need to be told how.
  if (fromSource && !execArgv.some((argument) => /(^|\/)tsx($|\/dist\/)/.test(argument))) {
    execArgv.push('--conditions=@tributary/source', '--import', import.meta.resolve('tsx'));
  }
  // Freed memory that is kept counts against a bound; so does a heap that collects too late.
  const kept = maxMemoryBytes === undefined ? KEEP_FREED_MEMORY : {};
  if (maxMemoryBytes !== undefined) {
    execArgv.push(`--max-old-space-size=${Math.max(64, Math.floor(maxMemoryBytes / 2 ** 21))}`);
  }
  const env: NodeJS.ProcessEnv = { ...kept, ...process.env, ...threadsOf(threads) };
  if (!isFirstTrainer && env['TRIBUTARY_CRASH_AT']?.startsWith('trainer:')) delete env['TRIBUTARY_CRASH_AT'];
  isFirstTrainer = false;
  return fork(main, [], {
    execArgv,
    env,
    serialization: 'advanced',
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
}

/** How native engines are told what they may use; those of our own packages have options for it. */
function threadsOf(threads: number | undefined): NodeJS.ProcessEnv {
  if (threads === undefined) return {};
  const names = ['TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS', 'OMP_NUM_THREADS'];
  return Object.fromEntries(names.map((name) => [name, String(threads)]));
}

function send(child: ChildProcess, message: ToTrainer): void {
  // A send to a process that has just ended fails; its end is noticed by 'close'.
  if (child.connected) child.send(message, () => {});
}

/** The trainer's own error, or one of another package with the same code and words. */
function asError(code: string, message: string): Error {
  return (WORKER_ERROR_CODES as readonly string[]).includes(code)
    ? new WorkerError(code as WorkerErrorCode, message)
    : new RemoteError(code, message, false);
}
