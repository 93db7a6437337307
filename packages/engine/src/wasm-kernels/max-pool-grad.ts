/**
 * The gradient of max-pooling. The backend's own takes a window of negative numbers to have no maximum, and so loses
 * its gradient; this one gives it to the first largest number of each window, as the cpu backend does.
 */
import { backend_util, type MaxPoolGradAttrs, type TensorInfo, util } from '@tensorflow/tfjs-core';
import { wasmKernel } from './heap.ts';

interface Inputs {
  readonly dy: TensorInfo;
  readonly input: TensorInfo;
}

export const maxPoolGrad = wasmKernel<Inputs, MaxPoolGradAttrs>(
  'MaxPoolGrad',
  ({ dy, input }, attributes, heap) => {
    const { filterSize, strides, pad, dimRoundingMode } = attributes;
    const info = backend_util.computePool2DInfo(
      input.shape as [number, number, number, number],
      filterSize,
      strides,
      1,
      pad,
      dimRoundingMode,
    );
    const out = heap.output(input.shape, 'float32');
    const floats = heap.floats();
    const to = heap.addressOf(out) >> 2;
    const from = heap.addressOf(input) >> 2;
    const fromDy = heap.addressOf(dy) >> 2;
    floats.fill(0, to, to + util.sizeFromShape(input.shape));
    const { inHeight, inWidth, inChannels, outHeight, outWidth, padInfo } = info;
    for (let image = 0; image < info.batchSize; image++) {
      for (let oh = 0; oh < outHeight; oh++) {
        const top = oh * info.strideHeight - padInfo.top;
        const firstRow = Math.max(0, top);
        const endRow = Math.min(inHeight, top + info.effectiveFilterHeight);
        for (let ow = 0; ow < outWidth; ow++) {
          const left = ow * info.strideWidth - padInfo.left;
          const firstColumn = Math.max(0, left);
          const endColumn = Math.min(inWidth, left + info.effectiveFilterWidth);
          const dyAt = fromDy + ((image * outHeight + oh) * outWidth + ow) * inChannels;
          for (let channel = 0; channel < inChannels; channel++) {
            let best = Number.NEGATIVE_INFINITY;
            let bestAt = -1;
            for (let row = firstRow; row < endRow; row++) {
              let at = ((image * inHeight + row) * inWidth + firstColumn) * inChannels + channel;
              for (let column = firstColumn; column < endColumn; column++, at += inChannels) {
                const value = floats[from + at]!;
                if (value > best) {
                  best = value;
                  bestAt = at;
                }
              }
            }
            if (bestAt >= 0) floats[to + bestAt]! += floats[dyAt + channel]!;
          }
        }
      }
    }
    return out;
  },
);
