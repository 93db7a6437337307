/** Many elements to one: sums, extremes, positions of extremes, running sums, softmax, the k largest. */
import { type ElementType, emit, emitMany, external, ints, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { sumByRows } from './few-channels.ts';
import { piecesOf } from './image-pieces.ts';
import { accept, FLOAT, type KernelTable, type Lowering, NUMERIC, type Unary } from './kernel.ts';
import { withZeroRow } from './zero-row.ts';

interface ReduceAttrs {
  readonly axis?: number | readonly number[];
  readonly reductionIndices?: number | readonly number[];
  readonly keepDims: boolean;
}

const NUMERIC_OR_BOOL: readonly ElementType[] = ['float32', 'int32', 'bool'];

function reduction(op: string, types: readonly ElementType[], as?: ElementType): Lowering {
  return ({ x }: Unary, attrs: ReduceAttrs) => {
    accept(types, x);
    const axes = o.normalizeAxes(attrs.axis ?? attrs.reductionIndices, x.shape);
    const input = as === undefined ? x : o.cast(x, as);
    const result = o.reduce(op, input, axes, attrs.keepDims);
    return x.dtype === 'bool' && op !== 'ReduceSum' ? o.cast(result, 'bool') : result;
  };
}

/** Rows that are summed side by side, where there are many. */
const SIDE_BY_SIDE = 128;

/**
 * The rows of a matrix summed: a product with a row of ones runs on all cores and at once. Of many rows, each product
 * takes every 128th; long rows are what the product is fast with.
 */
function columnSums(x: Value, keepDims: boolean): Value {
  const width = x.shape.at(-1)!;
  const shape = keepDims ? [...x.shape.slice(0, -1).fill(1), width] : [width];
  const byRows = sumByRows(x);
  if (byRows !== undefined) return o.reshape(byRows, shape);
  // A row of zeros adds nothing, and a convolution's gradient takes the images with one.
  const images = piecesOf(x);
  const all = (images && withZeroRow(x, images.cut.batch, width)) ?? x;
  const rows = all.size / width;
  const beside = rows % SIDE_BY_SIDE === 0 && rows >= SIDE_BY_SIDE * SIDE_BY_SIDE ? SIDE_BY_SIDE : 1;
  const sums = o.gemm(ones(rows / beside), o.reshape(all, [rows / beside, beside * width]));
  const sum = o.reduce('ReduceSum', o.reshape(sums, [beside, width]), [0], false);
  return o.reshape(sum, shape);
}

const onesByLength = new Map<number, Value>();

function ones(length: number): Value {
  let value = onesByLength.get(length);
  if (value === undefined) {
    if (onesByLength.size >= 64) onesByLength.clear();
    value = external(new Float32Array(length).fill(1), [1, length], 'float32');
    onesByLength.set(length, value);
  }
  return value;
}

/** ONNX Runtime's extremes leave NaN out; here a NaN among the elements is the result. */
function extreme(op: 'ReduceMax' | 'ReduceMin'): Lowering {
  return ({ x }: Unary, { reductionIndices, axis, keepDims }: ReduceAttrs) => {
    accept(NUMERIC, x);
    const axes = o.normalizeAxes(reductionIndices ?? axis, x.shape);
    const result = o.reduce(op, x, axes, keepDims);
    if (x.dtype !== 'float32' || axes.length === 0) return result;
    const anyNan = o.reduce('ReduceMax', o.cast(isNan(x), 'int32'), axes, keepDims);
    return o.where(o.greater(anyNan, 0), Number.NaN, result);
  };
}

const isNan = (x: Value): Value => o.unary('IsNaN', x, undefined, 'bool');

function arg(op: 'ArgMax' | 'ArgMin'): Lowering {
  return ({ x }: Unary, { axis }: { axis: number }) => {
    accept(NUMERIC, x);
    const [first] = o.normalizeAxes(axis, x.shape);
    const shape = x.shape.filter((_, i) => i !== first);
    const worst = op === 'ArgMax' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
    const numbers = x.dtype === 'float32' ? o.where(isNan(x), worst, x) : x;
    return o.cast(emit(op, [numbers], shape, 'int64', { axis: first!, keepdims: 0 }), 'int32');
  };
}

export const reductions: KernelTable = {
  Max: extreme('ReduceMax'),
  Min: extreme('ReduceMin'),
  Prod: reduction('ReduceProd', NUMERIC),
  All: reduction('ReduceMin', ['bool'], 'int32'),
  Any: reduction('ReduceMax', ['bool'], 'int32'),
  ArgMax: arg('ArgMax'),
  ArgMin: arg('ArgMin'),

  Sum: ({ x }: Unary, { axis, keepDims }: ReduceAttrs) => {
    accept(NUMERIC_OR_BOOL, x);
    const axes = o.normalizeAxes(axis, x.shape);
    const rank = x.shape.length;
    const columns = rank >= 2 && axes.length === rank - 1 && axes.at(-1) === rank - 2;
    if (x.dtype === 'float32' && columns && x.size > x.shape.at(-1)!) return columnSums(x, keepDims);
    return o.reduce('ReduceSum', x.dtype === 'bool' ? o.cast(x, 'int32') : x, axes, keepDims);
  },
  /** Always float32: a mean of integers is no integer. */
  Mean: ({ x }: Unary, { axis, keepDims }: ReduceAttrs) => {
    accept(NUMERIC_OR_BOOL, x);
    return o.reduce('ReduceMean', o.cast(x, 'float32'), o.normalizeAxes(axis, x.shape), keepDims);
  },
  Cumsum: (
    { x }: Unary,
    { axis, exclusive, reverse }: { axis: number; exclusive: boolean; reverse: boolean },
  ) => {
    accept(NUMERIC, x);
    const [along] = o.normalizeAxes(axis, x.shape);
    const attributes = { exclusive: exclusive ? 1 : 0, reverse: reverse ? 1 : 0 };
    return emit('CumSum', [x, o.reshape(ints([along!]), [])], x.shape, x.dtype, attributes);
  },
  Softmax: ({ logits }: { logits: Value }, { dim }: { dim: number }) => {
    accept(FLOAT, logits);
    const [axis] = o.normalizeAxes(dim, logits.shape);
    return o.unary('Softmax', logits, { axis: axis! });
  },
  LogSoftmax: ({ logits }: { logits: Value }, { axis }: { axis: number }) => {
    accept(FLOAT, logits);
    const [along] = o.normalizeAxes(axis, logits.shape);
    return o.unary('LogSoftmax', logits, { axis: along! });
  },
  TopK: ({ x }: Unary, { k }: { k: number }) => {
    accept(NUMERIC, x);
    const shape = [...x.shape.slice(0, -1), k];
    const [values, indices] = emitMany(
      'TopK',
      [x, ints([k])],
      [
        { shape, dtype: x.dtype },
        { shape, dtype: 'int64' },
      ],
      { axis: x.shape.length - 1, sorted: 1 },
    );
    return [values!, o.cast(indices!, 'int32')];
  },
};
