/**
 * The words that kernels are written in: each adds one ONNX node and works out the shape of its result. They take what
 * TensorFlow.js has checked already and do not check it again.
 */
import { util } from '@tensorflow/tfjs-core';
import { type ElementType, emit, emitMany, ints, number, sameShape, sizeOf, Value } from './graph.ts';

// --- Shape ---

export function reshape(x: Value, shape: readonly number[]): Value {
  if (sameShape(x.shape, shape)) return x;
  // A view of a view is a view of the first.
  const base = unviewed(x);
  if (sameShape(base.shape, shape)) return base;
  return base.derive(`view ${shape}`, () => emit('Reshape', [base, ints(shape)], shape, base.dtype));
}

/** What x is a view of, or x. */
export function unviewed(x: Value): Value {
  return x.node?.op === 'Reshape' ? x.node.inputs[0]! : x;
}

export function transpose(x: Value, perm: readonly number[]): Value {
  if (perm.every((axis, i) => axis === i)) return x;
  const shape = perm.map((axis) => x.shape[axis]!);
  // Moving axes of size 1 around moves no data.
  const moved = perm.filter((axis) => x.shape[axis] !== 1);
  if (moved.every((axis, i) => i === 0 || moved[i - 1]! < axis)) return reshape(x, shape);
  return emit('Transpose', [x], shape, x.dtype, { perm });
}

/** Parts of `x` along the first axis, of the given lengths. */
export function split(x: Value, lengths: readonly number[]): readonly Value[] {
  if (lengths.length === 1) return [x];
  const types = lengths.map((length) => ({ shape: [length, ...x.shape.slice(1)], dtype: x.dtype }));
  return emitMany('Split', [x, ints(lengths)], types, { axis: 0 });
}

export function concat(values: readonly Value[], axis: number): Value {
  if (values.length === 1) return values[0]!;
  const shape = [...values[0]!.shape];
  shape[axis] = values.reduce((sum, value) => sum + value.shape[axis]!, 0);
  return emit('Concat', values, shape, values[0]!.dtype, { axis });
}

/** The part from `begin` of `size`, every `step`-th element where a step is given (positive, or -1 to reverse). */
export function slice(
  x: Value,
  begin: readonly number[],
  size: readonly number[],
  step?: readonly number[],
): Value {
  const axes = x.shape
    .map((_, i) => i)
    .filter((i) => begin[i] !== 0 || size[i] !== x.shape[i] || (step?.[i] ?? 1) !== 1);
  if (axes.length === 0) return x;
  const steps = axes.map((i) => step?.[i] ?? 1);
  // An end below zero would count from the back; the smallest integer means "before the first".
  const ends = axes.map((i, j) => {
    const end = begin[i]! + size[i]! * steps[j]!;
    return end < 0 ? -(2 ** 31) : end;
  });
  const inputs = [x, ints(axes.map((i) => begin[i]!)), ints(ends), ints(axes), ints(steps)];
  return emit('Slice', inputs, size, x.dtype);
}

/** Rows of `x` along `axis` at the places `indices`, whose shape takes that axis's place. */
export function gather(x: Value, indices: Value, axis: number): Value {
  const shape = [...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)];
  return emit('Gather', [x, indices], shape, x.dtype, { axis });
}

export function pad(
  x: Value,
  paddings: readonly (readonly number[])[],
  fill: Value,
  mode = 'constant',
): Value {
  if (paddings.every(([before, after]) => before === 0 && after === 0)) return x;
  const shape = x.shape.map((n, i) => n + paddings[i]![0]! + paddings[i]![1]!);
  const bounds = ints([...paddings.map((p) => p[0]!), ...paddings.map((p) => p[1]!)]);
  return emit('Pad', mode === 'constant' ? [x, bounds, fill] : [x, bounds], shape, x.dtype, { mode });
}

export function expand(x: Value, shape: readonly number[]): Value {
  return sameShape(x.shape, shape) ? x : emit('Expand', [x, ints(shape)], shape, x.dtype);
}

export function tile(x: Value, reps: readonly number[]): Value {
  if (reps.every((n) => n === 1)) return x;
  return emit(
    'Tile',
    [x, ints(reps)],
    x.shape.map((n, i) => n * reps[i]!),
    x.dtype,
  );
}

// --- Element by element ---

export function cast(x: Value, dtype: ElementType): Value {
  return x.dtype === dtype ? x : emit('Cast', [x], x.shape, dtype, { to: ONNX_TYPE[dtype] });
}

/** `op` on each element; the result has the type of `x` unless said otherwise. */
export function unary(op: string, x: Value, attributes?: Parameters<typeof emit>[4], dtype = x.dtype): Value {
  return emit(op, [x], x.shape, dtype, attributes);
}

