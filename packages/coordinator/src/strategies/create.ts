import type { ResolvedFederation } from '../config/resolve.ts';
import type { StreamingStrategy } from '../strategy.ts';
import { fedAdagrad } from './fed-adagrad.ts';
import { fedAdam } from './fed-adam.ts';
import { fedAvg } from './fed-avg.ts';
import { fedAvgM } from './fed-avg-m.ts';
import { fedYogi } from './fed-yogi.ts';

/** What a batch normalisation counts rather than learns; names are `layer/weight`, numbered where two are alike. */
const STATISTIC = /\/moving_(mean|variance)(_\d+)?$/;

/** The strategy that the configuration names. */
export function createStrategy(federation: ResolvedFederation): StreamingStrategy {
  const { seed, cohort, training, tensors, frozenWeights, strategy } = federation;
  const common = { seed, cohortSize: cohort.size, training };
  const trained = tensors.filter(({ name }) => !frozenWeights.includes(name));
  const isStatistic = trained.map(({ name }) => STATISTIC.test(name));
  switch (strategy.name) {
    case 'fed-avg':
      return fedAvg({ ...common, ...strategy });
    case 'fed-avg-m':
      return fedAvgM({ ...common, ...strategy, isStatistic });
    case 'fed-adagrad':
      return fedAdagrad({ ...common, ...strategy, isStatistic });
    case 'fed-adam':
      return fedAdam({ ...common, ...strategy, isStatistic });
    case 'fed-yogi':
      return fedYogi({ ...common, ...strategy, isStatistic });
  }
}
