/**
 * The gradient of a convolution's input. With stride s, input pixels fall into s x s classes by the filter taps that
 * touch them; each class is a dense product of output gradients (read in place through offsets, from a frame of zeros)
 * and its taps of the filter. No multiplication is spent on the zeros between strides.
 */
import { backend_util, type Conv2DBackpropInputAttrs, type TensorInfo } from '@tensorflow/tfjs-core';
import { TILE_COLUMNS } from './gemm-module.ts';
import { type Heap, wasmKernel } from './heap.ts';
import { copyFramed } from './image.ts';
import { repeatLast } from './pack.ts';

const GROUP_ELEMENTS = 1 << 20; // 4 MiB of framed gradients

interface Inputs {
  readonly dy: TensorInfo;
  readonly filter: TensorInfo;
}

export const conv2dBackpropInput = wasmKernel<Inputs, Conv2DBackpropInputAttrs>(
  'Conv2DBackpropInput',
  ({ dy, filter }, attributes, heap) => {
    const { strides, pad, dataFormat, dimRoundingMode, inputShape } = attributes;
    if (dataFormat !== 'NHWC')
      throw new RangeError(`Conv2DBackpropInput takes NHWC images, not ${dataFormat}`);
    const info = backend_util.computeConv2DInfo(
      inputShape,
      filter.shape as [number, number, number, number],
      strides,
      1,
      pad,
      dimRoundingMode,
    );
    const out = heap.output(inputShape, 'float32');
    const { batchSize, inHeight, inWidth, inChannels, outHeight, outWidth, outChannels } = info;
    if (batchSize * inHeight * inWidth === 0) return out;

    const rowAxis = axisOf(inHeight, outHeight, info.filterHeight, info.strideHeight, info.padInfo.top);
    const columnAxis = axisOf(inWidth, outWidth, info.filterWidth, info.strideWidth, info.padInfo.left);
    const frame = { height: rowAxis.frameLength, width: columnAxis.frameLength };
    const imageLength = frame.height * frame.width * outChannels;
    const group = Math.min(batchSize, Math.max(1, Math.floor(GROUP_ELEMENTS / imageLength)));
    const slots = Math.ceil((group * inHeight * inWidth) / 4) * 4 + 4;
    const taps = info.filterHeight * info.filterWidth;
    const panels = Math.ceil(inChannels / TILE_COLUMNS);

    heap.withScratch(
      [group * imageLength, slots, slots, taps * outChannels, panels * TILE_COLUMNS * taps * outChannels],
      ([framed, aRows, cRows, aColumns, packed]) => {
        for (let image = 0; image < batchSize; image += group) {
          const images = Math.min(group, batchSize - image);
          copyFramed(heap, heap.addressOf(dy) + image * outHeight * outWidth * outChannels * 4, framed!, {
            images,
            channels: outChannels,
            height: outHeight,
            width: outWidth,
            frameHeight: frame.height,
            frameWidth: frame.width,
            top: rowAxis.frameStart,
            left: columnAxis.frameStart,
          });
          const target = heap.addressOf(out) + image * inHeight * inWidth * inChannels * 4;
          for (const rowClass of rowAxis.classes) {
            for (const columnClass of columnAxis.classes) {
              const k = rowClass.taps.length * columnClass.taps.length * outChannels;
              if (k === 0) {
                clearPixels(heap, target, images, info, rowClass, columnClass);
                continue;
              }
              const m = fillPixelRows(
                heap,
                aRows!,
                cRows!,
                framed!,
                target,
                images,
                info,
                frame,
                rowClass,
                columnClass,
              );
              fillTapOffsets(heap, aColumns!, frame.width, outChannels, rowClass, columnClass);
              packTaps(heap, heap.addressOf(filter), packed!, info, rowClass, columnClass);
              heap.gemm(
                m,
                inChannels,
                k,
                aRows!,
                aColumns!,
                packed!,
                32,
                32 * k,
                cRows!,
                0,
                heap.tileScratch,
              );
            }
          }
        }
      },
    );
    return out;
  },
);

/** The pixels along one axis that the same filter taps touch. */
interface PixelClass {
  /** Positions in the input. */
  readonly positions: readonly number[];
  /** For each position, where tap 0 of the class reads in the frame; tap t reads t before it. */
  readonly reads: readonly number[];
  /** Filter positions along the axis, in steps of the stride. */
  readonly taps: readonly number[];
}

interface Axis {
  readonly classes: readonly PixelClass[];
  readonly frameLength: number;
  /** Where output position 0 lies in the frame. */
  readonly frameStart: number;
}

