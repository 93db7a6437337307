/**
 * A site's images as batches for training: listed in Keras's order, bad ones set aside, then made ahead of need by the
 * image threads of pipeline/ in a ring of shared memory, and kept decoded while there is room. What comes out depends
 * on the files and the seed alone, whatever the threads do.
 */
import { availableParallelism, totalmem } from 'node:os';
import { cryptoWords, type RandomWords } from '@tributary/privacy';
import type { AugmentationPlan, InputPlan } from '@tributary/shared-protocol';
import { WorkerError } from '../errors.ts';
import { BatchOrder } from '../images/batch-order.ts';
import { type BatchedTf, createBatchedPath } from '../images/batched.ts';
import { ImageDataGenerator } from '../images/image-data-generator.ts';
import { Mt19937 } from '../images/mt19937.ts';
import { createImagePool, type ImagePool } from '../pipeline/image-pool.ts';
import { createPixelCache } from '../pipeline/pixel-cache.ts';
import { createRing, type PlannedBatch } from '../pipeline/ring.ts';
import { fitStatistics } from './fit.ts';
import { type Example, type Layout, readLayout, readTestLayout } from './layout.ts';
import { samplePoisson } from './poisson-sampling.ts';
import { findUnreadable, type Unreadable } from './verify.ts';