/** `op` on pairs of elements, with broadcasting; a plain number is taken in the type of the other side. */
export function binary(op: string, left: Value | number, right: Value | number, dtype?: ElementType): Value {
  const a = typeof left === 'number' ? number(left, (right as Value).dtype) : left;
  const b = typeof right === 'number' ? number(right, a.dtype) : right;
  return emit(op, [a, b], broadcastShape(a.shape, b.shape), dtype ?? a.dtype);
}

type Operand = Value | number;
export const add = (a: Operand, b: Operand): Value => binary('Add', a, b);
export const sub = (a: Operand, b: Operand): Value => binary('Sub', a, b);
export const mul = (a: Operand, b: Operand): Value => binary('Mul', a, b);
export const div = (a: Operand, b: Operand): Value => binary('Div', a, b);
export const equal = (a: Operand, b: Operand): Value => binary('Equal', a, b, 'bool');
export const greater = (a: Operand, b: Operand): Value => binary('Greater', a, b, 'bool');
export const less = (a: Operand, b: Operand): Value => binary('Less', a, b, 'bool');
export const and = (a: Value, b: Value): Value => binary('And', a, b);
export const or = (a: Value, b: Value): Value => binary('Or', a, b);
export const not = (x: Value): Value => unary('Not', x);

/** `yes` where `condition` holds, else `no`; all three broadcast. */
export function where(condition: Value, yes: Operand, no: Operand): Value {
  const dtype = typeof yes === 'number' ? (no as Value).dtype : yes.dtype;
  const a = typeof yes === 'number' ? number(yes, dtype) : yes;
  const b = typeof no === 'number' ? number(no, dtype) : no;
  const shape = broadcastShape(condition.shape, broadcastShape(a.shape, b.shape));
  return emit('Where', [condition, a, b], shape, dtype);
}

/** The sum or maximum of several values of one shape, in pairs: ONNX Runtime takes more than two on one thread. */
export function allOf(op: 'Add' | 'Max', values: readonly Value[]): Value {
  if (values.length === 1) return values[0]!;
  const half = values.length >> 1;
  const [a, b] = [allOf(op, values.slice(0, half)), allOf(op, values.slice(half))];
  return emit(op, [a, b], a.shape, a.dtype);
}

// --- Many to one ---

/** `op` ("ReduceSum" …) over `axes`, which are sorted and not negative. */
export function reduce(op: string, x: Value, axes: readonly number[], keepDims: boolean): Value {
  const kept = x.shape.map((n, i) => (axes.includes(i) ? 1 : n));
  const shape = keepDims ? kept : x.shape.filter((_, i) => !axes.includes(i));
  if (axes.every((axis) => x.shape[axis] === 1) && op !== 'ReduceLogSum') return reshape(x, shape);
  return emit(op, [x, ints(axes)], shape, x.dtype, { keepdims: keepDims ? 1 : 0 });
}

/** Matrix product of two matrices, each taken transposed where said, plus `bias` (broadcast to the result). */
export function gemm(
  a: Value,
  b: Value,
  options: { transA?: boolean; transB?: boolean; bias?: Value } = {},
): Value {
  const { transA = false, transB = false, bias } = options;
  const shape = [a.shape[transA ? 1 : 0]!, b.shape[transB ? 0 : 1]!];
  const inputs = bias === undefined ? [a, b] : [a, b, bias];
  return emit('Gemm', inputs, shape, 'float32', { transA: transA ? 1 : 0, transB: transB ? 1 : 0 });
}

// --- Shapes ---

/** Throws when the shapes don't fit. */
export function broadcastShape(a: readonly number[], b: readonly number[]): readonly number[] {
  if (sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  const shape: number[] = [];
  for (let i = 0; i < rank; i++) {
    const m = a[a.length - rank + i] ?? 1;
    const n = b[b.length - rank + i] ?? 1;
    if (m !== n && m !== 1 && n !== 1) {
      throw new Error(`Operands could not be broadcast together with shapes ${a} and ${b}.`);
    }
    shape.push(m === 1 ? n : m);
  }
  return shape;
}

/** Axes as TensorFlow.js gives them (one, several, negative, none for all), sorted and from 0. Throws for others. */
export function normalizeAxes(
  axis: number | readonly number[] | null | undefined,
  shape: readonly number[],
): number[] {
  const axes = util.parseAxisParam(axis as number | number[], shape as number[]);
  return [...new Set(axes)].sort((a, b) => a - b);
}

export { sizeOf, Value };

const ONNX_TYPE: Readonly<Record<ElementType, number>> = {
  float32: 1,
  int32: 6,
  int64: 7,
  bool: 9,
  float64: 11,
};
