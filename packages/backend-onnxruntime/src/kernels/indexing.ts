/** Kernels that take or put rows by index. */
import { backend_util, type DataType, gather_util, type TensorInfo } from '@tensorflow/tfjs-core';
import { type ElementType, emit, external, number, sizeOf, uniform, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { accept, type KernelTable, NUMERIC, refuse } from './kernel.ts';

const INDEX: readonly ElementType[] = ['int32'];

/**
 * Sums rows that have the same index: out[indices[i]] += rows[i], in order of i, so that the result is the same each
 * time. (ScatterND would add from several threads.) An index outside [0, count) goes to a row that is cut off.
 */
function sumByIndex(rows: Value, indices: Value, count: number): Value {
  const [length, width] = rows.shape as [number, number];
  const outside = o.or(
    o.less(indices, 0),
    emit('GreaterOrEqual', [indices, number(count, 'int32')], indices.shape, 'bool'),
  );
  const safe = o.reshape(o.where(outside, number(count, 'int32'), indices), [length, 1]);
  const zeros = o.expand(number(0, rows.dtype), [count + 1, width]);
  const attributes = { axis: 0, reduction: 'add' };
  const sums = emit(
    'ScatterElements',
    [zeros, o.expand(safe, [length, width]), rows],
    zeros.shape,
    rows.dtype,
    attributes,
  );
  return o.slice(sums, [0, 0], [count, width]);
}

export const indexing: KernelTable = {
  GatherV2: (
    { x, indices }: { x: Value; indices: Value },
    { axis, batchDims }: { axis: number; batchDims: number },
  ) => {
    const [along] = o.normalizeAxes(axis, x.shape);
    const index = indices.dtype === 'int32' ? indices : o.cast(indices, 'int32');
    if ((batchDims ?? 0) === 0) return o.gather(x, index, along!);
    const { batchSize, outerSize, dimSize, sliceSize, outputShape } =
      backend_util.segment_util.collectGatherOpShapeInfo(
        infoOf(x) as never,
        infoOf(indices) as never,
        along!,
        batchDims,
      );
    // Rows of all batches one after the other: a batch's indices start where its rows do.
    const perBatch = indices.size / batchSize;
    const starts = Int32Array.from({ length: batchSize * outerSize }, (_, i) => i * dimSize);
    const offsets = external(starts, [batchSize, outerSize, 1], 'int32');
    const flat = o.add(o.reshape(index, [batchSize, 1, perBatch]), offsets);
    const rows = o.reshape(x, [batchSize * outerSize * dimSize, sliceSize]);
    return o.reshape(o.gather(rows, flat, 0), outputShape);
  },
  GatherNd: ({ params, indices }: { params: Value; indices: Value }) => {
    accept(INDEX, indices);
    const [shape, , sliceSize] = gather_util.prepareAndValidate(
      infoOf(params) as never,
      infoOf(indices) as never,
    );
    if (sizeOf(shape) === 0 || sliceSize === 0) refuse('empty result');
    return emit('GatherND', [params, o.cast(indices, 'int64')], shape, params.dtype, { batch_dims: 0 });
  },
  ScatterNd: ({ indices, updates }: { indices: Value; updates: Value }, { shape }: { shape: number[] }) => {
    accept(INDEX, indices);
    accept(NUMERIC, updates);
    const { sliceRank, numUpdates, sliceSize, strides, outputSize } = backend_util.calculateShapes(
      infoOf(updates) as never,
      infoOf(indices) as never,
      shape,
    );
    if (outputSize === 0 || sliceRank === 0) refuse('empty result');
    const weights = external(Int32Array.from(strides.slice(0, sliceRank)), [1, sliceRank], 'int32');
    const weighted = o.mul(o.reshape(indices, [numUpdates, sliceRank]), weights);
    const flat = o.reduce('ReduceSum', weighted, [1], false);
    const count = outputSize / sliceSize;
    return o.reshape(sumByIndex(o.reshape(updates, [numUpdates, sliceSize]), flat, count), shape);
  },
  UnsortedSegmentSum: (
    { x, segmentIds }: { x: Value; segmentIds: Value },
    { numSegments }: { numSegments: number },
  ) => {
    accept(NUMERIC, x);
    accept(INDEX, segmentIds);
    if (segmentIds.shape.length !== 1 || numSegments === 0) refuse('segment ids of another rank than 1');
    const [count, ...rest] = x.shape as [number, ...number[]];
    const rows = o.reshape(x, [count, sizeOf(rest)]);
    return o.reshape(sumByIndex(rows, segmentIds, numSegments), [numSegments, ...rest]);
  },
  OneHot: ({ indices }: { indices: Value }, { dtype, depth, onValue, offValue }: OneHotAttrs) => {
    accept(INDEX, indices);
    if (dtype === 'string' || dtype === 'complex64' || depth === 0)
      refuse(`${dtype} output of depth ${depth}`);
    const classes = external(
      Int32Array.from({ length: depth }, (_, i) => i),
      [depth],
      'int32',
    );
    const hits = o.equal(o.reshape(indices, [...indices.shape, 1]), classes);
    const value = (n: number) => uniform(n, [], dtype);
    return o.where(hits, value(onValue), value(offValue));
  },
};

interface OneHotAttrs {
  readonly dtype: DataType;
  readonly depth: number;
  readonly onValue: number;
  readonly offValue: number;
}

function infoOf(x: Value): TensorInfo {
  return { dataId: {}, shape: [...x.shape], dtype: x.dtype as DataType };
}
