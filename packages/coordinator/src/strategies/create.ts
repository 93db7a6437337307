import type { ResolvedFederation } from '../config/resolve.ts';
import type { StreamingStrategy } from '../strategy.ts';
import { fedAvg } from './fed-avg.ts';

/** The strategy that the configuration names. */
export function createStrategy({ seed, cohort, training, strategy }: ResolvedFederation): StreamingStrategy {
  const common = { seed, cohortSize: cohort.size, training };
  switch (strategy.name) {
    case 'fed-avg':
      return fedAvg({
        ...common,
        weighting: strategy.weighting,
        updateClippingNorm: strategy.updateClippingNorm,
      });
  }
}
