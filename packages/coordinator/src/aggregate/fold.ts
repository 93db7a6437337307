/**
 * Folds a round's updates, one spooled file at a time, into a sum that is the same whatever their order. An update
 * counts whole or not at all: one that turns out bad half-way is taken out again, exactly, because the sums are exact.
 * The file's bytes are those whose SHA-256 was offered (checked as they came in), so its tensors are not hashed again.
 */
import { createHash } from 'node:crypto';
import type { TensorShape } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import type { MeanUpdate, StreamingStrategy, UpdateFacts } from '../strategy.ts';
import {
  addTerms,
  clearSum,
  createReproducibleSum,
  MAX_TERMS,
  type ReproducibleSum,
  readMeans,
} from './reproducible-sum.ts';
import { BLOCK, openUpdateFile, type UpdateFile } from './update-file.ts';

export interface Fold {
  /** Updates folded in since the last `clear`. */
  readonly count: number;
  /**
   * Folds in the update at `path`; calls made while one is at work wait for it. Memory: one block beside the sums.
   *
   * @throws CoordinatorError FED_UPDATE_NON_FINITE, FED_UPDATE_RANGE, FED_UPDATE_MANIFEST, FED_UPDATE_COUNT; the sums
   *   are then as if the update had never come
   */
  add(path: string, facts: UpdateFacts): Promise<void>;
  /** Resolves when no update is half folded in. */
  settled(): Promise<void>;
  /** The mean of all updates; valid until the next `add` or `clear`. */
  mean(): MeanUpdate;
  /** Forgets all updates, keeps the memory. */
  clear(): void;
}

/** 16 bytes a trained parameter, from the first update on. */
export function createFold(manifest: readonly TensorShape[], strategy: StreamingStrategy): Fold {
  const length = manifest.reduce((n, t) => n + t.shape.reduce((a, b) => a * b, 1), 0);
  let sum: ReproducibleSum | undefined;
  const weights = new Map<string, number>();
  const buffer = new Float32Array(BLOCK);
  let queue: Promise<void> = Promise.resolve();

  async function foldIn(path: string, facts: UpdateFacts): Promise<void> {
    if (weights.size >= MAX_TERMS) {
      throw new CoordinatorError('FED_UPDATE_COUNT', `a round takes ${MAX_TERMS} updates at most`);
    }
    sum ??= createReproducibleSum(length);
    const weight = strategy.weigh(facts);
    const file = await openUpdateFile(path, manifest, buffer);
    try {
      const factor = weight * (await clippingScale(file, manifest, strategy.updateClippingNorm));
      await addWhole(sum, file, factor);
    } finally {
      await file.close();
    }
    weights.set(facts.name, weight);
  }

  return {
    get count() {
      return weights.size;
    },
    add(path, facts) {
      const done = queue.then(() => foldIn(path, facts));
      queue = done.catch(() => undefined);
      return done;
    },
    settled: () => queue,
    mean() {
      // In the order of the names: weights need not be whole numbers.
      const totalWeight = [...weights]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .reduce((n, [, weight]) => n + weight, 0);
      return {
        updates: weights.size,
        totalWeight,
        read: (offset, out) => {
          if (sum) readMeans(sum, offset, totalWeight, out);
          else out.fill(0);
        },
      };
    },
    clear() {
      weights.clear();
      if (sum) clearSum(sum);
    },
  };
}

async function addWhole(sum: ReproducibleSum, file: UpdateFile, factor: number): Promise<void> {
  let folded = 0;
  let problem: CoordinatorError | undefined;
  let hash = createHash('sha256');
  let hashedBytes = 0;
  await file.blocks((values, at, index) => {
    const { name, byteLength, digest } = file.header.tensors[index]!;
    const added = addTerms(sum, at, values, factor);
    folded = at + added;
    if (added < values.length) {
      problem = badValue(values[added]!, name);
      return false;
    }
    hash.update(values);
    hashedBytes += values.byteLength;
    if (hashedBytes < byteLength) return true;
    const seen = hash.digest('hex');
    hash = createHash('sha256');
    hashedBytes = 0;
    if (seen === digest) return true;
    problem = new CoordinatorError(
      'FED_UPDATE_MANIFEST',
      `the bytes of ${name} have the SHA-256 ${seen.slice(0, 12)}..., and the update's header declares ${digest.slice(0, 12)}...`,
    );
    return false;
  });
  if (!problem) return;
  await file.blocks((values, at) => {
    addTerms(sum, at, values, -factor);
    return true;
  }, folded);
  throw problem;
}

/** min(1, clippingNorm / norm); the norm is summed in the order of the file, so it is the same on every run. */
async function clippingScale(
  file: UpdateFile,
  manifest: readonly TensorShape[],
  clippingNorm: number | undefined,
): Promise<number> {
  if (clippingNorm === undefined) return 1;
  let squares = 0;
  let problem: CoordinatorError | undefined;
  await file.blocks((values, _at, index) => {
    for (let i = 0; i < values.length; i++) squares += values[i]! * values[i]!;
    if (Number.isFinite(squares)) return true;
    problem = badValue(values.find((v) => !Number.isFinite(v)) ?? Number.NaN, manifest[index]!.name);
    return false;
  });
  if (problem) throw problem;
  const norm = Math.sqrt(squares);
  return norm > clippingNorm ? clippingNorm / norm : 1;
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
