/** The activations that fused kernels can end in. */
import type { backend_util } from '@tensorflow/tfjs-core';
import { emit, number, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { relu } from './elementwise.ts';
import { refuse } from './kernel.ts';

export function activate(
  x: Value,
  activation: backend_util.Activation | null | undefined,
  preluWeights: Value | undefined,
  leakyreluAlpha: number | undefined,
): Value {
  switch (activation) {
    case null:
    case undefined:
    case 'linear':
      return x;
    case 'relu':
      return relu(x);
    case 'relu6':
      return emit('Clip', [x, number(0), number(6)], x.shape, x.dtype);
    case 'elu':
      return o.unary('Elu', x);
    case 'sigmoid':
      return o.unary('Sigmoid', x);
    case 'leakyrelu':
      return o.unary('LeakyRelu', x, { alpha: { float: leakyreluAlpha ?? 0.2 } });
    case 'prelu':
      if (preluWeights === undefined) refuse('prelu without weights');
      return o.where(o.less(x, 0), o.mul(preluWeights, x), x);
    default:
      return refuse(`activation ${String(activation)}`);
  }
}
