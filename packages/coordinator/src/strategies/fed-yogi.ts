/**
 * FedYogi (Reddi et al. 2021, arXiv 2003.00295): as FedAdam, but v moves by a step whose size depends on Δ² alone:
 * v ← v − (1 − β₂) Δ² sign(v − Δ²), so it shrinks slowly after large updates.
 */
import type { StreamingStrategy } from '../strategy.ts';
import { type ServerOptimizerOptions, serverOptimizer } from './server-optimizer.ts';

export interface FedYogiOptions extends ServerOptimizerOptions {
  /** In [0, 1). */
  readonly beta1: number;
  /** In [0, 1). */
  readonly beta2: number;
  /** Degree of adaptivity, in parameter units; above 0. */
  readonly tau: number;
}

/** m and v start at 0; the paper's analysis lets v start at τ² or above. */
export function fedYogi(options: FedYogiOptions): StreamingStrategy {
  const { serverLearningRate, beta1, beta2, tau } = options;
  return serverOptimizer('fed-yogi', ['m', 'v'], options, ({ weights, update }, { m, v }) => {
    for (let i = 0; i < update.length; i++) {
      const delta = update[i]!;
      const square = delta * delta;
      const first = beta1 * m[i]! + (1 - beta1) * delta;
      const second = v[i]! - (1 - beta2) * square * Math.sign(v[i]! - square);
      m[i] = first;
      v[i] = second;
      weights[i] = weights[i]! + (serverLearningRate * first) / (Math.sqrt(second) + tau);
    }
  });
}
