/**
 * The image threads, from the main thread's side. A job goes to every thread; each claims images until none is left,
 * so the last image of a batch is waited for, never the slowest share. Threads start with the first job and keep no
 * process alive while there is none.
 */
import { Worker } from 'node:worker_threads';
import { WORKER_ERROR_CODES, WorkerError, type WorkerErrorCode } from '../errors.ts';
import type { Statistics } from '../images/statistics.ts';
import {
  cancel,
  type FromThread,
  type ImageFailure,
  type ImageJob,
  type PipelineSetup,
  stateOf,
  type ToThread,
} from './job.ts';
import { createLanes } from './lanes.ts';

export interface ImagePool {
  /**
   * Resolves when every task of the job is done, or the job was cancelled and nothing is at work on it any more.
   * Rejects, once that is so, with the error of the first task that failed: a WorkerError FED_IMAGE_…, or an Error that
   * names the file. A thread that dies rejects every job, with the files that it had in hand.
   */
  run(job: ImageJob): Promise<void>;
  /** What later jobs standardise with; arrays are copied to shared memory once. */
  useStatistics(statistics: Statistics): void;
  /** Ends the threads, after what they have in hand; jobs that wait are cancelled. */
  close(): Promise<void>;
}

interface Running {
  readonly job: ImageJob;
  readonly failures: ImageFailure[];
  /** Threads that have not reported yet. */
  readonly threads: Set<number>;
  resolve(): void;
  reject(error: Error): void;
}

/** @param threads 0 makes the images on the calling thread, between its other work */
export function createImagePool(setup: PipelineSetup, threads: number): ImagePool {
  return threads === 0 ? createInlinePool(setup) : createThreadPool(setup, threads);
}

function createInlinePool(setup: PipelineSetup): ImagePool {
  const lanes = createLanes(setup, 1);
  const jobs = new Set<ImageJob>();
  return {
    async run(job) {
      jobs.add(job);
      const failures = await lanes.run(job);
      jobs.delete(job);
      throwFirst(failures, job);
    },
    useStatistics: (statistics) => lanes.useStatistics(statistics),
    async close() {
      for (const job of jobs) cancel(job);
    },
  };
}

function createThreadPool(setup: PipelineSetup, count: number): ImagePool {
  let workers: Worker[] | undefined;
  let statistics: Statistics | undefined;
  let broken: Error | undefined;
  let closing = false;
  let lastId = 0;
  const running = new Map<number, Running>();
  /** Jobs that are not settled, whatever became of them. */
  const unsettled = new Set<Promise<void>>();

  function start(): Worker[] {
    return Array.from({ length: count }, (_, i) => {
      const worker = startThread({ setup, thread: i + 1 });
      worker.on('message', (report: FromThread) => onReport(report, i + 1));
      worker.on('error', (error) => onDeath(i + 1, error.message));
      worker.on('exit', (code) => {
        if (!closing) onDeath(i + 1, `it ended with exit code ${code}`);
      });
      worker.unref();
      return worker;
    });
  }

  function onReport({ id, failures }: FromThread, thread: number): void {
    const entry = running.get(id);
    if (entry === undefined) return;
    entry.failures.push(...failures);
    entry.threads.delete(thread);
    if (entry.threads.size > 0) return;
    finish(id);
    try {
      throwFirst(entry.failures, entry.job);
      entry.resolve();
    } catch (error) {
      entry.reject(error as Error);
    }
  }

  function onDeath(thread: number, reason: string): void {
    broken ??= new Error(`An image thread died: ${reason}. ${inHand(thread)}`);
    for (const [id, entry] of running) {
      cancel(entry.job);
      finish(id);
      entry.reject(broken);
    }
  }

  function inHand(thread: number): string {
    const files = [...running.values()].flatMap(({ job }) =>
      job.tasks.filter((_, index) => stateOf(job, index) === thread).map(({ file }) => file),
    );
    return files.length === 0 ? 'It had no image in hand.' : `It had in hand: ${files.join(', ')}`;
  }

  function finish(id: number): void {
    running.delete(id);
    if (running.size === 0) for (const worker of workers ?? []) worker.unref();
  }

  return {
    run(job) {
      if (broken !== undefined) return Promise.reject(broken);
      if (workers === undefined) {
        workers = start();
        if (statistics !== undefined) post(workers, { type: 'statistics', statistics });
      }
      const id = ++lastId;
      const from = id % count;
      // A job of one image needs one thread; they take turns.
      const chosen = Array.from({ length: Math.min(count, job.tasks.length) }, (_, i) => (from + i) % count);
      const done = new Promise<void>((resolve, reject) => {
        const waited = new Set(chosen.map((i) => i + 1));
        running.set(id, { job, failures: [], threads: waited, resolve, reject });
        for (const worker of workers!) worker.ref();
        post(
          chosen.map((i) => workers![i]!),
          { type: 'job', id, job },
        );
      });
      unsettled.add(done);
      const forget = () => unsettled.delete(done);
      done.then(forget, forget);
      return done;
    },
    useStatistics(found) {
      statistics = toShared(found);
      if (workers !== undefined) post(workers, { type: 'statistics', statistics });
    },
    async close() {
      closing = true;
      broken ??= new Error('The image threads were ended.');
      for (const { job } of running.values()) cancel(job);
      await Promise.allSettled(unsettled);
      const ends = (workers ?? []).map(
        (worker) =>
          new Promise<void>((resolve) => {
            worker.ref();
            worker.once('exit', () => resolve());
            worker.postMessage({ type: 'close' } satisfies ToThread);
            if (worker.threadId === -1) resolve();
          }),
      );
      await Promise.all(ends);
    },
  };
}

function post(workers: readonly Worker[], message: ToThread): void {
  for (const worker of workers) worker.postMessage(message);
}

function startThread(workerData: { setup: PipelineSetup; thread: number }): Worker {
  if (!import.meta.url.endsWith('.ts')) {
    return new Worker(new URL('./thread.js', import.meta.url), { workerData });
  }
  // From the sources: a thread has to be told how TypeScript is read, whatever the process was told.
  const loader = JSON.stringify(import.meta.resolve('tsx/esm/api'));
  const entry = JSON.stringify(new URL('./thread.ts', import.meta.url).href);
  return new Worker(`import(${loader}).then(({ register }) => { register(); return import(${entry}); })`, {
    eval: true,
    workerData,
    execArgv: ['--conditions=@tributary/source'],
  });
}

function toShared(statistics: Statistics): Statistics {
  return Object.fromEntries(
    Object.entries(statistics).map(([name, values]: [string, Float64Array]) => {
      const shared = new Float64Array(new SharedArrayBuffer(values.byteLength));
      shared.set(values);
      return [name, shared];
    }),
  );
}

function throwFirst(failures: readonly ImageFailure[], job: ImageJob): void {
  const [first] = [...failures].sort((a, b) => a.index - b.index);
  if (first === undefined) return;
  const { code, message } = first;
  if (code !== undefined && (WORKER_ERROR_CODES as readonly string[]).includes(code)) {
    throw new WorkerError(code as WorkerErrorCode, message);
  }
  throw new Error(`${job.tasks[first.index]!.file}: ${message}`);
}
