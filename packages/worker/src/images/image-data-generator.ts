/**
 * Keras's ImageDataGenerator, option by option: random transforms in Keras's order from numpy's generator, so that a
 * seeded run here augments exactly as it would there. Images are [height, width, channels] (or channels first) floats.
 */
import { transformInto } from './apply.ts';
import { ArrayFlow, type ArrayFlowOptions } from './array-flow.ts';
import { DirectoryFlow, type DirectoryFlowOptions } from './directory-flow.ts';
import { Mt19937 } from './mt19937.ts';
import { type ImageDataGeneratorOptions, type ResolvedOptions, resolveOptions } from './options.ts';
import { checkLength, type Floats, type ImageArray, type ImageBatch, type Pixels, sizeOf } from './pixels.ts';
import { drawTransform, IDENTITY, type RandomTransform } from './random-transform.ts';
import { channelLayout, missingStatistics, normalize, rescale, standardizeInPlace } from './standardize.ts';
import { ChannelMoments, type Statistics } from './statistics.ts';
import { checkZcaFeatures, zcaMatrix } from './zca.ts';

export interface FitOptions {
  /** Fit on randomly transformed copies instead of the images themselves. @default false */
  augment?: boolean;
  /** Copies of each image when `augment`. @default 1 */
  rounds?: number;
  seed?: number;
}

export class ImageDataGenerator {
  readonly options: ResolvedOptions;
  #statistics: Statistics = {};
  /** Where unseeded draws come from. */
  readonly #random = new Mt19937(Math.floor(Math.random() * 2 ** 32));

  /** @throws RangeError for an option that Keras, or this port, refuses */
  constructor(options: ImageDataGeneratorOptions = {}) {
    this.options = resolveOptions(options);
  }

  /** What `fit` found; the arrays are the generator's own. */
  get statistics(): Statistics {
    return this.#statistics;
  }

  /** Sets what `fit` would find, for statistics that were gathered elsewhere. */
  set statistics(statistics: Statistics) {
    this.#statistics = statistics;
  }

  /**
   * Returns the next random transform for an image of this shape.
   * @param seed a number starts a stream of its own; a generator is drawn from; without it the draw is unseeded
   */
  getRandomTransform(shape: readonly [number, number, number], seed?: number | Mt19937): RandomTransform {
    const { height, width } = sizeOf(shape, this.options.dataFormat);
    const random = typeof seed === 'number' ? new Mt19937(seed) : (seed ?? this.#random);
    return drawTransform(this.options, height, width, random);
  }

  /** Returns a transformed copy: affine, channel shift, flips, brightness. Absent params are identities. */
  applyTransform(image: ImageArray<Pixels>, params: Partial<RandomTransform>): ImageArray {
    checkLength(image.data, image.shape, 'applyTransform');
    const data = this.#empty(image.data.length);
    this.applyTransformInto(image, { ...IDENTITY, ...params }, data);
    return { data, shape: image.shape };
  }

  /** `applyTransform` into `target`, which has the image's length and shares no memory with it. */
  applyTransformInto(image: ImageArray<Pixels>, params: RandomTransform, target: Floats): void {
    transformInto(this.options, image, params, target);
  }

  /** Returns a copy transformed by the next random transform (see `getRandomTransform`). */
  randomTransform(image: ImageArray<Pixels>, seed?: number | Mt19937): ImageArray {
    return this.applyTransform(image, this.getRandomTransform(image.shape, seed));
  }

  /**
   * Standardises the image in place and returns it: preprocessingFunction, rescale, samplewise, featurewise, ZCA.
   * @throws RangeError when the options need statistics and `fit` was not called
   */
  standardize(image: ImageArray): ImageArray {
    const missing = missingStatistics(this.options, this.#statistics);
    if (missing.length > 0) {
      throw new RangeError(`standardize: ${missing.join(' and ')} must be fitted first: call fit(images)`);
    }
    standardizeInPlace(image, this.options, this.#statistics);
    return image;
  }

  /**
   * Computes the featurewise mean and std, and the ZCA matrix, that the options ask for, over rescaled images (the
   * preprocessing function has no part in it, as in Keras). The images are not changed.
   * @throws WorkerError FED_DATA_ZCA_TOO_LARGE
   */
  fit(images: ImageBatch<Pixels>, { augment = false, rounds = 1, seed }: FitOptions = {}): void {
    checkLength(images.data, images.shape, 'fit');
    const [n, ...shape] = images.shape;
    if (n === 0) throw new RangeError('fit: there are no images');
    const length = images.data.length / n;
    if (this.options.zcaWhitening) checkZcaFeatures(length);
    const random = seed === undefined ? this.#random : new Mt19937(seed);
    let all: Floats = this.#empty(images.data.length);
    all.set(images.data);
    rescale(all, this.options.rescale);
    if (augment) {
      const copies = this.#empty(all.length * rounds);
      for (let i = 0; i < n * rounds; i++) {
        const data = all.subarray((i % n) * length, ((i % n) + 1) * length);
        copies.set(this.randomTransform({ data, shape }, random).data, i * length);
      }
      all = copies;
    }
    const layout = channelLayout(shape, this.options);
    const moments = new ChannelMoments(layout);
    for (let at = 0; at < all.length; at += length) moments.add(all.subarray(at, at + length));
    const statistics: Statistics = {};
    if (this.options.featurewiseCenter) statistics.mean = moments.mean(this.options.dtype);
    if (this.options.featurewiseStdNormalization) statistics.std = moments.std();
    if (this.options.zcaWhitening) {
      normalize(all, layout, moments.mean(this.options.dtype));
      statistics.zcaMatrix = zcaMatrix(all, length, this.options.zcaEpsilon);
    }
    this.#statistics = statistics;
  }

  /** Returns batches of augmented, standardised images from memory. @throws RangeError (see ArrayFlow) */
  flow(images: ImageBatch<Pixels>, options: ArrayFlowOptions = {}): ArrayFlow {
    return new ArrayFlow(this, images, options);
  }

  /** Returns batches from a folder with one folder a class. @throws WorkerError FED_DATA_FOLDER_MISSING */
  flowFromDirectory(directory: string, options: DirectoryFlowOptions = {}): Promise<DirectoryFlow> {
    return DirectoryFlow.open(this, directory, options);
  }

  #empty(length: number): Floats {
    return this.options.dtype === 'float64' ? new Float64Array(length) : new Float32Array(length);
  }
}
