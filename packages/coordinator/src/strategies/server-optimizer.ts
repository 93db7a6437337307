/**
 * The mean update taken as a gradient that the server follows with an optimizer of its own (Reddi et al. 2021,
 * arXiv 2003.00295). What the optimizer remembers is the strategy's state: one float32 vector over all trained
 * parameters for each of its slots, which all start at zero, and the number of rounds so far.
 */
import type { Tensor } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { StrategyState, StreamingStrategy } from '../strategy.ts';
import { addUpdate, type Block, eachBlock, type MeanOptions, meanStrategy } from './mean-type.ts';

export interface ServerOptimizerOptions extends MeanOptions {
  /** In parameter units a unit of the rule's direction; above 0. */
  readonly serverLearningRate: number;
  /**
   * For each trained tensor, whether it is a running statistic, such as a batch normalisation's moving variance: those
   * are averaged, for a step of an optimizer could take a variance below zero. @default none is
   */
  readonly isStatistic?: readonly boolean[];
}

/** Moves `weights` along `update`, and writes what is to be remembered into `slots` (those of this block, in place). */
export type ServerStep<S extends string> = (
  block: Block,
  slots: Readonly<Record<S, Float32Array>>,
  /** From 1. */
  round: number,
) => void;

/** The strategy that applies `step`. It never changes the state that it is given: a new one is made each round. */
export function serverOptimizer<const S extends string>(
  name: string,
  slotNames: readonly S[],
  options: ServerOptimizerOptions,
  step: ServerStep<S>,
): StreamingStrategy {
  return meanStrategy(name, options, {
    init(weights) {
      const length = weights.reduce((n, { data }) => n + data.length, 0);
      return stateOf(Object.fromEntries(slotNames.map((slot) => [slot, new Float32Array(length)])), 0);
    },
    aggregateTrain(state, global, mean) {
      const length = global.reduce((n, { length: own }) => n + own, 0);
      const slots = Object.fromEntries(
        slotNames.map((slot) => [slot, slotOf(state, slot, length).slice()]),
      ) as Record<S, Float32Array>;
      const round = (state.numbers['rounds'] ?? 0) + 1;
      eachBlock(global, mean, (block) => {
        if (options.isStatistic?.[block.tensor]) return addUpdate(block);
        const { at, update } = block;
        const own = Object.fromEntries(
          slotNames.map((slot) => [slot, slots[slot].subarray(at, at + update.length)]),
        ) as Record<S, Float32Array>;
        step(block, own, round);
      });
      return stateOf(slots, round);
    },
  });
}

function stateOf(slots: Readonly<Record<string, Float32Array>>, rounds: number): StrategyState {
  const tensors = Object.entries(slots).map(
    ([name, data]): Tensor => ({ name, dtype: 'float32', shape: [data.length], data }),
  );
  return { tensors, numbers: { rounds } };
}

function slotOf(state: StrategyState, name: string, length: number): Float32Array {
  const data = state.tensors.find((tensor) => tensor.name === name)?.data;
  if (data instanceof Float32Array && data.length === length) return data;
  throw new CoordinatorError(
    'FED_RUN_CHECKPOINT',
    `the checkpoint's strategy state should hold "${name}" with ${length} values and holds ${data?.length ?? 'none'}`,
  );
}
