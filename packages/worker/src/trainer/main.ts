/**
 * The trainer process: holds the engine, the images and the model, and does one job at a time. It may block or run out
 * of memory without the agent missing a heartbeat. Started by handle.ts only; when its parent is gone, so is it.
 */
import { readFile } from 'node:fs/promises';
import { type Engine, loadEngine } from '@tributary/engine';
import {
  crashPoint,
  decodeFrame,
  encodeFrame,
  errorCode,
  expectLargeBuffers,
  sharedNoiseOf,
} from '@tributary/shared-protocol';
import { writeFileAtomic } from '../agent/atomic-file.ts';
import { withRoom } from '../agent/room.ts';
import type { TrainerSetup } from '../agent/trainer-keeper.ts';
import { openShard, type Shard } from '../data/shard.ts';
import { protectResult } from '../site-level.ts';
import { openLocalModel } from './local-model.ts';
import type { EvaluateJob, FromTrainer, JobResult, ToTrainer, TrainJob } from './messages.ts';
import { trainPrivateRound } from './private-training.ts';
import { evaluateModel, type JobContext, type JobOptions, type Timing, trainRound } from './train.ts';

/** Progress goes out when it has grown by this much. */
const PROGRESS_STEP = 0.01;
/** A wait for images that is worth a word: at least this long, and at least this share of the round. */
const LONG_WAIT_MS = 2000;
const LONG_WAIT_SHARE = 0.1;

let context: (JobContext & { readonly data: Shard }) | undefined;
let current: AbortController | undefined;

// Weights, images and what a step returns lie outside of the heap.
expectLargeBuffers();

process.on('disconnect', () => process.exit(0));
// Ctrl-C in a terminal reaches the whole group; the agent decides what becomes of the job.
process.on('SIGINT', () => {});
process.on('message', (message: ToTrainer) => void receive(message));

async function receive(message: ToTrainer): Promise<void> {
  switch (message.type) {
    case 'setup':
      return await answer(() => prepare(message.setup));
    case 'train':
      return await answer((options) => train(message.job, options));
    case 'evaluate':
      return await answer((options) => evaluate(message.job, options));
    case 'abort':
      return current?.abort();
    case 'close':
      await context?.data.close();
      return process.disconnect();
  }
}

/** Runs one piece of work and sends its outcome; there is at most one at a time. */
async function answer(work: (options: JobOptions) => Promise<FromTrainer>): Promise<void> {
  const controller = new AbortController();
  current = controller;
  try {
    send(await work({ signal: controller.signal, onProgress: progressReporter() }));
  } catch (error) {
    if (controller.signal.aborted) return send({ type: 'aborted' });
    const code = errorCode(error);
    // An error without a code is a defect or a lack of memory: the process says so and ends.
    if (code === undefined || !code.startsWith('FED_')) throw error;
    send({ type: 'failed', code, message: (error as Error).message });
  } finally {
    current = undefined;
  }
}

async function prepare(setup: TrainerSetup): Promise<FromTrainer> {
  const { federation, siteName, dataDir, workDir } = setup;
  const engine: Engine = await loadEngine({
    prefer: setup.engine,
    ...(setup.engines === undefined ? {} : { among: setup.engines }),
    ...(setup.threads === undefined ? {} : { threads: setup.threads }),
  });
  const { classes, input, augmentation, training, maxUnreadableShare } = federation;
  const data = await openShard({
    dataDir,
    classes,
    input,
    augmentation,
    batchSize: training.batchSize,
    validationSplit: training.validationSplit,
    testOnly: setup.testOnly,
    maxUnreadableShare,
    cacheDir: workDir,
    imageThreads: setup.imageThreads,
    maxCacheBytes: setup.maxCacheBytes,
    onProgress: progressReporter(),
  });
  const local = await openLocalModel(federation);
  context = { federation, siteName, local, data };
  const { trainExamples, testExamples, trainExamplesByClass, unreadable } = data.report;
  for (const { file, reason } of unreadable) send({ type: 'log', message: `Set aside ${file}: ${reason}` });
  crashPoint('trainer:prepared');
  return {
    type: 'ready',
    site: {
      trainExamples,
      testExamples,
      // How its records divide is not for others where each of them is protected.
      trainExamplesByClass: federation.privacy === undefined ? trainExamplesByClass : [],
      unreadable: unreadable.length,
      engine: `${engine.name}: ${engine.description}`,
    },
    engineReason: engine.reason,
  };
}

async function train(job: TrainJob, options: JobOptions): Promise<FromTrainer> {
  const { tensors } = decodeFrame(await readFile(job.globalFile));
  crashPoint('trainer:before-training');
  const { round, learningRate } = job;
  const plan = { round, learningRate, global: tensors };
  const telling = { ...options, onTiming: tellIfItWaited };
  const context = prepared();
  const privacy = context.federation.privacy?.differentialPrivacy;
  const trained =
    privacy?.unit === 'record'
      ? await trainPrivateRound(context, { ...plan, privacy }, telling)
      : await trainRound(context, plan, telling);
  const { update, numExamples, metrics } =
    privacy?.unit === 'site'
      ? protectResult(trained, privacy, job.told ?? {}, sharedNoiseOf(context.federation.privacy))
      : trained;
  crashPoint('trainer:before-update');
  // What took so long to make is not thrown away for want of room.
  const frame = encodeFrame(update, { round });
  await withRoom(() => writeFileAtomic(job.outFile, frame), {
    what: `the update of round ${round}`,
    onLog: (message) => send({ type: 'log', message }),
    ...options,
  });
  crashPoint('trainer:after-update');
  return done({ numExamples, metrics });
}

/** A site whose engine waits for images is slower than it could be, and its operator can do something about it. */
function tellIfItWaited({ waitedMs, totalMs }: Timing): void {
  if (waitedMs < LONG_WAIT_MS || waitedMs < LONG_WAIT_SHARE * totalMs) return;
  const share = Math.round((100 * waitedMs) / totalMs);
  const message =
    `Training waited for images ${share}% of the time (${(waitedMs / 1000).toFixed(1)} s). ` +
    'More image threads (--image-threads), more decoded images in memory (--image-cache) or smaller files would help.';
  send({ type: 'log', message });
}

async function evaluate(job: EvaluateJob, options: JobOptions): Promise<FromTrainer> {
  const { tensors } = decodeFrame(await readFile(job.globalFile));
  crashPoint('trainer:before-evaluation');
  return done(await evaluateModel(prepared(), { global: tensors }, options));
}

function prepared(): JobContext {
  if (context === undefined) throw new Error('a job came before the set-up');
  return context;
}

function done(result: JobResult): FromTrainer {
  return { type: 'done', result };
}

function progressReporter(): (progress: number) => void {
  let last = 0;
  return (progress) => {
    if (progress < 1 && progress < last + PROGRESS_STEP) return;
    last = progress;
    send({ type: 'progress', progress });
  };
}

function send(message: FromTrainer): void {
  if (process.connected) process.send?.(message);
}
