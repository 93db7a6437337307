/** What the strategies of the mean have in common: the cohort, what an update weighs, and a walk over the parameters. */
import { type CohortSize, chooseCohort } from '../cohort.ts';
import { learningRateAt, type TrainingRates } from '../learning-rate.ts';
import { weightedMetrics } from '../metrics.ts';
import type { MeanUpdate, StreamingStrategy } from '../strategy.ts';

export interface MeanOptions {
  readonly seed: number;
  readonly cohortSize: CohortSize;
  readonly training: TrainingRates;
  /** @default 'examples' */
  readonly weighting?: 'examples' | 'uniform' | undefined;
  /** L2, over all trained parameters together, in parameter units; above 0. A zero update stays zero. */
  readonly updateClippingNorm?: number | undefined;
}

/** Parameters handled at a time when the mean is applied: 16 KiB of float64, which stay in the fastest cache. */
const BLOCK = 2048;

/** A strategy that differs from federated averaging in how the mean of the updates becomes new weights. */
export function meanStrategy(
  name: string,
  options: MeanOptions,
  rule: Pick<StreamingStrategy, 'init' | 'aggregateTrain'>,
): StreamingStrategy {
  return {
    name,
    folding: 'streaming',
    updateClippingNorm: options.updateClippingNorm,
    configureTrain: (_state, { round, ready }) => ({
      cohort: chooseCohort({ seed: options.seed, round, ready, size: options.cohortSize }),
      learningRate: learningRateAt(options.training, round),
    }),
    weigh: ({ numExamples }) => (options.weighting === 'uniform' ? 1 : numExamples),
    configureEvaluate: (_state, { ready }) => ({ cohort: ready }),
    aggregateEvaluate: (state, results) => ({ state, metrics: weightedMetrics(results) }),
    ...rule,
  };
}

/** A stretch of one trained tensor; the arrays are valid during the call. */
export interface Block {
  readonly weights: Float32Array;
  /** The mean update of those weights. */
  readonly update: Float64Array;
  /** Index of the first of them, counted over all trained tensors in order. */
  readonly at: number;
  /** Which of the trained tensors it is. */
  readonly tensor: number;
}

/** Calls `apply` for all trained parameters, in order. */
export function eachBlock(
  global: readonly Float32Array[],
  mean: MeanUpdate,
  apply: (block: Block) => void,
): void {
  const buffer = new Float64Array(BLOCK);
  let first = 0;
  for (const [tensor, values] of global.entries()) {
    for (let start = 0; start < values.length; start += BLOCK) {
      const weights = values.subarray(start, start + BLOCK);
      const update = buffer.subarray(0, weights.length);
      mean.read(first + start, update);
      apply({ weights, update, at: first + start, tensor });
    }
    first += values.length;
  }
}

/** Adds the update to the weights, with one rounding: float64 sum to float32 store. */
export function addUpdate({ weights, update }: Block): void {
  for (let i = 0; i < update.length; i++) weights[i] = weights[i]! + update[i]!;
}
