/**
 * The order of samples and the seeding of Keras's iterators: before every batch the generator is seeded with
 * seed + batches seen, and at an epoch's first batch the order is drawn from that same state.
 */
import { Mt19937 } from './mt19937.ts';

export interface BatchOrderOptions {
  /** Samples. */
  count: number;
  /** Samples in a batch; the last of an epoch may be short. */
  batchSize: number;
  shuffle: boolean;
  /** Undefined: a stream that can't be repeated. */
  seed?: number | undefined;
}

/** One batch: its samples, and the generator in the state from which Keras goes on to draw the augmentation. */
export interface BatchDraw {
  indices: Int32Array;
  random: Mt19937;
}

export class BatchOrder {
  readonly #options: BatchOrderOptions;
  readonly #random: Mt19937;
  #order: Int32Array | undefined;
  #seen = 0;
  #position = 0;

  constructor(options: BatchOrderOptions) {
    if (!Number.isInteger(options.batchSize) || options.batchSize < 1) {
      throw new RangeError(`batchSize must be a whole number of at least 1; got ${options.batchSize}`);
    }
    this.#options = options;
    this.#random = new Mt19937(options.seed ?? Math.floor(Math.random() * 2 ** 32));
  }

  /** Batches in an epoch. */
  get length(): number {
    return Math.ceil(this.#options.count / this.#options.batchSize);
  }

  /** Returns the next batch, epoch after epoch. The generator is this object's own: draw before the next call. */
  next(): BatchDraw {
    this.#reseed();
    if (this.#position === 0) this.#shuffle();
    const indices = this.#slice(this.#position);
    this.#position = (this.#position + 1) % this.length;
    return { indices, random: this.#random };
  }

  /** Returns batch `index` of the epoch, as Keras's Sequence does: seeded likewise, in an order kept until `endEpoch`. */
  get(index: number): BatchDraw {
    if (!(index >= 0 && index < this.length)) {
      throw new RangeError(`batch ${index} is outside [0, ${this.length})`);
    }
    this.#reseed();
    if (!this.#order) this.#shuffle();
    return { indices: this.#slice(index), random: this.#random };
  }

  /** Draws a new order for `get`. */
  endEpoch(): void {
    this.#shuffle();
  }

  /** Goes back to the first batch of an epoch; the batches seen still count. */
  reset(): void {
    this.#position = 0;
  }

  #reseed(): void {
    if (this.#options.seed !== undefined) this.#random.seed(this.#options.seed + this.#seen);
    this.#seen++;
  }

  #shuffle(): void {
    const { count, shuffle } = this.#options;
    this.#order = shuffle ? this.#random.permutation(count) : Int32Array.from({ length: count }, (_, i) => i);
  }

  #slice(index: number): Int32Array {
    const { batchSize } = this.#options;
    return this.#order!.slice(index * batchSize, (index + 1) * batchSize);
  }
}
