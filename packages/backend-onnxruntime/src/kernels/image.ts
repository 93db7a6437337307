/**
 * Resizing images. Each output row is a weighted sum of input rows and each output column of input columns, so resizing
 * is two matrix products, and its gradient is the same two with the matrices transposed.
 */
import { emit, external, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { accept, FLOAT, type KernelTable } from './kernel.ts';

interface ResizeAttrs {
  readonly size: [number, number];
  readonly alignCorners: boolean;
  readonly halfPixelCenters: boolean;
}

type Method = 'bilinear' | 'nearest';

/** [to, from]: what each input row gives to each output row. */
function weightsOf(
  method: Method,
  from: number,
  to: number,
  attrs: ResizeAttrs,
  gradient: boolean,
): Float32Array {
  const { alignCorners, halfPixelCenters } = attrs;
  const corners = alignCorners && to > 1;
  const ratio = corners ? (from - 1) / (to - 1) : from / to;
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const centered = halfPixelCenters && !gradient;
    if (method === 'nearest') {
      const at = centered ? ratio * (i + 0.5) : ratio * i;
      const nearest = alignCorners ? Math.round(at) : Math.floor(at);
      weights[i * from + Math.max(0, Math.min(from - 1, nearest))] = 1;
      continue;
    }
    const at = centered ? ratio * (i + 0.5) - 0.5 : ratio * i;
    const low = Math.max(0, Math.floor(at));
    const high = Math.min(from - 1, Math.ceil(at));
    const fraction = at - low;
    weights[i * from + low]! += 1 - fraction;
    weights[i * from + high]! += fraction;
  }
  return weights;
}

/** Sums of rows of [batch, rows, width] by `weights` [to, from], or of its transposed. */
function weighRows(x: Value, weights: Value, transposed: boolean): Value {
  const shape = [x.shape[0]!, weights.shape[transposed ? 1 : 0]!, x.shape[2]!];
  const attributes = { transA: transposed ? 1 : 0, transB: 0 };
  return transposed
    ? emit('com.microsoft::FusedMatMul', [weights, x], shape, 'float32', attributes)
    : emit('MatMul', [weights, x], shape, 'float32');
}

function resize(x: Value, rows: Value, columns: Value, transposed: boolean): Value {
  const [batch, height, width, channels] = x.shape as [number, number, number, number];
  const tall = weighRows(o.reshape(x, [batch, height, width * channels]), rows, transposed);
  const newHeight = tall.shape[1]!;
  const wide = weighRows(o.reshape(tall, [batch * newHeight, width, channels]), columns, transposed);
  return o.reshape(wide, [batch, newHeight, wide.shape[1]!, channels]);
}

function matrix(method: Method, from: number, to: number, attrs: ResizeAttrs, gradient: boolean): Value {
  return external(weightsOf(method, from, to, attrs, gradient), [to, from], 'float32');
}

function forward(method: Method) {
  return ({ images }: { images: Value }, attrs: ResizeAttrs): Value => {
    accept(FLOAT, images);
    const [, height, width] = images.shape as [number, number, number, number];
    const rows = matrix(method, height, attrs.size[0], attrs, false);
    return resize(images, rows, matrix(method, width, attrs.size[1], attrs, false), false);
  };
}

/** TensorFlow.js's gradients leave half-pixel centres out of account, and so do these. */
function backward(method: Method) {
  return ({ images, dy }: { images: Value; dy: Value }, attrs: ResizeAttrs): Value => {
    accept(FLOAT, images, dy);
    const [, height, width] = images.shape as [number, number, number, number];
    const [, newHeight, newWidth] = dy.shape as [number, number, number, number];
    const rows = matrix(method, height, newHeight, attrs, true);
    return resize(dy, rows, matrix(method, width, newWidth, attrs, true), true);
  };
}

export const images: KernelTable = {
  ResizeBilinear: forward('bilinear'),
  ResizeBilinearGrad: backward('bilinear'),
  ResizeNearestNeighbor: forward('nearest'),
  ResizeNearestNeighborGrad: backward('nearest'),
};
