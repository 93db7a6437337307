/**
 * One thread's share of the work: it claims images of the oldest job and makes them, two at a time, so that one is
 * augmented here while the image library decodes another on its own threads. What an image becomes depends on its file
 * and its task alone, so it does not matter who makes it.
 */
import { readFileSync } from 'node:fs';
import { WorkerError } from '../errors.ts';
import { prepareInto } from '../images/apply.ts';
import { decodeImage, decodeOrdinaryJpeg, fitImage, type LoadOptions, unopenable } from '../images/decode.ts';
import { resolveOptions } from '../images/options.ts';
import type { Statistics } from '../images/statistics.ts';
import {
  claim,
  DONE,
  type ImageFailure,
  type ImageJob,
  type ImageTask,
  type PipelineSetup,
  settle,
  WAITING,
} from './job.ts';

export interface Lanes {
  /** Works on what is unclaimed of the job, and resolves once that is done, with what failed. Never rejects. */
  run(job: ImageJob): Promise<ImageFailure[]>;
  /** What later jobs standardise with. */
  useStatistics(statistics: Statistics): void;
}

const LANES = 2;
const COLOR_MODES = { 1: 'grayscale', 3: 'rgb', 4: 'rgba' } as const;

interface Running {
  readonly job: ImageJob;
  readonly failures: ImageFailure[];
  inHand: number;
  exhausted: boolean;
  finish(failures: ImageFailure[]): void;
}

/** @param thread this thread's number among those that share jobs, from 1 */
export function createLanes({ input, augmentation }: PipelineSetup, thread: number): Lanes {
  const options = resolveOptions(augmentation);
  let statistics: Statistics = {};
  const shape = [input.height, input.width, input.channels] as const;
  const length = shape[0] * shape[1] * shape[2];
  const fit: LoadOptions = {
    colorMode: COLOR_MODES[input.channels],
    targetSize: [input.height, input.width],
    interpolation: input.interpolation,
    keepAspectRatio: input.keepAspectRatio,
  };
  const queue: Running[] = [];
  let lanes = 0;

  /** One a lane, for pixels that are used up before the lane goes on. */
  const scratches: Uint8Array[] = [];

  async function lane(): Promise<void> {
    lanes++;
    const scratch = scratches.pop() ?? new Uint8Array(length);
    for (let next = take(); next !== undefined; next = take()) {
      const { running, index } = next;
      const { job } = running;
      const task = job.tasks[index]!;
      try {
        await make(task, job, index, scratch);
        settle(job, index, DONE);
      } catch (error) {
        settle(job, index, WAITING);
        running.failures.push({ index, ...describe(error) });
      }
      running.inHand--;
      if (running.exhausted && running.inHand === 0) running.finish(running.failures);
    }
    scratches.push(scratch);
    lanes--;
  }

  function take(): { running: Running; index: number } | undefined {
    for (let running = queue[0]; running !== undefined; running = queue[0]) {
      const index = claim(running.job, thread);
      if (index !== undefined) {
        running.inHand++;
        return { running, index };
      }
      queue.shift();
      running.exhausted = true;
      if (running.inHand === 0) running.finish(running.failures);
    }
    return undefined;
  }

  async function make(task: ImageTask, { target, output }: ImageJob, index: number, scratch: Uint8Array) {
    const data = task.cached
      ? new Uint8Array(task.cached.slab, task.cached.offset, length)
      : await decode(task.file, scratch);
    if (task.keep) new Uint8Array(task.keep.slab, task.keep.offset, length).set(data);
    if (target === undefined) return;
    if (output === 'bytes') {
      new Uint8Array(target, index * length, length).set(data);
      return;
    }
    const floats = new Float32Array(target, index * length * Float32Array.BYTES_PER_ELEMENT, length);
    prepareInto(options, statistics, { data, shape }, task.transform, floats);
  }

  async function decode(file: string, scratch: Uint8Array): Promise<Uint8Array> {
    let bytes: Uint8Array;
    try {
      // This thread has nothing better to do, and an asynchronous read costs four changes of thread.
      bytes = readFileSync(file);
    } catch (cause) {
      throw unopenable(file, cause);
    }
    const plain = decodeOrdinaryJpeg(bytes, fit);
    const fitted = fitImage(plain ?? (await decodeImage(bytes, file)), fit, scratch);
    // The decoder's own memory, when nothing was left to do: the other lane may decode before it is read.
    if (fitted !== plain) return fitted.data;
    scratch.set(fitted.data);
    return scratch;
  }

  return {
    run(job) {
      return new Promise((finish) => {
        queue.push({ job, failures: [], inHand: 0, exhausted: false, finish });
        for (let spare = LANES - lanes; spare > 0; spare--) void lane();
      });
    },
    useStatistics(found) {
      statistics = found;
    },
  };
}

/** No more is imported here than is needed: every thread loads it all. */
function describe(error: unknown): { code: string | undefined; message: string } {
  if (error instanceof WorkerError) return { code: error.code, message: error.message };
  return { code: undefined, message: error instanceof Error ? error.message : String(error) };
}
