/** FedAdagrad (Reddi et al. 2021, arXiv 2003.00295) without momentum: v ← v + Δ², x ← x + η Δ / (√v + τ). */
import type { StreamingStrategy } from '../strategy.ts';
import { type ServerOptimizerOptions, serverOptimizer } from './server-optimizer.ts';

export interface FedAdagradOptions extends ServerOptimizerOptions {
  /** Degree of adaptivity, in parameter units; above 0. */
  readonly tau: number;
}

/** v starts at 0, as in common implementations; the paper's analysis lets it start at τ² or above. */
export function fedAdagrad(options: FedAdagradOptions): StreamingStrategy {
  const { serverLearningRate, tau } = options;
  return serverOptimizer('fed-adagrad', ['v'], options, ({ weights, update }, { v }) => {
    for (let i = 0; i < update.length; i++) {
      const delta = update[i]!;
      const second = v[i]! + delta * delta;
      v[i] = second;
      weights[i] = weights[i]! + (serverLearningRate * delta) / (Math.sqrt(second) + tau);
    }
  });
}
