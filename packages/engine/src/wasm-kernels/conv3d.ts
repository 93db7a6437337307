/**
 * The two gradients of a volume convolution, in plain loops: rare enough that they need not be fast, but the backend's
 * own are wrong (the input's always, the filter's with a stride).
 */
import {
  backend_util,
  type Conv3DBackpropFilterV2Attrs,
  type Conv3DBackpropInputV2Attrs,
  type TensorInfo,
  util,
} from '@tensorflow/tfjs-core';
import { type Heap, wasmKernel } from './heap.ts';

type Shape5 = [number, number, number, number, number];

export const conv3dBackpropInput = wasmKernel<
  { readonly dy: TensorInfo; readonly filter: TensorInfo },
  Conv3DBackpropInputV2Attrs
>('Conv3DBackpropInputV2', ({ dy, filter }, { strides, pad, inputShape }, heap) => {
  const info = backend_util.computeConv3DInfo(inputShape, filter.shape as Shape5, strides, 1, pad);
  const out = heap.output(inputShape, 'float32');
  const to = clear(heap, out);
  const floats = heap.floats();
  const fromDy = heap.addressOf(dy) >> 2;
  const fromFilter = heap.addressOf(filter) >> 2;
  const { inChannels, outChannels } = info;
  forEachTap(info, (pixel, dyPixel, tap) => {
    const dyAt = fromDy + dyPixel * outChannels;
    let filterAt = fromFilter + tap * inChannels * outChannels;
    for (let channel = 0; channel < inChannels; channel++) {
      let sum = 0;
      for (let o = 0; o < outChannels; o++) sum += floats[dyAt + o]! * floats[filterAt++]!;
      floats[to + pixel * inChannels + channel]! += sum;
    }
  });
  return out;
});

export const conv3dBackpropFilter = wasmKernel<
  { readonly x: TensorInfo; readonly dy: TensorInfo },
  Conv3DBackpropFilterV2Attrs
>('Conv3DBackpropFilterV2', ({ x, dy }, { strides, pad, filterShape }, heap) => {
  const info = backend_util.computeConv3DInfo(x.shape as Shape5, filterShape, strides, 1, pad);
  const out = heap.output(filterShape, 'float32');
  const to = clear(heap, out);
  const floats = heap.floats();
  const fromX = heap.addressOf(x) >> 2;
  const fromDy = heap.addressOf(dy) >> 2;
  const { inChannels, outChannels } = info;
  forEachTap(info, (pixel, dyPixel, tap) => {
    const dyAt = fromDy + dyPixel * outChannels;
    let at = to + tap * inChannels * outChannels;
    for (let channel = 0; channel < inChannels; channel++) {
      const value = floats[fromX + pixel * inChannels + channel]!;
      for (let o = 0; o < outChannels; o++) floats[at++]! += value * floats[dyAt + o]!;
    }
  });
  return out;
});

function clear(heap: Heap, tensor: TensorInfo): number {
  const start = heap.addressOf(tensor) >> 2;
  heap.floats().fill(0, start, start + util.sizeFromShape(tensor.shape));
  return start;
}

/** Calls `visit` with the numbers of an input pixel, an output pixel and the filter tap between them, for each triple. */
function forEachTap(
  info: backend_util.Conv3DInfo,
  visit: (pixel: number, dyPixel: number, tap: number) => void,
): void {
  const { padInfo } = info;
  const depths = contacts(info.inDepth, info.outDepth, info.filterDepth, info.strideDepth, padInfo.front);
  const heights = contacts(info.inHeight, info.outHeight, info.filterHeight, info.strideHeight, padInfo.top);
  const widths = contacts(info.inWidth, info.outWidth, info.filterWidth, info.strideWidth, padInfo.left);
  for (let image = 0; image < info.batchSize; image++) {
    for (const d of depths) {
      for (const h of heights) {
        const row = (image * info.inDepth + d.position) * info.inHeight + h.position;
        const dyRow = (image * info.outDepth + d.output) * info.outHeight + h.output;
        const tapRow = d.tap * info.filterHeight + h.tap;
        for (const w of widths) {
          visit(
            row * info.inWidth + w.position,
            dyRow * info.outWidth + w.output,
            tapRow * info.filterWidth + w.tap,
          );
        }
      }
    }
  }
}

/** An input position, an output position and the filter tap between them, along one axis. */
interface Contact {
  readonly position: number;
  readonly output: number;
  readonly tap: number;
}

function contacts(length: number, outLength: number, taps: number, stride: number, pad: number): Contact[] {
  const found: Contact[] = [];
  for (let output = 0; output < outLength; output++) {
    for (let tap = 0; tap < taps; tap++) {
      const position = output * stride + tap - pad;
      if (position >= 0 && position < length) found.push({ position, output, tap });
    }
  }
  return found;
}
