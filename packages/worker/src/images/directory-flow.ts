/** Batches from a folder that holds one folder a class: Keras's DirectoryIterator. */

import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { WorkerError } from '../errors.ts';
import { BatchOrder } from './batch-order.ts';
import { type ColorMode, loadImage } from './decode.ts';
import type { ImageDataGenerator } from './image-data-generator.ts';
import { listFolders, listImages, takeSubset } from './listing.ts';
import type { Floats, ImageBatch } from './pixels.ts';
import type { Interpolation } from './resize.ts';

export type ClassMode = 'categorical' | 'binary' | 'sparse' | 'input' | null;

export interface DirectoryFlowOptions {
  /** [height, width] in pixels. @default [256, 256] */
  targetSize?: readonly [number, number];
  /** @default 'rgb' */
  colorMode?: ColorMode;
  /** Folder names in the order of their indices. @default every subfolder, by code point */
  classes?: readonly string[] | null;
  /** One-hot, index (binary and sparse), the images themselves, or no labels. @default 'categorical' */
  classMode?: ClassMode;
  /** @default 32 */
  batchSize?: number;
  /** @default true */
  shuffle?: boolean;
  seed?: number | null;
  followLinks?: boolean;
  /** Of each class: 'validation' is the first share of its files, 'training' the rest. @default all of them */
  subset?: 'training' | 'validation' | null;
  /** @default 'nearest' */
  interpolation?: Interpolation;
  /** @default false */
  keepAspectRatio?: boolean;
}

export interface DirectoryBatch {
  images: ImageBatch;
  /** n values for binary and sparse, n × classes for categorical, a copy of the images for input. */
  labels?: Floats;
  /** Positions in `filenames`. */
  indices: Int32Array;
}

/** Endless: iterate and break, or use `length`, the batches of an epoch. */
export class DirectoryFlow implements AsyncIterable<DirectoryBatch> {
  /** Relative to the directory, with forward slashes. */
  readonly filenames: readonly string[];
  /** The class index of each file. */
  readonly classes: Int32Array;
  readonly classIndices: Readonly<Record<string, number>>;
  /** Names in index order; classIndices loses it for names that look like numbers. */
  readonly classNames: readonly string[];
  readonly #generator: ImageDataGenerator;
  readonly #directory: string;
  readonly #options: DirectoryFlowOptions;
  readonly #order: BatchOrder;

  private constructor(
    generator: ImageDataGenerator,
    directory: string,
    options: DirectoryFlowOptions,
    classNames: readonly string[],
    files: readonly string[][],
  ) {
    this.#generator = generator;
    this.#directory = directory;
    this.#options = options;
    this.classNames = classNames;
    this.classIndices = Object.fromEntries(classNames.map((name, index) => [name, index]));
    this.filenames = files.flat();
    this.classes = Int32Array.from(files.flatMap((names, index) => names.map(() => index)));
    const { batchSize = 32, shuffle = true, seed } = options;
    this.#order = new BatchOrder({
      count: this.filenames.length,
      batchSize,
      shuffle,
      seed: seed ?? undefined,
    });
  }

  /**
   * Lists the files; nothing is decoded yet.
   * @throws WorkerError FED_DATA_FOLDER_MISSING when the directory, or the folder of a class that was asked for, is not there
   */
  static async open(
    generator: ImageDataGenerator,
    directory: string,
    options: DirectoryFlowOptions,
  ): Promise<DirectoryFlow> {
    const { followLinks = false, subset = null } = options;
    await needFolder(directory);
    const classNames = options.classes ?? (await listFolders(directory));
    const files: string[][] = [];
    for (const name of classNames) {
      await needFolder(join(directory, name));
      const all = await listImages(directory, name, { followLinks });
      files.push(takeSubset(all, generator.options.validationSplit, subset));
    }
    return new DirectoryFlow(generator, directory, options, classNames, files);
  }

  /** Batches in an epoch. */
  get length(): number {
    return this.#order.length;
  }

  /** Returns the samples of the next batch without loading them, and moves on. */
  nextIndices(): Int32Array {
    return this.#order.next().indices;
  }

  /** Returns the next batch, epoch after epoch; images are decoded side by side. Await it before the next call. */
  next(): Promise<DirectoryBatch> {
    return this.#batch(this.#order.next());
  }

  /** Returns batch `index` of the epoch (Keras's Sequence); call `onEpochEnd` to shuffle again. */
  get(index: number): Promise<DirectoryBatch> {
    return this.#batch(this.#order.get(index));
  }

  onEpochEnd(): void {
    this.#order.endEpoch();
  }

  /** The next iteration starts at an epoch's first batch. */
  reset(): void {
    this.#order.reset();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<DirectoryBatch, void> {
    this.reset();
    while (this.filenames.length > 0) yield await this.next();
  }

  async #batch({ indices, random }: ReturnType<BatchOrder['next']>): Promise<DirectoryBatch> {
    const generator = this.#generator;
    const { dataFormat, dtype } = generator.options;
    const { targetSize = [256, 256], colorMode = 'rgb', classMode = 'categorical' } = this.#options;
    const [height, width] = targetSize;
    const channels = { grayscale: 1, rgb: 3, rgba: 4 }[colorMode];
    const shape =
      dataFormat === 'channels_last'
        ? ([height, width, channels] as const)
        : ([channels, height, width] as const);
    // All draws of the batch come first, in order; then the loads may end in any order.
    const transforms = Array.from(indices, () => generator.getRandomTransform(shape, random));
    const length = height * width * channels;
    const FloatArray = dtype === 'float64' ? Float64Array : Float32Array;
    const data = new FloatArray(indices.length * length);
    let next = 0;
    const lane = async () => {
      while (next < indices.length) {
        const i = next++;
        const file = join(this.#directory, this.filenames[indices[i]!]!);
        const { interpolation = 'nearest', keepAspectRatio = false } = this.#options;
        const raster = await loadImage(file, { colorMode, targetSize, interpolation, keepAspectRatio });
        const bytes = dataFormat === 'channels_last' ? raster.data : toPlanes(raster.data, channels);
        const target = data.subarray(i * length, (i + 1) * length);
        generator.applyTransformInto({ data: bytes, shape }, transforms[i]!, target);
        generator.standardize({ data: target, shape });
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, lane));
    const labels = this.#labels(indices, data, classMode);
    return { images: { data, shape: [indices.length, ...shape] }, ...(labels && { labels }), indices };
  }

  #labels(indices: Int32Array, images: Floats, mode: ClassMode): Floats | undefined {
    if (mode === null) return undefined;
    if (mode === 'input') return images.slice();
    const width = mode === 'categorical' ? this.classNames.length : 1;
    const labels =
      images instanceof Float64Array
        ? new Float64Array(indices.length * width)
        : new Float32Array(indices.length * width);
    indices.forEach((index, i) => {
      const label = this.classes[index]!;
      if (mode === 'categorical') labels[i * width + label] = 1;
      else labels[i] = label;
    });
    return labels;
  }
}

async function needFolder(path: string): Promise<void> {
  const info = await stat(path).catch(() => undefined);
  if (info?.isDirectory()) return;
  throw new WorkerError('FED_DATA_FOLDER_MISSING', `${path}: there is no such folder`);
}

function toPlanes(data: Uint8Array, channels: number): Uint8Array {
  const plane = data.length / channels;
  const planes = new Uint8Array(data.length);
  for (let i = 0; i < plane; i++) {
    for (let k = 0; k < channels; k++) planes[k * plane + i] = data[i * channels + k]!;
  }
  return planes;
}
