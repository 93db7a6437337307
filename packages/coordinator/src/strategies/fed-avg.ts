/**
 * Federated averaging: the new model is the old one plus the weighted mean of the updates (McMahan et al. 2017,
 * arXiv 1602.05629), weighted by examples, or each alike. Updates can be clipped to an L2 norm first.
 */
import type { StreamingStrategy } from '../strategy.ts';
import { addUpdate, eachBlock, type MeanOptions, meanStrategy } from './mean-type.ts';

export type FedAvgOptions = MeanOptions;

export function fedAvg(options: FedAvgOptions): StreamingStrategy {
  return meanStrategy('fed-avg', options, {
    init: () => ({ tensors: [], numbers: {} }),
    aggregateTrain(state, global, mean) {
      eachBlock(global, mean, addUpdate);
      return state;
    },
  });
}