export interface ShardOptions {
  /** Holds `train/<class>/` and `test/<class>/`, or one folder a class. */
  dataDir: string;
  /** The federation's, in the order of the model's outputs. */
  classes: readonly string[];
  input: InputPlan;
  augmentation: AugmentationPlan;
  batchSize: number;
  /** Share of each class held out when there is no test folder, in (0, 1). */
  validationSplit?: number | undefined;
  /**
   * All images are test examples and there is nothing to train on; featurewise statistics are fitted on them.
   * @default false
   */
  testOnly?: boolean | undefined;
  /** Above this share of unreadable images the shard is refused, in [0, 1]. */
  maxUnreadableShare: number;
  /** Where what is known about the files is kept, to make the next start quick. */
  cacheDir?: string | undefined;
  /** Decoded and resized images kept in memory, in bytes. @default 512 MiB, at most an eighth of the machine's memory */
  maxCacheBytes?: number | undefined;
  /** Threads that make images; 0: the calling thread does. @default one a core but one, from 1 to 8 */
  imageThreads?: number | undefined;
  /** Called while the images are looked at, with their share in [0, 1]. */
  onProgress?: ((share: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface ShardReport {
  trainExamples: number;
  testExamples: number;
  /** In the order of the classes. */
  trainExamplesByClass: number[];
  unreadable: Unreadable[];
}

/** NHWC. */
export interface Batch {
  /** Valid until the next batch is asked for: its memory is used again. */
  images: Float32Array;
  /** [n, height, width, channels] */
  shape: [number, number, number, number];
  /** Class index, n of them. */
  labels: Int32Array;
}

export interface TrainBatchesOptions {
  /** In [0, 2^32): same seed, same files, same batches. */
  seed: number;
  /** Passes over the training images. @default 1, unless `steps` is given */
  epochs?: number | undefined;
  /** Batches, instead of epochs. */
  steps?: number | undefined;
  /** tfjs-core, with its backend set: used when the plan's path is 'batched'. */
  tf?: BatchedTf | undefined;
  signal?: AbortSignal | undefined;
}

export interface PoissonBatchesOptions {
  /** Probability of each training image to be in a batch, in (0, 1]. */
  samplingRate: number;
  /** Batches. */
  steps: number;
  /** Where the choice of images comes from, and their augmentation. @default node:crypto */
  random?: RandomWords | undefined;
  tf?: BatchedTf | undefined;
  signal?: AbortSignal | undefined;
}

/** A Poisson batch, or a part of one. */
export interface PoissonPart extends Batch {
  /** Whether this is the last part of its batch. An empty batch is one part without images. */
  endsBatch: boolean;
}

export interface Shard {
  readonly report: ShardReport;
  /** Yields augmented, standardised, shuffled batches; the last of an epoch may be short. */
  trainBatches(options: TrainBatchesOptions): AsyncIterable<Batch>;
  /** Yields Poisson samples of the images, augmented and standardised, in parts of at most `batchSize`. */
  poissonBatches(options: PoissonBatchesOptions): AsyncIterable<PoissonPart>;
  /** Yields the test images in order, standardised but not augmented. */
  testBatches(options?: { signal?: AbortSignal | undefined }): AsyncIterable<Batch>;
  /** Ends every iteration and the image threads. */
  close(): Promise<void>;
}

const MAX_CACHE_BYTES = 512 * 2 ** 20;
const MAX_IMAGE_THREADS = 8;

/** A batch as it was planned, and its examples. */
interface PlannedExamples extends PlannedBatch {
  readonly examples: readonly Example[];
  /** False: the batch goes on with the next. */
  readonly endsBatch: boolean;
}

/**
 * Returns the site's shard once every image has been looked at and, where the augmentation asks for featurewise
 * statistics, these are fitted on this site's own training images.
 * @throws WorkerError FED_DATA_FOLDER_MISSING, FED_DATA_LAYOUT, FED_DATA_CLASSES_DIFFER, FED_DATA_CLASS_EMPTY,
 *   FED_DATA_TOO_MANY_UNREADABLE, FED_DATA_ZCA_TOO_LARGE
 */
export async function openShard(options: ShardOptions): Promise<Shard> {
  const layout = options.testOnly
    ? await readTestLayout(options.dataDir, options.classes)
    : await readLayout(options.dataDir, options.classes, options.validationSplit);
  const { path: _, ...augmentation } = options.augmentation;
  const threads =
    options.imageThreads ?? Math.min(MAX_IMAGE_THREADS, Math.max(1, availableParallelism() - 1));
  const pool = createImagePool({ input: options.input, augmentation }, threads);
  try {
    return await fillShard(options, layout, pool);
  } catch (error) {
    await pool.close();
    throw error;
  }
}

async function fillShard(options: ShardOptions, layout: Layout, pool: ImagePool): Promise<Shard> {
  const { classes, input, batchSize, signal } = options;
  const shape = [input.height, input.width, input.channels] as const;
  const length = shape[0] * shape[1] * shape[2];
  const maxCacheBytes = options.maxCacheBytes ?? Math.min(MAX_CACHE_BYTES, totalmem() / 8);
  const cache = createPixelCache(length, maxCacheBytes);
  const ring = createRing({ pool, cache, length, batchSize });
  const everything = [...layout.train, ...layout.test];
  const unreadable = await findUnreadable(
    everything.map((example) => example.file),
    {
      dataDir: options.dataDir,
      cacheDir: options.cacheDir,
      decode: (file, index) => ring.look(file, index < layout.train.length ? 'train' : 'test'),
      onProgress: options.onProgress,
      signal,
    },
  );
  refuseIfTooMany(unreadable, everything.length, options.maxUnreadableShare);
  const bad = new Set(unreadable.map(({ file }) => file));
  const train = layout.train.filter(({ file }) => !bad.has(file));
  const test = layout.test.filter(({ file }) => !bad.has(file));
  const fitted = options.testOnly ? test : train;
  if (fitted.length === 0) {
    throw new WorkerError(
      'FED_DATA_TOO_MANY_UNREADABLE',
      `${options.dataDir}: no ${options.testOnly ? 'test' : 'training'} image can be read`,
    );
  }

  const { path, ...plan } = options.augmentation;
  const generator = new ImageDataGenerator(plan);
  const load = (file: string) => ring.decode(file, options.testOnly ? 'test' : 'train');
  generator.statistics = await fitStatistics(generator.options, shape, fitted, load, signal);
  pool.useStatistics(generator.statistics);

  const ended = new AbortController();
  /** What batches are read from, after their iteration: fresh memory costs more than the copy. */
  const spares: Float32Array[] = [];

  async function* batches(
    planned: Iterable<PlannedExamples>,
    tf: BatchedTf | undefined,
    abort: AbortSignal | undefined,
  ): AsyncGenerator<PoissonPart> {
    const signals = abort === undefined ? [ended.signal] : [ended.signal, abort];
    const augment = tf && path === 'batched' ? createBatchedPath(tf, generator) : undefined;
    // Engines copy what they are given, but not all of them from shared memory.
    const own = spares.pop() ?? new Float32Array(batchSize * length);
    try {
      for await (const { batch, slot } of ring.batches(planned, augment ? 'bytes' : 'floats', signals)) {
        const { examples, transforms, endsBatch } = batch;
        const n = examples.length;
        let images: Float32Array;
        if (augment && transforms && n > 0) {
          const pixels = examples.map((_, i) => new Uint8Array(slot, i * length, length));
          images = await augment(pixels, shape, transforms);
        } else {
          images = own.subarray(0, n * length);
          images.set(new Float32Array(slot, 0, n * length));
        }
        const labels = Int32Array.from(examples, ({ label }) => label);
        yield { images, shape: [n, ...shape], labels, endsBatch };
      }
    } finally {
      spares.push(own);
    }
  }

  function* planTraining({ seed, epochs, steps }: TrainBatchesOptions): Generator<PlannedExamples> {
    const order = new BatchOrder({ count: train.length, batchSize, shuffle: true, seed });
    const total = steps ?? (epochs ?? 1) * order.length;
    for (let step = 0; step < total; step++) {
      const { indices, random } = order.next();
      yield planned(
        Array.from(indices, (index) => train[index]!),
        random,
      );
    }
  }

  function* planPoisson({
    samplingRate,
    steps,
    random = cryptoWords(),
  }: PoissonBatchesOptions): Generator<PlannedExamples> {
    const transforms = new Mt19937(random());
    for (let step = 0; step < steps; step++) {
      const chosen = samplePoisson(train.length, samplingRate, random).map((index) => train[index]!);
      let at = 0;
      do {
        const part = chosen.slice(at, at + batchSize);
        at += batchSize;
        yield planned(part, transforms, at >= chosen.length);
      } while (at < chosen.length);
    }
  }

  function planned(examples: readonly Example[], random: Mt19937, endsBatch = true): PlannedExamples {
    const transforms = examples.map(() => generator.getRandomTransform(shape, random));
    return { examples, files: examples.map(({ file }) => file), transforms, rank: 'train', endsBatch };
  }

  function* planTesting(): Generator<PlannedExamples> {
    for (let at = 0; at < test.length; at += batchSize) {
      const examples = test.slice(at, at + batchSize);
      yield { examples, files: examples.map(({ file }) => file), rank: 'test', endsBatch: true };
    }
  }

  return {
    report: {
      trainExamples: train.length,
      testExamples: test.length,
      trainExamplesByClass: classes.map(
        (_, label) => train.filter((example) => example.label === label).length,
      ),
      unreadable,
    },
    trainBatches: (request) => batches(planTraining(request), request.tf, request.signal),
    poissonBatches: (request) => batches(planPoisson(request), request.tf, request.signal),
    testBatches: (request = {}) => batches(planTesting(), undefined, request.signal),
    close: async () => {
      ended.abort(new DOMException('The shard was closed', 'AbortError'));
      await pool.close();
    },
  };
}

function refuseIfTooMany(unreadable: readonly Unreadable[], total: number, maxShare: number): void {
  if (unreadable.length === 0 || unreadable.length <= maxShare * total) return;
  const percent = (share: number) => `${Math.round(share * 1000) / 10}%`;
  const named = unreadable.slice(0, 5).map(({ file, reason }) => `\n  ${file}: ${reason}`);
  const more = unreadable.length > named.length ? `\n  and ${unreadable.length - named.length} more` : '';
  throw new WorkerError(
    'FED_DATA_TOO_MANY_UNREADABLE',
    `${unreadable.length} of ${total} images (${percent(unreadable.length / total)}) can't be read; the federation ` +
      `allows ${percent(maxShare)}. Mend or remove them:${named.join('')}${more}`,
  );
}
