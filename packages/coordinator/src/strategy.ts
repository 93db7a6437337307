/**
 * The seam for ways of combining updates. A strategy is pure: its state is passed in and handed back, so a checkpoint
 * is the weights and that state, and a round repeated from it gives the same bytes. One strategy a file, in strategies/.
 */
import type { Tensor } from '@tributary/shared-protocol';

/** What a strategy keeps between rounds; goes into the checkpoint. Empty for plain averaging. */
export interface StrategyState {
  readonly tensors: readonly Tensor[];
  readonly numbers: Readonly<Record<string, number>>;
}

export interface RoundContext {
  /** From 1. */
  readonly round: number;
  /** Names of the sites that are ready, sorted. */
  readonly ready: readonly string[];
}

/** Numbers that came with an update, before its tensors are looked at. */
export interface UpdateFacts {
  readonly name: string;
  /** In [1, 2^29). */
  readonly numExamples: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** The weighted mean of the round's updates, read block by block so that it is never held as a whole. */
export interface MeanUpdate {
  readonly updates: number;
  readonly totalWeight: number;
  /** Writes the mean of parameters [offset, offset + out.length) into `out`; parameters are counted over all trained tensors in order. */
  read(offset: number, out: Float64Array): void;
}

/** Trained tensors, read one at a time: at a rank-type strategy's disposal, from the spool. */
export interface UpdateReader extends UpdateFacts {
  tensor(index: number): Promise<Float32Array>;
}

interface StrategyBase {
  readonly name: string;
  /** The state before the first round; `weights` are the trained tensors, in their order. */
  init(weights: readonly Tensor[]): StrategyState;
  /** The cohort of a round. */
  configureTrain(
    state: StrategyState,
    context: RoundContext,
  ): { readonly cohort: readonly string[]; readonly learningRate: number };
  configureEvaluate(state: StrategyState, context: RoundContext): { readonly cohort: readonly string[] };
  aggregateEvaluate(
    state: StrategyState,
    results: readonly UpdateFacts[],
  ): { readonly state: StrategyState; readonly metrics: Readonly<Record<string, number>> };
}

/** Mean-type: each update is folded in as it arrives and forgotten; memory is that of the model. */
export interface StreamingStrategy extends StrategyBase {
  readonly folding: 'streaming';
  /** Above 0. What an update weighs in the mean. */
  weigh(update: UpdateFacts): number;
  /** L2 norm over all trained parameters to which larger updates are scaled down; undefined: as they are. */
  readonly updateClippingNorm: number | undefined;
  /** New values of the trained tensors; written into `global` (float32), which the caller owns. */
  aggregateTrain(state: StrategyState, global: readonly Float32Array[], mean: MeanUpdate): StrategyState;
}

/** Rank-type (median, Krum, ...): sees all updates of the round, tensor by tensor, in the order of the sites' names. */
export interface RankedStrategy extends StrategyBase {
  readonly folding: 'ranked';
  aggregateTrain(
    state: StrategyState,
    global: readonly Float32Array[],
    updates: readonly UpdateReader[],
  ): Promise<StrategyState>;
}

export type Strategy = StreamingStrategy | RankedStrategy;
