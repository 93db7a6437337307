/** Matrix products. */
import type { backend_util } from '@tensorflow/tfjs-core';
import { emit, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { activate } from './activation.ts';
import { addBias } from './elementwise.ts';
import { accept, FLOAT, type KernelTable, refuse } from './kernel.ts';

interface Product {
  readonly a: Value;
  readonly b: Value;
}

interface Transposed {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
}

/** a·b over the last two axes; leading axes broadcast. */
function matMul(a: Value, b: Value, transposeA: boolean, transposeB: boolean): Value {
  const batch = o.broadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const rows = a.shape.at(transposeA ? -1 : -2)!;
  const columns = b.shape.at(transposeB ? -2 : -1)!;
  const shape = [...batch, rows, columns];
  if (a.dtype === 'int32') {
    if (transposeA || transposeB) refuse('int32 input, transposed');
    return emit('MatMul', [a, b], shape, 'int32');
  }
  const matrix = (x: Value) => o.reshape(x, x.shape.slice(-2));
  const single = (x: Value) => o.sizeOf(x.shape.slice(0, -2)) === 1;
  if (single(a) && single(b)) {
    return o.reshape(o.gemm(matrix(a), matrix(b), { transA: transposeA, transB: transposeB }), shape);
  }
  if (single(b) && !transposeA) {
    // One matrix for all: the batch is rows of one tall matrix.
    const tall = o.reshape(a, [a.size / a.shape.at(-1)!, a.shape.at(-1)!]);
    return o.reshape(o.gemm(tall, matrix(b), { transB: transposeB }), shape);
  }
  if (!transposeA && !transposeB) return emit('MatMul', [a, b], shape, 'float32');
  const attributes = { transA: transposeA ? 1 : 0, transB: transposeB ? 1 : 0 };
  return emit('com.microsoft::FusedMatMul', [a, b], shape, 'float32', attributes);
}

export const products: KernelTable = {
  BatchMatMul: ({ a, b }: Product, { transposeA, transposeB }: Transposed) => {
    if (a.dtype !== b.dtype) refuse('mixed types');
    accept(['float32', 'int32'], a, b);
    return matMul(a, b, transposeA, transposeB);
  },
  _FusedMatMul: (
    { a, b, bias, preluActivationWeights }: Product & { bias?: Value; preluActivationWeights?: Value },
    attrs: Transposed & { activation: backend_util.Activation | null; leakyreluAlpha?: number },
  ) => {
    accept(FLOAT, a, b);
    const product = matMul(a, b, attrs.transposeA, attrs.transposeB);
    const biased = bias === undefined ? product : (addBias(product, bias) ?? o.add(product, bias));
    return activate(biased, attrs.activation, preluActivationWeights, attrs.leakyreluAlpha);
  },
  Einsum: (inputs: Readonly<Record<string, Value>>, { equation }: { equation: string }) => {
    const values = Object.values(inputs);
    accept(FLOAT, ...values);
    return emit('Einsum', values, einsumShape(equation, values), 'float32', {
      equation: equation.replaceAll(' ', ''),
    });
  },
};

function einsumShape(equation: string, values: readonly Value[]): number[] {
  const [left, right] = equation.replaceAll(' ', '').split('->');
  if (left === undefined || right === undefined || /[^a-zA-Z,]/.test(left + right))
    return refuse(`equation ${equation}`);
  const sizes = new Map<string, number>();
  left.split(',').forEach((letters, i) => {
    [...letters].forEach((letter, axis) => {
      sizes.set(letter, values[i]!.shape[axis]!);
    });
  });
  return [...right].map((letter) => sizes.get(letter) ?? refuse(`equation ${equation}`));
}
