/**
 * FedAdam (Reddi et al. 2021, arXiv 2003.00295): m ← β₁ m + (1 − β₁) Δ, v ← β₂ v + (1 − β₂) Δ²,
 * x ← x + η m / (√v + τ).
 */
import type { StreamingStrategy } from '../strategy.ts';
import { type ServerOptimizerOptions, serverOptimizer } from './server-optimizer.ts';

export interface FedAdamOptions extends ServerOptimizerOptions {
  /** In [0, 1). */
  readonly beta1: number;
  /** In [0, 1). */
  readonly beta2: number;
  /** Degree of adaptivity, in parameter units; above 0. */
  readonly tau: number;
  /** `none` as in the paper; `flower` multiplies η by √(1 − β₂ʳ⁺¹) / (1 − β₁ʳ⁺¹) in round r, as Flower does. */
  readonly biasCorrection: 'none' | 'flower';
}

/** m and v start at 0; the paper's analysis lets v start at τ² or above. */
export function fedAdam(options: FedAdamOptions): StreamingStrategy {
  const { serverLearningRate, beta1, beta2, tau, biasCorrection } = options;
  return serverOptimizer('fed-adam', ['m', 'v'], options, ({ weights, update }, { m, v }, round) => {
    const correction =
      biasCorrection === 'none' ? 1 : Math.sqrt(1 - beta2 ** (round + 1)) / (1 - beta1 ** (round + 1));
    for (let i = 0; i < update.length; i++) {
      const delta = update[i]!;
      const first = beta1 * m[i]! + (1 - beta1) * delta;
      const second = beta2 * v[i]! + (1 - beta2) * delta * delta;
      m[i] = first;
      v[i] = second;
      weights[i] = weights[i]! + (serverLearningRate * correction * first) / (Math.sqrt(second) + tau);
    }
  });
}
