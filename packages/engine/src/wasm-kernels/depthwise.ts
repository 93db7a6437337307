/** The two gradients of a depthwise convolution: each channel apart, so plain loops over the heap, channels innermost. */
import {
  backend_util,
  type DepthwiseConv2dNativeBackpropFilterAttrs,
  type DepthwiseConv2dNativeBackpropInputAttrs,
  type TensorInfo,
} from '@tensorflow/tfjs-core';
import { type Heap, wasmKernel } from './heap.ts';

type Shape4 = [number, number, number, number];

export const depthwiseBackpropFilter = wasmKernel<
  { readonly x: TensorInfo; readonly dy: TensorInfo },
  DepthwiseConv2dNativeBackpropFilterAttrs
>('DepthwiseConv2dNativeBackpropFilter', ({ x, dy }, attributes, heap) => {
  const { strides, dilations, pad, dimRoundingMode, filterShape } = attributes;
  const info = infoOf(x.shape as Shape4, filterShape, strides, dilations, pad, dimRoundingMode);
  const out = heap.output(filterShape, 'float32');
  const floats = heap.floats();
  const to = clear(heap, out, filterShape);
  const fromX = heap.addressOf(x) >> 2;
  const fromDy = heap.addressOf(dy) >> 2;
  const { inChannels } = info;
  const multiplier = info.outChannels / inChannels;
  forEachTap(info, (xPixel, dyPixel, tap) => {
    const xStart = fromX + xPixel * inChannels;
    let dyAt = fromDy + dyPixel * info.outChannels;
    let at = to + tap * info.outChannels;
    for (let channel = 0; channel < inChannels; channel++) {
      const value = floats[xStart + channel]!;
      for (let q = 0; q < multiplier; q++) floats[at++]! += value * floats[dyAt++]!;
    }
  });
  return out;
});

export const depthwiseBackpropInput = wasmKernel<
  { readonly dy: TensorInfo; readonly filter: TensorInfo },
  DepthwiseConv2dNativeBackpropInputAttrs
>('DepthwiseConv2dNativeBackpropInput', ({ dy, filter }, attributes, heap) => {
  const { strides, dilations, pad, dimRoundingMode, inputShape } = attributes;
  const info = infoOf(inputShape, filter.shape as Shape4, strides, dilations, pad, dimRoundingMode);
  const out = heap.output(inputShape, 'float32');
  const floats = heap.floats();
  const to = clear(heap, out, inputShape);
  const fromDy = heap.addressOf(dy) >> 2;
  const fromFilter = heap.addressOf(filter) >> 2;
  const { inChannels } = info;
  const multiplier = info.outChannels / inChannels;
  forEachTap(info, (xPixel, dyPixel, tap) => {
    const start = to + xPixel * inChannels;
    let dyAt = fromDy + dyPixel * info.outChannels;
    let filterAt = fromFilter + tap * info.outChannels;
    for (let channel = 0; channel < inChannels; channel++) {
      let sum = floats[start + channel]!;
      for (let q = 0; q < multiplier; q++) sum += floats[dyAt++]! * floats[filterAt++]!;
      floats[start + channel] = sum;
    }
  });
  return out;
});

type ConvInfo = backend_util.Conv2DInfo;

function infoOf(
  inputShape: Shape4,
  filterShape: Shape4,
  strides: [number, number] | number,
  dilations: [number, number] | number,
  pad: Parameters<typeof backend_util.computeConv2DInfo>[4],
  rounding: Parameters<typeof backend_util.computeConv2DInfo>[5],
): ConvInfo {
  return backend_util.computeConv2DInfo(inputShape, filterShape, strides, dilations, pad, rounding, true);
}

function clear(heap: Heap, tensor: TensorInfo, shape: readonly number[]): number {
  const start = heap.addressOf(tensor) >> 2;
  heap.floats().fill(0, start, start + shape.reduce((product, size) => product * size, 1));
  return start;
}

/** Calls `visit` with the numbers of an input pixel, an output pixel and the filter tap between them, for each triple. */
function forEachTap(info: ConvInfo, visit: (xPixel: number, dyPixel: number, tap: number) => void): void {
  const { batchSize, inHeight, inWidth, outHeight, outWidth, filterHeight, filterWidth, padInfo } = info;
  for (let image = 0; image < batchSize; image++) {
    for (let oh = 0; oh < outHeight; oh++) {
      for (let kh = 0; kh < filterHeight; kh++) {
        const ih = oh * info.strideHeight + kh * info.dilationHeight - padInfo.top;
        if (ih < 0 || ih >= inHeight) continue;
        for (let ow = 0; ow < outWidth; ow++) {
          const dyPixel = (image * outHeight + oh) * outWidth + ow;
          for (let kw = 0; kw < filterWidth; kw++) {
            const iw = ow * info.strideWidth + kw * info.dilationWidth - padInfo.left;
            if (iw < 0 || iw >= inWidth) continue;
            visit((image * inHeight + ih) * inWidth + iw, dyPixel, kh * filterWidth + kw);
          }
        }
      }
    }
  }
}
