/** Copies images into a frame of zeros, so that inner loops need no test for the border. */
import type { backend_util } from '@tensorflow/tfjs-core';
import type { Heap } from './heap.ts';

/**
 * Copies `images` NHWC images from number `first` on into frames of `height` x `width`, zeros where the convolution
 * pads; what lies beyond the frame is left out.
 */
export function copyPadded(
  heap: Heap,
  source: number,
  first: number,
  images: number,
  info: backend_util.Conv2DInfo,
  height: number,
  width: number,
  target: number,
): void {
  const { inHeight, inWidth, inChannels, padInfo } = info;
  copyFramed(heap, source + first * inHeight * inWidth * inChannels * 4, target, {
    images,
    channels: inChannels,
    height: inHeight,
    width: inWidth,
    frameHeight: height,
    frameWidth: width,
    top: padInfo.top,
    left: padInfo.left,
  });
}

export interface Framing {
  readonly images: number;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly frameHeight: number;
  readonly frameWidth: number;
  /** Where the image's first row and column lie in the frame; may be negative. */
  readonly top: number;
  readonly left: number;
}

/** Copies images into frames of zeros; see Framing. Addresses are in bytes. */
export function copyFramed(heap: Heap, source: number, target: number, framing: Framing): void {
  const { images, channels, height, width, frameHeight, frameWidth, top, left } = framing;
  const floats = heap.floats();
  const from = source >> 2;
  const to = target >> 2;
  floats.fill(0, to, to + images * frameHeight * frameWidth * channels);
  const firstColumn = Math.max(0, -left);
  const length = (Math.min(width, frameWidth - left) - firstColumn) * channels;
  const firstRow = Math.max(0, -top);
  const endRow = Math.min(height, frameHeight - top);
  if (length <= 0) return;
  for (let image = 0; image < images; image++) {
    for (let row = firstRow; row < endRow; row++) {
      const start = from + ((image * height + row) * width + firstColumn) * channels;
      const frameRow = image * frameHeight + row + top;
      floats.copyWithin(to + (frameRow * frameWidth + firstColumn + left) * channels, start, start + length);
    }
  }
}
