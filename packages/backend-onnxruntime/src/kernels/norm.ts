/** Normalisation by statistics that were computed before. */
import { number, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { accept, FLOAT, type KernelTable } from './kernel.ts';

interface BatchNormInputs {
  readonly x: Value;
  readonly mean: Value;
  readonly variance: Value;
  readonly offset?: Value;
  readonly scale?: Value;
}

export const normalization: KernelTable = {
  /** (x − mean) · scale / √(variance + ε) + offset, the factor being computed once for each channel. */
  FusedBatchNorm: (inputs: BatchNormInputs, { varianceEpsilon }: { varianceEpsilon: number }) => {
    const { x, mean, variance, offset, scale } = inputs;
    accept(FLOAT, x, mean, variance);
    const inverse = o.unary('Reciprocal', o.unary('Sqrt', o.add(variance, number(varianceEpsilon))));
    const factor = scale === undefined ? inverse : o.mul(inverse, scale);
    const scaled = o.mul(o.sub(x, mean), factor);
    return offset === undefined ? scaled : o.add(scaled, offset);
  },
};
