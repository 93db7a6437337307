/**
 * A site's images as batches for training: listed in Keras's order, bad ones set aside, decoded ahead of need on the
 * image library's threads, kept as bytes while there is room, augmented and standardised. What comes out depends on
 * the files and the seed alone, whatever the threads do.
 */
import type { AugmentationPlan, InputPlan } from '@tributary/shared-protocol';
import { WorkerError } from '../errors.ts';
import { BatchOrder } from '../images/batch-order.ts';
import { type BatchedTf, createBatchedPath } from '../images/batched.ts';
import { type ColorMode, loadImage } from '../images/decode.ts';
import { ImageDataGenerator } from '../images/image-data-generator.ts';
import type { RandomTransform } from '../images/random-transform.ts';
import { fitStatistics } from './fit.ts';
import { type Example, readLayout, readTestLayout } from './layout.ts';
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
  /** Decoded and resized images kept in memory, in bytes. @default 512 MiB */
  maxCacheBytes?: number | undefined;
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

/** NHWC; the buffers are the receiver's own. */
export interface Batch {
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

export interface Shard {
  readonly report: ShardReport;
  /** Yields augmented, standardised, shuffled batches; the last of an epoch may be short. */
  trainBatches(options: TrainBatchesOptions): AsyncIterable<Batch>;
  /** Yields the test images in order, standardised but not augmented. */
  testBatches(options?: { signal?: AbortSignal | undefined }): AsyncIterable<Batch>;
  /** Ends every iteration and frees the cache. */
  close(): Promise<void>;
}

/** Batches decoded ahead of the one that is being used. */
const LOOK_AHEAD = 2;

const COLOR_MODES: Record<InputPlan['channels'], ColorMode> = { 1: 'grayscale', 3: 'rgb', 4: 'rgba' };

/** One batch before its pixels are there. */
interface PlannedBatch {
  examples: Example[];
  transforms: RandomTransform[] | undefined;
}

/**
 * Returns the site's shard once every image has been looked at and, where the augmentation asks for featurewise
 * statistics, these are fitted on this site's own training images.
 * @throws WorkerError FED_DATA_FOLDER_MISSING, FED_DATA_LAYOUT, FED_DATA_CLASSES_DIFFER, FED_DATA_CLASS_EMPTY,
 *   FED_DATA_TOO_MANY_UNREADABLE, FED_DATA_ZCA_TOO_LARGE
 */
export async function openShard(options: ShardOptions): Promise<Shard> {
  const { classes, input, signal } = options;
  const layout = options.testOnly
    ? await readTestLayout(options.dataDir, classes)
    : await readLayout(options.dataDir, classes, options.validationSplit);
  const pixels = createPixelCache(input, options.maxCacheBytes ?? 512 * 2 ** 20);
  const everything = [...layout.train, ...layout.test];
  const unreadable = await findUnreadable(
    everything.map((example) => example.file),
    {
      dataDir: options.dataDir,
      cacheDir: options.cacheDir,
      decode: pixels.load,
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

  const shape = [input.height, input.width, input.channels] as const;
  const { path, ...plan } = options.augmentation;
  const generator = new ImageDataGenerator(plan);
  generator.statistics = await fitStatistics(generator.options, shape, fitted, pixels.load, signal);

  const ended = new AbortController();
  const length = shape[0] * shape[1] * shape[2];

  async function* batches(
    planned: Iterable<PlannedBatch>,
    tf: BatchedTf | undefined,
    abort: AbortSignal | undefined,
  ) {
    const augment = tf && path === 'batched' ? createBatchedPath(tf, generator) : undefined;
    for await (const { batch, images } of prefetch(planned, pixels.load, [ended.signal, abort])) {
      const { examples, transforms } = batch;
      const labels = Int32Array.from(examples, ({ label }) => label);
      const batchShape: Batch['shape'] = [examples.length, ...shape];
      if (transforms && augment) {
        yield { images: await augment(images, shape, transforms), shape: batchShape, labels };
        continue;
      }
      const data = new Float32Array(examples.length * length);
      images.forEach((image, i) => {
        const target = data.subarray(i * length, (i + 1) * length);
        if (transforms) generator.applyTransformInto({ data: image, shape }, transforms[i]!, target);
        else target.set(image);
        generator.standardize({ data: target, shape });
      });
      yield { images: data, shape: batchShape, labels };
    }
  }

  function* planTraining({ seed, epochs, steps }: TrainBatchesOptions): Generator<PlannedBatch> {
    const order = new BatchOrder({ count: train.length, batchSize: options.batchSize, shuffle: true, seed });
    const total = steps ?? (epochs ?? 1) * order.length;
    for (let step = 0; step < total; step++) {
      const { indices, random } = order.next();
      const examples = Array.from(indices, (index) => train[index]!);
      yield { examples, transforms: examples.map(() => generator.getRandomTransform(shape, random)) };
    }
  }

  function* planTesting(): Generator<PlannedBatch> {
    for (let at = 0; at < test.length; at += options.batchSize) {
      yield { examples: test.slice(at, at + options.batchSize), transforms: undefined };
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
    testBatches: (request = {}) => batches(planTesting(), undefined, request.signal),
    close: async () => {
      ended.abort(new DOMException('The shard was closed', 'AbortError'));
      pixels.clear();
    },
  };
}

/**
 * Decodes `LOOK_AHEAD` batches ahead. A failure is thrown at its own batch; leaving the loop early waits for nothing
 * and leaves no rejection behind.
 */
async function* prefetch(
  planned: Iterable<PlannedBatch>,
  load: (file: string) => Promise<Uint8Array>,
  signals: readonly (AbortSignal | undefined)[],
): AsyncGenerator<{ batch: PlannedBatch; images: Uint8Array[] }> {
  const check = () => {
    for (const signal of signals) signal?.throwIfAborted();
  };
  const queue: { batch: PlannedBatch; images: Promise<Uint8Array[]> }[] = [];
  const plans = planned[Symbol.iterator]();
  const fill = () => {
    while (queue.length <= LOOK_AHEAD) {
      const next = plans.next();
      if (next.done) return;
      const images = Promise.all(next.value.examples.map(({ file }) => load(file)));
      // Seen when the batch's turn comes; until then it must not count as unhandled.
      images.catch(() => {});
      queue.push({ batch: next.value, images });
    }
  };
  for (;;) {
    check();
    fill();
    const first = queue.shift();
    if (!first) return;
    const images = await first.images;
    check();
    yield { batch: first.batch, images };
  }
}

/** Decoded, resized bytes by file; kept until the bound is reached, and not replaced after: a shuffled epoch visits
 * every file once, so no order of replacement would do better. */
function createPixelCache(input: InputPlan, maxBytes: number) {
  const kept = new Map<string, Uint8Array>();
  const pending = new Map<string, Promise<Uint8Array>>();
  let bytes = 0;
  const decode = async (file: string) => {
    const { data } = await loadImage(file, {
      colorMode: COLOR_MODES[input.channels],
      targetSize: [input.height, input.width],
      interpolation: input.interpolation,
      keepAspectRatio: input.keepAspectRatio,
    });
    if (bytes + data.length <= maxBytes) {
      bytes += data.length;
      // Not a view on the decoder's larger buffer.
      kept.set(file, data.byteLength === data.buffer.byteLength ? data : data.slice());
    }
    return data;
  };
  return {
    load(file: string): Promise<Uint8Array> {
      const ready = kept.get(file);
      if (ready) return Promise.resolve(ready);
      let running = pending.get(file);
      if (!running) {
        running = decode(file).finally(() => pending.delete(file));
        pending.set(file, running);
      }
      return running;
    },
    clear() {
      kept.clear();
      bytes = maxBytes;
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
