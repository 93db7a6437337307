/**
 * The gradient of a convolution's filter, as one matrix product over all pixels of all images: patches of the padded
 * input (read in place through offsets) times the gradient of the output. Images go in groups and pixels in blocks, so
 * that what the inner loop reads stays in the processor's cache and scratch memory stays small.
 */
import { backend_util, type Conv2DBackpropFilterAttrs, type TensorInfo } from '@tensorflow/tfjs-core';
import { TILE_COLUMNS } from './gemm-module.ts';
import { type Heap, wasmKernel } from './heap.ts';
import { copyPadded } from './image.ts';
import { fillOffsets, packRows, repeatLast } from './pack.ts';

const GROUP_ELEMENTS = 1 << 20; // 4 MiB of padded images
const BLOCK_PIXELS = 256;

interface Inputs {
  readonly x: TensorInfo;
  readonly dy: TensorInfo;
}

export const conv2dBackpropFilter = wasmKernel<Inputs, Conv2DBackpropFilterAttrs>(
  'Conv2DBackpropFilter',
  ({ x, dy }, attributes, heap) => {
    const { strides, pad, dataFormat, dimRoundingMode, filterShape } = attributes;
    if (dataFormat !== 'NHWC')
      throw new RangeError(`Conv2DBackpropFilter takes NHWC images, not ${dataFormat}`);
    const info = backend_util.computeConv2DInfo(
      x.shape as [number, number, number, number],
      filterShape,
      strides,
      1,
      pad,
      dimRoundingMode,
    );
    const out = heap.output(filterShape, 'float32');
    const { batchSize, outHeight, outWidth, filterHeight, filterWidth, inChannels, outChannels } = info;
    const rows = filterHeight * filterWidth * inChannels;
    const pixels = outHeight * outWidth;
    if (batchSize * pixels === 0) {
      heap.floats().fill(0, heap.addressOf(out) >> 2, (heap.addressOf(out) >> 2) + rows * outChannels);
      return out;
    }

    // Just the part of the padded image that the filter visits.
    const height = (outHeight - 1) * info.strideHeight + filterHeight;
    const width = (outWidth - 1) * info.strideWidth + filterWidth;
    const imageLength = height * width * inChannels;
    const group = Math.min(batchSize, Math.max(1, Math.floor(GROUP_ELEMENTS / imageLength)));
    const block = Math.min(BLOCK_PIXELS, group * pixels);
    const packedLength = Math.ceil(outChannels / TILE_COLUMNS) * TILE_COLUMNS * block;
    const rowSlots = Math.ceil(rows / 4) * 4;

    heap.withScratch(
      [group * imageLength, rowSlots, rowSlots, group * pixels, packedLength],
      ([padded, aRows, cRows, aColumns, packed]) => {
        fillPatchRows(heap, aRows!, padded!, info, width);
        fillOffsets(heap, cRows!, rows, heap.addressOf(out), outChannels * 4);
        fillPixelOffsets(heap, aColumns!, group, info, height, width);
        let accumulate = 0;
        for (let image = 0; image < batchSize; image += group) {
          const images = Math.min(group, batchSize - image);
          copyPadded(heap, heap.addressOf(x), image, images, info, height, width, padded!);
          const dyStart = heap.addressOf(dy) + image * pixels * outChannels * 4;
          for (let pixel = 0; pixel < images * pixels; pixel += block) {
            const k = Math.min(block, images * pixels - pixel);
            let b = dyStart + pixel * outChannels * 4;
            let [rowBytes, panelBytes] = [outChannels * 4, TILE_COLUMNS * 4];
            if (outChannels % TILE_COLUMNS !== 0) {
              packRows(heap, b, outChannels, k, packed!);
              b = packed!;
              [rowBytes, panelBytes] = [TILE_COLUMNS * 4, TILE_COLUMNS * 4 * k];
            }
            const columns = aColumns! + pixel * 4;
            heap.gemm(
              rows,
              outChannels,
              k,
              aRows!,
              columns,
              b,
              rowBytes,
              panelBytes,
              cRows!,
              accumulate,
              heap.tileScratch,
            );
            accumulate = 1;
          }
        }
      },
    );
    return out;
  },
);

type ConvInfo = backend_util.Conv2DInfo;

/** Row (kh, kw, ci) of the patch matrix starts this far into the padded images. */
function fillPatchRows(heap: Heap, table: number, padded: number, info: ConvInfo, width: number): void {
  const ints = heap.ints();
  let slot = table >> 2;
  for (let kh = 0; kh < info.filterHeight; kh++) {
    for (let kw = 0; kw < info.filterWidth; kw++) {
      const start = padded + (kh * width + kw) * info.inChannels * 4;
      for (let channel = 0; channel < info.inChannels; channel++) ints[slot++] = start + channel * 4;
    }
  }
  repeatLast(ints, table >> 2, slot - (table >> 2));
}

/** Column (image, oh, ow) of the patch matrix adds this much. */
function fillPixelOffsets(
  heap: Heap,
  table: number,
  images: number,
  info: ConvInfo,
  height: number,
  width: number,
): void {
  const ints = heap.ints();
  let slot = table >> 2;
  for (let image = 0; image < images; image++) {
    for (let oh = 0; oh < info.outHeight; oh++) {
      for (let ow = 0; ow < info.outWidth; ow++) {
        const row = image * height + oh * info.strideHeight;
        ints[slot++] = (row * width + ow * info.strideWidth) * info.inChannels * 4;
      }
    }
  }
}
