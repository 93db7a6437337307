/** A model of five parameters and sites that add a known number to each; used in processes without vitest too. */
import type { Tensor } from '@tributary/shared-protocol';
import type { ScriptedJob, ScriptedUpdate } from '@tributary/testkit';
import type { FederationConfig, ModelArtifact } from '../src/index.ts';

export function tensor(
  name: string,
  values: readonly number[],
  shape: readonly number[] = [values.length],
): Tensor {
  return { name, dtype: 'float32', shape, data: Float32Array.from(values) };
}

export const artifact: ModelArtifact = {
  name: 'tiny',
  topology: '{"class_name":"Sequential"}',
  weights: [tensor('dense/kernel', [1, 2, 3, 4], [2, 2]), tensor('dense/bias', [0])],
  frozenWeights: [],
};

export const baseConfig: FederationConfig = {
  name: 'test',
  model: 'tiny',
  classes: ['a', 'b'],
  rounds: 2,
  cohort: { quorum: 2 },
  deadlines: {
    rejoinSeconds: 5,
    roundSeconds: 20,
    evaluateSeconds: 20,
    quorumSeconds: 20,
    heartbeatSeconds: 20,
  },
};

/** A site that adds `step` to every parameter and says it has `numExamples` examples. */
export function adds(step: number, numExamples = 10): (job: ScriptedJob) => ScriptedUpdate {
  return ({ global }) => ({
    numExamples,
    metrics: { loss: step },
    tensors: global.map((t) => ({ ...t, data: new Float32Array(t.data.length).fill(step) })),
  });
}
