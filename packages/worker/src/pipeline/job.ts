/**
 * What the main thread asks of the image threads. Pixels never travel in a message: threads read and write shared
 * memory, and claim the images of a job one by one from a counter that lies in shared memory too.
 */
import type { AugmentationPlan, InputPlan } from '@tributary/shared-protocol';
import type { RandomTransform } from '../images/random-transform.ts';
import type { Statistics } from '../images/statistics.ts';

/** How every image of a shard is made. */
export interface PipelineSetup {
  readonly input: InputPlan;
  readonly augmentation: Omit<AugmentationPlan, 'path'>;
}

/** Room for one decoded image in shared memory. */
export interface Place {
  readonly slab: SharedArrayBuffer;
  /** In bytes. */
  readonly offset: number;
}

export interface ImageTask {
  readonly file: string;
  /** Where its decoded pixels are; without it the file is read. */
  readonly cached?: Place | undefined;
  /** Where they are to be kept. */
  readonly keep?: Place | undefined;
  /** Absent: the image is not augmented. */
  readonly transform?: RandomTransform | undefined;
}

export interface ImageJob {
  readonly tasks: readonly ImageTask[];
  /** Int32: the next task to claim, then the state of each task. */
  readonly claims: SharedArrayBuffer;
  /** Task i writes the i-th image; absent: the images are only decoded. */
  readonly target?: SharedArrayBuffer | undefined;
  /** Augmented, standardised float32, or the decoded bytes. */
  readonly output: 'floats' | 'bytes';
}

export interface ImageFailure {
  readonly index: number;
  /** A WorkerError's; undefined for what was not foreseen. */
  readonly code: string | undefined;
  readonly message: string;
}

export type ToThread =
  | { readonly type: 'job'; readonly id: number; readonly job: ImageJob }
  | { readonly type: 'statistics'; readonly statistics: Statistics }
  | { readonly type: 'close' };

/** A thread has nothing left to do for a job. */
export interface FromThread {
  readonly id: number;
  readonly failures: readonly ImageFailure[];
}

/** State of a task: not begun, done, or the number of the thread that works on it (from 1). */
export const WAITING = 0;
export const DONE = -1;
/** The counter of a job that nobody wants any more. */
const CANCELLED = 2 ** 30;

export function newClaims(tasks: number): SharedArrayBuffer {
  return new SharedArrayBuffer((1 + tasks) * Int32Array.BYTES_PER_ELEMENT);
}

/** Returns the index of a task that nobody else works on, or undefined when all have been claimed. */
export function claim(job: ImageJob, thread: number): number | undefined {
  const claims = new Int32Array(job.claims);
  const index = Atomics.add(claims, 0, 1);
  if (index >= job.tasks.length) return undefined;
  Atomics.store(claims, 1 + index, thread);
  return index;
}

export function settle(job: ImageJob, index: number, state: typeof DONE | typeof WAITING): void {
  Atomics.store(new Int32Array(job.claims), 1 + index, state);
}

export function stateOf(job: ImageJob, index: number): number {
  return Atomics.load(new Int32Array(job.claims), 1 + index);
}

/** No further task of the job is begun. */
export function cancel(job: ImageJob): void {
  Atomics.store(new Int32Array(job.claims), 0, CANCELLED);
}