/** Input position i gets filter tap t from output (i + pad - t) / stride, where that is whole and inside. */
function axisOf(
  inLength: number,
  outLength: number,
  filterLength: number,
  stride: number,
  pad: number,
): Axis {
  const maxTaps = Math.ceil(filterLength / stride);
  const frameStart = maxTaps - 1;
  const classes = Array.from({ length: stride }, (_, remainder) => {
    const taps: number[] = [];
    for (let tap = remainder; tap < filterLength; tap += stride) taps.push(tap);
    const positions: number[] = [];
    for (let i = 0; i < inLength; i++) if ((i + pad) % stride === remainder) positions.push(i);
    const reads = positions.map((i) => (i + pad - remainder) / stride + frameStart);
    return { positions, reads, taps };
  }).filter(({ positions }) => positions.length > 0);
  const furthest = Math.max(...classes.flatMap(({ reads }) => reads));
  return { classes, frameLength: Math.max(furthest + 1, outLength + frameStart), frameStart };
}

/** Writes where each pixel of the classes reads (row of A) and is written (row of C); returns how many there are. */
function fillPixelRows(
  heap: Heap,
  aRows: number,
  cRows: number,
  framed: number,
  target: number,
  images: number,
  info: backend_util.Conv2DInfo,
  frame: { readonly height: number; readonly width: number },
  rows: PixelClass,
  columns: PixelClass,
): number {
  const ints = heap.ints();
  const { inHeight, inWidth, inChannels, outChannels } = info;
  let count = 0;
  for (let image = 0; image < images; image++) {
    for (let r = 0; r < rows.positions.length; r++) {
      const readRow = (image * frame.height + rows.reads[r]!) * frame.width;
      const writeRow = (image * inHeight + rows.positions[r]!) * inWidth;
      for (let c = 0; c < columns.positions.length; c++) {
        ints[(aRows >> 2) + count] = framed + (readRow + columns.reads[c]!) * outChannels * 4;
        ints[(cRows >> 2) + count] = target + (writeRow + columns.positions[c]!) * inChannels * 4;
        count++;
      }
    }
  }
  repeatLast(ints, aRows >> 2, count);
  repeatLast(ints, cRows >> 2, count);
  return count;
}

/** Column (tap row, tap column, channel) of A lies this far from the pixel's first tap. */
function fillTapOffsets(
  heap: Heap,
  table: number,
  frameWidth: number,
  channels: number,
  rows: PixelClass,
  columns: PixelClass,
): void {
  const ints = heap.ints();
  let slot = table >> 2;
  for (let r = 0; r < rows.taps.length; r++) {
    for (let c = 0; c < columns.taps.length; c++) {
      const start = -(r * frameWidth + c) * channels;
      for (let channel = 0; channel < channels; channel++) ints[slot++] = (start + channel) * 4;
    }
  }
}

/** Packs the classes' taps of a [height, width, in, out] filter as a [taps x out, in] matrix. */
function packTaps(
  heap: Heap,
  filter: number,
  packed: number,
  info: backend_util.Conv2DInfo,
  rows: PixelClass,
  columns: PixelClass,
): void {
  const floats = heap.floats();
  const { inChannels, outChannels, filterWidth } = info;
  const panel = TILE_COLUMNS * rows.taps.length * columns.taps.length * outChannels;
  for (let first = 0; first < inChannels; first += TILE_COLUMNS) {
    let start = (packed >> 2) + (first / TILE_COLUMNS) * panel;
    for (const row of rows.taps) {
      for (const column of columns.taps) {
        const tap = (filter >> 2) + (row * filterWidth + column) * inChannels * outChannels;
        for (let i = 0; i < TILE_COLUMNS; i++) {
          const channel = first + i;
          const from = tap + channel * outChannels;
          for (let o = 0; o < outChannels; o++) {
            floats[start + o * TILE_COLUMNS + i] = channel < inChannels ? floats[from + o]! : 0;
          }
        }
        start += outChannels * TILE_COLUMNS;
      }
    }
  }
}

/** Pixels that no filter tap touches (a stride longer than the filter) have no gradient. */
function clearPixels(
  heap: Heap,
  target: number,
  images: number,
  info: backend_util.Conv2DInfo,
  rows: PixelClass,
  columns: PixelClass,
): void {
  const floats = heap.floats();
  const { inHeight, inWidth, inChannels } = info;
  for (let image = 0; image < images; image++) {
    for (const row of rows.positions) {
      for (const column of columns.positions) {
        const start = (target >> 2) + ((image * inHeight + row) * inWidth + column) * inChannels;
        floats.fill(0, start, start + inChannels);
      }
    }
  }
}
