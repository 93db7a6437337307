/** Kernels that move data without computing: slices, paddings, joins, permutations, and tensors from nothing. */
import { backend_util, type DataType, slice_util, type TensorInfo, util } from '@tensorflow/tfjs-core';
import { external, type HostData, number, sizeOf, uniform, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { accept, type KernelTable, refuse, type Unary } from './kernel.ts';

type Paddings = readonly (readonly [number, number])[];

// --- Parts and joins ---

function slice(x: Value, begin: readonly number[], size: readonly number[]): Value {
  return sliceOfData(x, begin, size) ?? o.slice(x, begin, size);
}

/**
 * A contiguous part of data that exists is a view of it. This is what makes fit() cheap, which takes batch after batch
 * from the same tensor: as a node, each offset would be another graph.
 */
function sliceOfData(x: Value, begin: readonly number[], size: readonly number[]): Value | undefined {
  if (x.source === undefined || !('host' in x.source) || sizeOf(size) === 0) return undefined;
  if (!slice_util.isSliceContinous(x.shape as number[], begin as number[], size as number[]))
    return undefined;
  let stride = x.size;
  let offset = 0;
  x.shape.forEach((n, i) => {
    stride /= n;
    offset += begin[i]! * stride;
  });
  const part = external(x.source.host.subarray(offset, offset + sizeOf(size)) as HostData, size, x.dtype);
  part.shared = true;
  return part;
}

function split(x: Value, sizes: readonly number[], axis: number): Value[] {
  let start = 0;
  return sizes.map((n) => {
    const begin = x.shape.map((_, i) => (i === axis ? start : 0));
    const size = x.shape.map((m, i) => (i === axis ? n : m));
    start += n;
    return slice(x, begin, size);
  });
}

const parts: KernelTable = {
  Slice: ({ x }: Unary, { begin, size }: { begin: number | number[]; size: number | number[] }) => {
    const [first, extent] = slice_util.parseSliceParams(infoOf(x), begin, size);
    slice_util.assertParamsValid(infoOf(x), first!, extent!);
    return slice(x, first!, extent!);
  },
  StridedSlice: ({ x }: Unary, attrs: StridedSliceAttrs) => {
    const { begin, end, strides, beginMask, endMask, ellipsisMask, newAxisMask, shrinkAxisMask } = attrs;
    const info = slice_util.sliceInfo(
      x.shape as number[],
      begin,
      end,
      strides,
      beginMask,
      endMask,
      ellipsisMask,
      newAxisMask,
      shrinkAxisMask,
    );
    if (info.isIdentity) return o.reshape(x, info.finalShape);
    const size = slice_util.computeOutShape(info.begin, info.end, info.strides);
    if (sizeOf(size) === 0) refuse('empty result');
    const part = info.strides.every((step) => step === 1)
      ? slice(x, info.begin, size)
      : o.slice(x, info.begin, size, info.strides);
    return o.reshape(part, info.finalShape);
  },
  SplitV: ({ x }: Unary, { numOrSizeSplits, axis }: { numOrSizeSplits: number | number[]; axis: number }) => {
    const [along] = o.normalizeAxes(axis, x.shape);
    const sizes = backend_util.prepareSplitSize(infoOf(x) as never, numOrSizeSplits, along);
    return split(x, sizes, along!);
  },
  Unpack: ({ value }: { value: Value }, { axis }: { axis: number }) => {
    const [along] = o.normalizeAxes(axis, value.shape);
    const shape = value.shape.filter((_, i) => i !== along);
    const sizes = new Array<number>(value.shape[along!]!).fill(1);
    return split(value, sizes, along!).map((part) => o.reshape(part, shape));
  },
  Reverse: ({ x }: Unary, { dims }: { dims: number | number[] }) => {
    const axes = o.normalizeAxes(dims, x.shape);
    if (axes.length === 0) return x;
    const flipped = (i: number) => axes.includes(i) && x.shape[i]! > 1;
    const begin = x.shape.map((n, i) => (flipped(i) ? n - 1 : 0));
    return o.slice(
      x,
      begin,
      x.shape,
      x.shape.map((_, i) => (flipped(i) ? -1 : 1)),
    );
  },
  Concat: (inputs: Readonly<Record<string, Value>>, { axis }: { axis: number }) => {
    const values = Object.values(inputs);
    const [along] = o.normalizeAxes(axis, values[0]!.shape);
    accept([values[0]!.dtype], ...values);
    backend_util.assertParamsConsistent(
      values.map((value) => value.shape as number[]),
      along!,
    );
    return o.concat(values, along!);
  },
  Pack: (inputs: Readonly<Record<string, Value>>, { axis }: { axis: number }) => {
    const values = Object.values(inputs);
    const [along] = o.normalizeAxes(axis, [...values[0]!.shape, 1]);
    accept([values[0]!.dtype], ...values);
    const shape = [...values[0]!.shape];
    for (const value of values) {
      util.assertShapesMatch(
        shape,
        value.shape as number[],
        'All tensors passed to stack must have matching shapes',
      );
    }
    shape.splice(along!, 0, 1);
    return o.concat(
      values.map((value) => o.reshape(value, shape)),
      along!,
    );
  },
};

interface StridedSliceAttrs {
  readonly begin: number[];
  readonly end: number[];
  readonly strides: number[];
  readonly beginMask: number;
  readonly endMask: number;
  readonly ellipsisMask: number;
  readonly newAxisMask: number;
  readonly shrinkAxisMask: number;
}

// --- Permuting, padding, repeating ---

/** Transposes to `perm` of the shape `apart`, and joins the result to `joined`. */
function permute(
  x: Value,
  apart: readonly number[],
  perm: readonly number[],
  joined: readonly number[],
): Value {
  return o.reshape(o.transpose(o.reshape(x, apart), perm), joined);
}

const moves: KernelTable = {
  Transpose: ({ x }: Unary, { perm }: { perm: number[] }) => o.transpose(x, perm),
  Tile: ({ x }: Unary, { reps }: { reps: number[] }) => {
    if (sizeOf(reps) === 0) refuse('empty result');
    return o.tile(x, reps);
  },
  BroadcastTo: ({ x }: Unary, { shape }: { shape: number[] }) => o.expand(x, shape),
  PadV2: ({ x }: Unary, { paddings, constantValue }: { paddings: Paddings; constantValue: number }) => {
    if (x.shape.length === 0) return x;
    return o.pad(
      x,
      paddings,
      number(x.dtype === 'bool' ? Number(constantValue !== 0) : constantValue, x.dtype),
    );
  },
  MirrorPad: ({ x }: Unary, { paddings, mode }: { paddings: Paddings; mode: 'reflect' | 'symmetric' }) => {
    accept(['float32', 'int32'], x);
    const edge = mode === 'reflect' ? 0 : 1;
    // Mirroring is taking rows in another order, one axis after the other.
    return paddings.reduce((value, [before, after], axis) => {
      if (before === 0 && after === 0) return value;
      const n = value.shape[axis]!;
      const place = (i: number) => (i < 0 ? -i - edge : i >= n ? 2 * (n - 1) - i + edge : i);
      const order = Array.from({ length: before + n + after }, (_, i) => place(i - before));
      return o.gather(value, external(Int32Array.from(order), [order.length], 'int32'), axis);
    }, x);
  },
  DepthToSpace: ({ x }: Unary, { blockSize: k, dataFormat }: { blockSize: number; dataFormat: string }) => {
    const nhwc = dataFormat === 'NHWC';
    const [n, a, b, c] = x.shape as [number, number, number, number];
    if (nhwc) {
      const depth = c / (k * k);
      return permute(x, [n, a, b, k, k, depth], [0, 1, 3, 2, 4, 5], [n, a * k, b * k, depth]);
    }
    const depth = a / (k * k);
    return permute(x, [n, k, k, depth, b, c], [0, 3, 4, 1, 5, 2], [n, depth, b * k, c * k]);
  },
  SpaceToBatchND: (
    { x }: Unary,
    { blockShape, paddings }: { blockShape: number[]; paddings: number[][] },
  ) => {
    const rest = x.shape.slice(1 + blockShape.length).map(() => [0, 0]);
    const padded = o.pad(x, [[0, 0], ...paddings, ...rest], number(0, x.dtype));
    const product = sizeOf(blockShape);
    const shape = padded.shape as number[];
    const apart = backend_util.getReshaped(shape, blockShape, product, false);
    const perm = backend_util.getPermuted(apart.length, blockShape.length, false);
    return permute(padded, apart, perm, backend_util.getReshapedPermuted(shape, blockShape, product, false));
  },
  BatchToSpaceND: ({ x }: Unary, { blockShape, crops }: { blockShape: number[]; crops: number[][] }) => {
    const product = sizeOf(blockShape);
    const shape = x.shape as number[];
    const apart = backend_util.getReshaped(shape, blockShape, product);
    const perm = backend_util.getPermuted(apart.length, blockShape.length);
    const joined = backend_util.getReshapedPermuted(shape, blockShape, product);
    const begin = backend_util.getSliceBeginCoords(crops, blockShape.length);
    const size = backend_util.getSliceSize(joined, crops, blockShape.length);
    const whole = permute(x, apart, perm, joined);
    const [first, extent] = slice_util.parseSliceParams(infoOf(whole), begin, size);
    return o.slice(whole, first!, extent!);
  },
};

// --- From nothing ---

const creations: KernelTable = {
  Fill: (
    _: object,
    { shape, value, dtype }: { shape: number[]; value: number | string; dtype?: DataType },
  ) => {
    const type = dtype ?? (typeof value === 'string' ? 'string' : 'float32');
    if (typeof value === 'string' || type === 'string' || type === 'complex64')
      return refuse(`${type} output`);
    return uniform(value, shape, type);
  },
  // Data rather than nodes, so that an optimizer's fresh state doesn't make its first step a graph of its own.
  ZerosLike: ({ x }: Unary) => uniform(0, x.shape, x.dtype),
  OnesLike: ({ x }: Unary) => uniform(1, x.shape, x.dtype),
};

/** What tfjs's own shape arithmetic wants: only shape and type are looked at. */
function infoOf(x: Value): TensorInfo {
  return { dataId: {}, shape: [...x.shape], dtype: x.dtype as DataType };
}

export const layout: KernelTable = { ...parts, ...moves, ...creations };
