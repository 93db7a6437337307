/** Batches from images in memory: Keras's NumpyArrayIterator. */
import { BatchOrder } from './batch-order.ts';
import type { ImageDataGenerator } from './image-data-generator.ts';
import { checkLength, type Floats, type ImageBatch, type Pixels } from './pixels.ts';

export interface ArrayFlowOptions {
  /** One label an image, or `labelWidth` values an image. */
  labels?: ArrayLike<number>;
  /** Values a label has (1: a class index, more: one-hot). @default 1 */
  labelWidth?: number;
  /** One weight an image. */
  sampleWeights?: ArrayLike<number>;
  /** @default 32 */
  batchSize?: number;
  /** @default true */
  shuffle?: boolean;
  seed?: number;
  /** 'validation' is the first floor(n · validationSplit) images, 'training' the rest. @default all of them */
  subset?: 'training' | 'validation';
  /** Accept subsets that do not hold the same labels. @default false */
  ignoreClassSplit?: boolean;
}

export interface FlowBatch {
  images: ImageBatch;
  /** Labels of the batch, `labelWidth` values each; undefined when none were given. */
  labels?: Floats;
  sampleWeights?: Floats;
  /** Positions of the images within the subset. */
  indices: Int32Array;
}

/** Endless: iterate and break, or use `length`, the batches of an epoch. */
export class ArrayFlow implements Iterable<FlowBatch> {
  /** Images in the subset. */
  readonly count: number;
  readonly #generator: ImageDataGenerator;
  readonly #images: ImageBatch<Pixels>;
  readonly #options: ArrayFlowOptions;
  readonly #first: number;
  readonly #order: BatchOrder;

  /** @throws RangeError when lengths disagree, the subset is empty, or the two subsets do not hold the same labels */
  constructor(generator: ImageDataGenerator, images: ImageBatch<Pixels>, options: ArrayFlowOptions) {
    checkLength(images.data, images.shape, 'flow');
    const n = images.shape[0];
    const { labels, labelWidth = 1, sampleWeights, subset } = options;
    if (labels && labels.length !== n * labelWidth) {
      throw new RangeError(`flow: ${n} images need ${n * labelWidth} label values; got ${labels.length}`);
    }
    if (sampleWeights && sampleWeights.length !== n) {
      throw new RangeError(`flow: ${n} images need ${n} sample weights; got ${sampleWeights.length}`);
    }
    const split = Math.trunc(n * generator.options.validationSplit);
    if (subset && labels && !options.ignoreClassSplit && !sameLabels(labels, split * labelWidth)) {
      throw new RangeError(
        'flow: the training and validation subsets do not hold the same labels. Shuffle the images before the split, ' +
          'or set ignoreClassSplit.',
      );
    }
    this.#first = subset === 'training' ? split : 0;
    this.count = subset === 'validation' ? split : n - this.#first;
    if (this.count === 0) throw new RangeError(`flow: there are no images${subset ? ` in '${subset}'` : ''}`);
    this.#generator = generator;
    this.#images = images;
    this.#options = options;
    const { batchSize = 32, shuffle = true, seed } = options;
    this.#order = new BatchOrder({ count: this.count, batchSize, shuffle, seed });
  }

  /** Batches in an epoch. */
  get length(): number {
    return this.#order.length;
  }

  /** Returns the next batch, epoch after epoch. */
  next(): FlowBatch {
    return this.#batch(this.#order.next());
  }

  /** Returns batch `index` of the epoch (Keras's Sequence); call `onEpochEnd` to shuffle again. */
  get(index: number): FlowBatch {
    return this.#batch(this.#order.get(index));
  }

  onEpochEnd(): void {
    this.#order.endEpoch();
  }

  /** The next iteration starts at an epoch's first batch. */
  reset(): void {
    this.#order.reset();
  }

  *[Symbol.iterator](): Generator<FlowBatch, never> {
    this.reset();
    for (;;) yield this.next();
  }

  #batch({ indices, random }: ReturnType<BatchOrder['next']>): FlowBatch {
    const generator = this.#generator;
    const [, ...shape] = this.#images.shape;
    const length = shape[0] * shape[1] * shape[2];
    const Floats = generator.options.dtype === 'float64' ? Float64Array : Float32Array;
    const data = new Floats(indices.length * length);
    indices.forEach((index, i) => {
      const from = (this.#first + index) * length;
      const image = { data: this.#images.data.subarray(from, from + length), shape };
      const target = data.subarray(i * length, (i + 1) * length);
      generator.applyTransformInto(image, generator.getRandomTransform(shape, random), target);
      generator.standardize({ data: target, shape });
    });
    const pick = (values: ArrayLike<number>, width: number) => {
      const picked = new Floats(indices.length * width);
      indices.forEach((index, i) => {
        for (let k = 0; k < width; k++) picked[i * width + k] = values[(this.#first + index) * width + k]!;
      });
      return picked;
    };
    const { labels, labelWidth = 1, sampleWeights } = this.#options;
    return {
      images: { data, shape: [indices.length, ...shape] },
      ...(labels && { labels: pick(labels, labelWidth) }),
      ...(sampleWeights && { sampleWeights: pick(sampleWeights, 1) }),
      indices,
    };
  }
}

function sameLabels(labels: ArrayLike<number>, split: number): boolean {
  const all = Array.from(labels);
  const before = new Set(all.slice(0, split));
  const after = new Set(all.slice(split));
  return before.size === after.size && [...before].every((label) => after.has(label));
}
