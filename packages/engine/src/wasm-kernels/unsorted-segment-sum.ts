/** Sums rows by segment number: the gradient of gather, hence of every embedding. Rows are added in order. */
import { type TensorInfo, type UnsortedSegmentSumAttrs, util } from '@tensorflow/tfjs-core';
import { wasmKernel } from './heap.ts';

interface Inputs {
  readonly x: TensorInfo;
  readonly segmentIds: TensorInfo;
}

export const unsortedSegmentSum = wasmKernel<Inputs, UnsortedSegmentSumAttrs>(
  'UnsortedSegmentSum',
  ({ x, segmentIds }, { numSegments }, heap) => {
    const rows = util.sizeFromShape(segmentIds.shape);
    const rowShape = x.shape.slice(segmentIds.shape.length);
    const rowLength = util.sizeFromShape(rowShape);
    const out = heap.output([numSegments, ...rowShape], x.dtype);
    // Indices have no float form in memory: integers are summed as integers.
    const data = x.dtype === 'float32' ? heap.floats() : heap.ints();
    const ids = heap.ints();
    const to = heap.addressOf(out) >> 2;
    const from = heap.addressOf(x) >> 2;
    const firstId = heap.addressOf(segmentIds) >> 2;
    data.fill(0, to, to + numSegments * rowLength);
    for (let row = 0; row < rows; row++) {
      const segment = ids[firstId + row]!;
      if (segment < 0 || segment >= numSegments) continue;
      const start = to + segment * rowLength;
      const source = from + row * rowLength;
      for (let i = 0; i < rowLength; i++) data[start + i]! += data[source + i]!;
    }
    return out;
  },
);
