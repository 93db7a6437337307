/** Federated averaging with momentum at the server (Hsu et al. 2019, arXiv 1909.06335): m ← β m + Δ, x ← x + η m. */
import type { StreamingStrategy } from '../strategy.ts';
import { type ServerOptimizerOptions, serverOptimizer } from './server-optimizer.ts';

export interface FedAvgMOptions extends ServerOptimizerOptions {
  /** β, in [0, 1); 0 is federated averaging scaled by the learning rate. */
  readonly serverMomentum: number;
}

export function fedAvgM(options: FedAvgMOptions): StreamingStrategy {
  const { serverLearningRate, serverMomentum } = options;
  return serverOptimizer('fed-avg-m', ['m'], options, ({ weights, update }, { m }) => {
    for (let i = 0; i < update.length; i++) {
      const momentum = serverMomentum * m[i]! + update[i]!;
      m[i] = momentum;
      weights[i] = weights[i]! + serverLearningRate * momentum;
    }
  });
}
