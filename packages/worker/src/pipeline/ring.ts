/**
 * Batches made ahead of need, in order, in slots of shared memory. A slot is filled by the image threads, read once by
 * the main thread, and filled again; how many there are bounds the memory and how far the threads may run ahead.
 */
import type { RandomTransform } from '../images/random-transform.ts';
import type { ImagePool } from './image-pool.ts';
import { cancel, DONE, type ImageJob, newClaims, stateOf } from './job.ts';
import type { CacheUse, PixelCache, Rank } from './pixel-cache.ts';

/** One batch before its pixels are there. */
export interface PlannedBatch {
  readonly files: readonly string[];
  /** One a file; absent: the images are not augmented. */
  readonly transforms?: readonly RandomTransform[];
  readonly rank: Rank;
}

export interface RingOptions {
  readonly pool: ImagePool;
  readonly cache: PixelCache;
  /** Values of one image. */
  readonly length: number;
  /** Images of the largest batch. */
  readonly batchSize: number;
}

export interface Ring {
  /**
   * Yields the planned batches in order, each with its slot, which is filled again when the next is asked for. A failure
   * is thrown at its own batch; leaving early, or a signal, begins no further image and leaves no rejection behind.
   */
  batches<B extends PlannedBatch>(
    planned: Iterable<B>,
    output: ImageJob['output'],
    signals: readonly AbortSignal[],
  ): AsyncGenerator<{ batch: B; slot: SharedArrayBuffer }>;
  /** Decodes one image into the cache, where there is room. Rejects when it can't be read. */
  look(file: string, rank: Rank): Promise<void>;
  /** Decodes one image, through the cache. The bytes are the caller's own. */
  decode(file: string, rank: Rank): Promise<Uint8Array>;
}

/** Batches that are ready or being made, while the trainer is at work on the one before. */
const SLOTS = 3;

export function createRing({ pool, cache, length, batchSize }: RingOptions): Ring {
  const slotBytes = batchSize * length * Float32Array.BYTES_PER_ELEMENT;
  const idle: SharedArrayBuffer[] = [];

  /** Puts the images in hand of the threads; `settled` never rejects. */
  function start(planned: PlannedBatch, output: ImageJob['output'], target: SharedArrayBuffer) {
    const { files, transforms, rank } = planned;
    const uses: CacheUse[] = files.map((file) => cache.use(file, rank));
    const tasks = files.map((file, i) => ({
      file,
      cached: uses[i]!.cached,
      keep: uses[i]!.keep,
      transform: transforms?.[i],
    }));
    const job: ImageJob = { tasks, claims: newClaims(tasks.length), target, output };
    // A Poisson batch may be empty.
    const done = files.length === 0 ? Promise.resolve() : pool.run(job);
    const settled = done
      .catch(() => {})
      .then(() => {
        for (const [i, use] of uses.entries()) use.end(stateOf(job, i) === DONE);
      });
    return { job, done, settled };
  }

  async function one(file: string, rank: Rank, target: SharedArrayBuffer | undefined): Promise<void> {
    const use = cache.use(file, rank);
    const tasks = [{ file, cached: use.cached, keep: use.keep }];
    const job: ImageJob = { tasks, claims: newClaims(1), target, output: 'bytes' };
    try {
      await pool.run(job);
    } finally {
      use.end(stateOf(job, 0) === DONE);
    }
    if (stateOf(job, 0) !== DONE) throw new DOMException('The image threads were ended', 'AbortError');
  }

  return {
    async *batches(planned, output, signals) {
      const plans = planned[Symbol.iterator]();
      const queue: (ReturnType<typeof start> & {
        batch: PlannedBatch;
        slot: SharedArrayBuffer;
      })[] = [];
      const fill = () => {
        while (queue.length < SLOTS) {
          const next = plans.next();
          if (next.done) return;
          const slot = idle.pop() ?? new SharedArrayBuffer(slotBytes);
          queue.push({ ...start(next.value, output, slot), batch: next.value, slot });
        }
      };
      const aborted = whenAborted(signals);
      try {
        for (;;) {
          aborted.check();
          fill();
          const first = queue[0];
          if (first === undefined) return;
          await Promise.race([first.done, aborted.promise]);
          aborted.check();
          await first.settled;
          yield { batch: first.batch as never, slot: first.slot };
          idle.push(queue.shift()!.slot);
        }
      } finally {
        aborted.forget();
        for (const { job, settled, slot } of queue) {
          cancel(job);
          void settled.then(() => idle.push(slot));
        }
      }
    },
    look: (file, rank) => one(file, rank, undefined),
    async decode(file, rank) {
      const target = new SharedArrayBuffer(length);
      await one(file, rank, target);
      return new Uint8Array(target);
    },
  };
}

/** A promise that rejects with the reason of the first signal, and is nobody's unhandled rejection. */
function whenAborted(signals: readonly AbortSignal[]) {
  let reject: (reason: unknown) => void = () => {};
  const promise = new Promise<never>((_, no) => {
    reject = no;
  });
  promise.catch(() => {});
  const listeners = signals.map((signal) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    return () => signal.removeEventListener('abort', onAbort);
  });
  return {
    promise,
    check() {
      for (const signal of signals) signal.throwIfAborted();
    },
    forget() {
      for (const forget of listeners) forget();
    },
  };
}
