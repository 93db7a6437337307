/** The plan's optimizer, and the weight decay that goes with each step. */
import { tf } from '@tributary/engine';
import type { OptimizerPlan } from '@tributary/shared-protocol';

/** Returns a fresh optimizer, with no memory of earlier rounds; the caller disposes it. */
export function createOptimizer(plan: OptimizerPlan, learningRate: number): tf.Optimizer {
  switch (plan.name) {
    case 'sgd':
      return plan.momentum === 0
        ? tf.train.sgd(learningRate)
        : tf.train.momentum(learningRate, plan.momentum, plan.nesterov);
    case 'adam':
      return tf.train.adam(learningRate, plan.beta1, plan.beta2, plan.epsilon);
    case 'rmsprop':
      return tf.train.rmsprop(learningRate, plan.decay, plan.momentum, plan.epsilon);
    case 'adagrad':
      return tf.train.adagrad(learningRate, plan.initialAccumulator);
  }
}

/** Shrinks each variable by the factor 1 - learningRate * weightDecay (Loshchilov and Hutter 2019). */
export function decayWeights(
  variables: readonly tf.Variable[],
  learningRate: number,
  weightDecay: number,
): void {
  if (weightDecay === 0) return;
  tf.tidy(() => {
    for (const variable of variables) variable.assign(tf.mul(variable, 1 - learningRate * weightDecay));
  });
}
