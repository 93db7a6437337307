/** Matrix products. */
import { backend_util, util } from '@tensorflow/tfjs-core';
import { PARTS } from '../cpu-nodes.ts';
import { emit, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { activate } from './activation.ts';
import { addBias } from './bias.ts';
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
  util.assert(
    a.shape.length >= 2 && b.shape.length >= 2,
    () => `matMul takes matrices, not shapes [${a.shape}] and [${b.shape}].`,
  );
  const inner = [a.shape.at(transposeA ? -2 : -1), b.shape.at(transposeB ? -1 : -2)];
  util.assert(
    inner[0] === inner[1],
    () =>
      `Error in matMul: inner shapes (${inner[0]}) and (${inner[1]}) of Tensors with shapes ${a.shape} and ${b.shape} ` +
      `and transposeA=${transposeA} and transposeB=${transposeB} must match.`,
  );
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
    const flags = { transA: transposeA, transB: transposeB };
    return o.reshape(repeatable(matrix(a), matrix(b), flags), shape);
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

/** Columns that a thread's share never falls below in a product of at least so many, with up to 16 threads. */
const COLUMNS_FOR_ALL = 16 * 128;
/** Inner sizes up to this are summed in one go, however the work is shared. */
const ONE_SUM = 128;

/**
 * The product of two matrices with the same bits for any number of threads. ONNX Runtime shares out the columns of a
 * wide product, and sums in longer pieces where a share has fewer than 128. It shares out the rows of a tall one, which
 * changes nothing: so such a product is computed the other way round.
 */
function repeatable(a: Value, b: Value, { transA, transB }: { transA: boolean; transB: boolean }): Value {
  const [rows, inner] = transA ? [a.shape[1]!, a.shape[0]!] : [a.shape[0]!, a.shape[1]!];
  const columns = b.shape[transB ? 0 : 1]!;
  if (rows === 1 || rows >= columns || columns >= COLUMNS_FOR_ALL || inner <= ONE_SUM) {
    return o.gemm(a, b, { transA, transB });
  }
  // Not Gemm: ONNX Runtime would turn it back again.
  const flags = { transA: transB ? 0 : 1, transB: transA ? 0 : 1 };
  return o.transpose(emit('com.microsoft::FusedMatMul', [b, a], [columns, rows], 'float32', flags), [1, 0]);
}

/**
 * Σ aᵀ · b over pairs of matrices with many rows, with the same bits for any number of threads. A b may come as several,
 * whose products then stand side by side.
 */
export function sumOfProducts(factors: readonly (readonly [Value, readonly Value[]])[]): Value {
  const inParts = (x: Value) => o.reshape(x, [PARTS, x.shape[0]! / PARTS, x.shape[1]!]);
  const inOneOrParts = (a: Value, b: Value) => {
    if (a.shape[0]! % PARTS !== 0) return repeatable(a, b, { transA: true, transB: false });
    const shape = [PARTS, a.shape[1]!, b.shape[1]!];
    const products = emit('com.microsoft::FusedMatMul', [inParts(a), inParts(b)], shape, 'float32', {
      transA: 1,
    });
    return o.reduce('ReduceSum', products, [0], false);
  };
  return o.allOf(
    'Add',
    factors.map(([a, bs]) =>
      o.concat(
        bs.map((b) => inOneOrParts(a, b)),
        1,
      ),
    ),
  );
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

/** Throws what `cpu` throws for an equation that doesn't fit. */
function einsumShape(equation: string, values: readonly Value[]): number[] {
  const { allDims, idDims } = backend_util.decodeEinsumEquation(equation, values.length);
  const infos = values.map((value) => ({ shape: value.shape as number[] }));
  backend_util.checkEinsumDimSizes(allDims.length, idDims, infos as never);
  const sizes = allDims.map((_, dimension) => {
    const holder = idDims.findIndex((dimensions) => dimensions.includes(dimension));
    return values[holder]!.shape[idDims[holder]!.indexOf(dimension)]!;
  });
  const output = equation.replaceAll(' ', '').split('->')[1]!;
  return [...output].map((letter) => sizes[allDims.indexOf(letter)]!);
}
