/**
 * Folds a round's updates, as their bytes arrive, into a sum that is the same whatever their order. Several may come at
 * once. An update counts whole or not at all: one that turns out bad, or whose link is lost half-way, is taken out
 * again, exactly, because the sums are exact; for that its bytes are read back from the spool.
 */
import { parameterCount } from '@tributary/shared-protocol';
import type { TensorShape } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import type { MeanUpdate, StreamingStrategy, UpdateFacts } from '../strategy.ts';
import {
  addNoise,
  addTerms,
  clearSum,
  createReproducibleSum,
  MAX_TERMS,
  type ReproducibleSum,
  readMeans,
} from './reproducible-sum.ts';
import { createUpdateReader, readSpooled } from './update-reader.ts';

export interface Fold {
  /** Updates that count since the last `clear`. */
  readonly count: number;
  /**
   * Begins an update whose frame has `bytes` bytes.
   *
   * @throws CoordinatorError FED_UPDATE_COUNT
   */
  begin(facts: UpdateFacts, bytes: number): IncomingUpdate;
  /** L2 norm that each of them came with, by site; there where updates are clipped. */
  readonly norms: ReadonlyMap<string, number>;
  /**
   * The sum of all updates that count over the sum of their weights, or over `divisor`; valid until the next `begin` or
   * `clear`, and only while none is half-way in.
   */
  mean(divisor?: number): MeanUpdate;
  /** Has noise added to the sums, which are handed over as one array; from then on there are only `mean` and `clear`. */
  addNoise(noise: { addTo(values: Float64Array): void }): void;
  /**
   * Forgets all updates, keeps the memory. Those to come are clipped to `clippingNorm`.
   *
   * @default the strategy's
   */
  clear(clippingNorm?: number): void;
}

/** One update on its way into the sums. It ends with `finish` or with `undo`. */
export interface IncomingUpdate {
  /**
   * Takes the next bytes of its frame.
   *
   * @throws CoordinatorError FED_UPDATE_NON_FINITE, FED_UPDATE_RANGE, FED_UPDATE_MANIFEST; ProtocolError
   *   FED_PROTOCOL_FRAME_*
   */
  write(bytes: Uint8Array): void;
  /** All of it was written and lies at `path`: from now on it counts. Throws as `write` does. */
  finish(path: string): Promise<void>;
  /**
   * Takes out what is in the sums, reading it back from `path`, which holds at least as much as was written.
   *
   * @throws CoordinatorError FED_RUN_STORAGE when it can't be read back; the fold is then of no more use
   */
  undo(path: string): Promise<void>;
}

/** 16 bytes a trained parameter, from the first update on. */
export function createFold(manifest: readonly TensorShape[], strategy: StreamingStrategy): Fold {
  const length = parameterCount(manifest);
  const weights = new Map<string, number>();
  const norms = new Map<string, number>();
  let clippingNorm = strategy.updateClippingNorm;
  let sum: ReproducibleSum | undefined;
  let halfway = 0;

  function begin(facts: UpdateFacts, bytes: number): IncomingUpdate {
    if (weights.size + halfway >= MAX_TERMS) {
      throw new CoordinatorError('FED_UPDATE_COUNT', `a round takes ${MAX_TERMS} updates at most`);
    }
    sum ??= createReproducibleSum(length);
    const sums = sum;
    const weight = strategy.weigh(facts);
    const longest = clippingNorm;
    /** Parameters that are in the sums, and what each was multiplied by. */
    let folded = 0;
    let factor = weight;
    let squares = 0;
    let open = true;
    halfway++;

    const add = (values: Float32Array, at: number, tensor: string): void => {
      const added = addTerms(sums, at, values, factor);
      folded = at + added;
      if (added < values.length) throw badValue(values[added]!, tensor);
    };
    const measure = (values: Float32Array, _at: number, tensor: string): void => {
      for (let i = 0; i < values.length; i++) squares += values[i]! * values[i]!;
      if (!Number.isFinite(squares))
        throw badValue(values.find((v) => !Number.isFinite(v)) ?? Number.NaN, tensor);
    };
    // The norm is known only when all is here; it is summed in the order of the file, so it is the same on every run.
    const reader = createUpdateReader(manifest, bytes, longest === undefined ? add : measure);
    const end = (): void => {
      if (open) halfway--;
      open = false;
    };

    return {
      write: (part) => reader.write(part),
      async finish(path) {
        if (!reader.complete) {
          throw new CoordinatorError('FED_UPDATE_MANIFEST', 'the update ends before its last tensor does');
        }
        if (longest !== undefined) {
          const norm = Math.sqrt(squares);
          norms.set(facts.name, norm);
          factor = norm > longest ? weight * (longest / norm) : weight;
          const again = createUpdateReader(manifest, bytes, add);
          await readSpooled(path, (piece) => {
            again.write(piece);
            return true;
          });
        }
        weights.set(facts.name, weight);
        end();
      },
      async undo(path) {
        weights.delete(facts.name);
        norms.delete(facts.name);
        let left = folded;
        folded = 0;
        const again = createUpdateReader(manifest, bytes, (values, at) => {
          const count = Math.min(values.length, left);
          addTerms(sums, at, values.subarray(0, count), -factor);
          left -= count;
        });
        try {
          if (left > 0) {
            await readSpooled(path, (piece) => {
              again.write(piece);
              return left > 0;
            });
          }
          if (left > 0) throw new Error('it has become shorter');
        } catch (error) {
          // A digest that is found wrong a second time, after the last value, says nothing new.
          if (left > 0) throw unreadable(path, error);
        } finally {
          end();
        }
      },
    };
  }

  return {
    get count() {
      return weights.size;
    },
    norms,
    begin,
    mean(divisor) {
      // In the order of the names: weights need not be whole numbers.
      const ownWeight = [...weights]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .reduce((n, [, weight]) => n + weight, 0);
      const totalWeight = divisor ?? ownWeight;
      return {
        updates: weights.size,
        totalWeight,
        read: (offset, out) => {
          if (sum) readMeans(sum, offset, totalWeight, out);
          else out.fill(0);
        },
      };
    },
    addNoise(noise) {
      sum ??= createReproducibleSum(length);
      addNoise(sum, noise);
    },
    clear(norm = strategy.updateClippingNorm) {
      clippingNorm = norm;
      weights.clear();
      norms.clear();
      if (sum) clearSum(sum);
    },
  };
}

function unreadable(path: string, cause: unknown): CoordinatorError {
  return new CoordinatorError(
    'FED_RUN_STORAGE',
    `${path} can't be read back: ${cause instanceof Error ? cause.message : String(cause)}. Nothing that was committed is lost: start the same command again`,
    { cause },
  );
}

function badValue(value: number, tensor: string): CoordinatorError {
  return Number.isFinite(value)
    ? new CoordinatorError(
        'FED_UPDATE_RANGE',
        `${tensor} holds ${value}, which times its weight is above 2^32; training diverged at the site`,
      )
    : new CoordinatorError(
        'FED_UPDATE_NON_FINITE',
        `${tensor} holds ${value}; training diverged at the site, try a lower learning rate`,
      );
}
