/**
 * Convolutions without a convolution: rows of pixels are gathered into patches, and one matrix product does the rest.
 * Weights [taps, cin, cout] are used as they lie in memory.
 *
 *   y  = patches(x) · W            [pixels, taps·cin] · [taps·cin, cout]
 *   dW = patches(x)ᵀ · dy
 *   dx = reached(dy) · Wᵀ          by classes of input pixels that the same taps reach: no product with a zero
 */
import { backend_util } from '@tensorflow/tfjs-core';
import type { Value } from '../graph.ts';
import * as o from '../ops.ts';
import { activate } from './activation.ts';
import { addBias, takingBias } from './bias.ts';
import {
  cutOfResult,
  type Geometry,
  geometry2d,
  geometry3d,
  imageOf,
  patches,
  pixelsOf,
} from './conv-geometry.ts';
import { depthwise, depthwiseFilterGradient, depthwiseInputGradient } from './depthwise.ts';
import { convolveInPairs, filterGradientInPairs, inPairs } from './few-channels.ts';
import { imagesOf, piecesOf } from './image-pieces.ts';
import { inputGradient } from './input-gradient.ts';
import { accept, FLOAT, type KernelTable } from './kernel.ts';

function convolve(x: Value, filter: Value, g: Geometry): Value {
  const wide = inPairs(g);
  if (wide !== undefined) return imageOf(convolveInPairs(pixelsOf(x, g), filter, g, wide), g.outShape, g);
  const weights = o.reshape(filter, [g.tables.taps * g.cin, g.cout]);
  const pieces = patches(pixelsOf(x, g), g, 'result');
  const cut = cutOfResult(g);
  const product = (bias?: Value) => {
    const options = bias === undefined ? {} : { bias };
    const products = pieces.map((rows) => o.gemm(rows, weights, options));
    if (cut === undefined) return o.concat(products, 0);
    return imagesOf({ cut, channels: g.cout, pieces: products.map((product) => [product]) });
  };
  return imageOf(takingBias(product(), product), g.outShape, g);
}

function filterGradient(x: Value, dy: Value, filterShape: readonly number[], g: Geometry): Value {
  const wide = inPairs(g);
  if (wide !== undefined) return filterGradientInPairs(pixelsOf(x, g), pixelsOf(dy, g), g, wide);
  const pieces = patches(pixelsOf(x, g), g, 'gradient');
  const known = piecesOf(dy);
  const inSamePieces = known?.cut === cutOfResult(g) ? known : undefined;
  const dyPieces =
    inSamePieces?.pieces.map(([piece]) => piece!) ??
    o.split(
      o.reshape(pixelsOf(dy, g), [g.batch * g.tables.outPixels, g.cout]),
      pieces.map((rows) => rows.shape[0]!),
    );
  const sums = dyPieces.reduce<Value | undefined>((sum, dyPiece, i) => {
    return o.gemm(pieces[i]!, dyPiece, { transA: true, ...(sum === undefined ? {} : { bias: sum }) });
  }, undefined);
  return o.reshape(sums!, filterShape);
}

// --- The table ---

type Format = 'NHWC' | 'NCHW';
type Pad = Parameters<typeof backend_util.computeConv2DInfo>[4];
type Rounding = Parameters<typeof backend_util.computeConv2DInfo>[5];

interface Conv2DAttrs {
  readonly strides: [number, number] | number;
  readonly pad: Pad;
  readonly dataFormat?: Format;
  readonly dilations?: [number, number] | number;
  readonly dimRoundingMode?: Rounding;
}

interface FusedAttrs extends Conv2DAttrs {
  readonly activation?: backend_util.Activation | null;
  readonly leakyreluAlpha?: number;
}

interface FusedInputs {
  readonly x: Value;
  readonly filter: Value;
  readonly bias?: Value;
  readonly preluActivationWeights?: Value;
}

function conv2d(
  inShape: readonly number[],
  filterShape: readonly number[],
  { strides, pad, dataFormat, dilations, dimRoundingMode }: Conv2DAttrs,
  depthwiseFilter = false,
): Geometry {
  return geometry2d(
    backend_util.computeConv2DInfo(
      inShape as [number, number, number, number],
      filterShape as [number, number, number, number],
      strides,
      dilations ?? 1,
      pad,
      dimRoundingMode,
      depthwiseFilter,
      backend_util.convertConv2DDataFormat(dataFormat ?? 'NHWC'),
    ),
  );
}

interface Conv3DAttrs {
  readonly strides: [number, number, number] | number;
  readonly pad: 'valid' | 'same';
  readonly dilations?: [number, number, number] | number;
}

function conv3d(
  inShape: readonly number[],
  filterShape: readonly number[],
  { strides, pad, dilations = 1 }: Conv3DAttrs,
): Geometry {
  type Shape5 = [number, number, number, number, number];
  return geometry3d(
    backend_util.computeConv3DInfo(inShape as Shape5, filterShape as Shape5, strides, dilations, pad),
  );
}

/** Adds a bias and applies an activation, whose parameters belong to channels. */
function finish(y: Value, { bias, preluActivationWeights }: FusedInputs, attrs: FusedAttrs): Value {
  const perChannel = (x: Value) =>
    attrs.dataFormat === 'NCHW' && x.shape.length === 1 && x.size > 1 ? o.reshape(x, [x.size, 1, 1]) : x;
  const biased = bias === undefined ? y : (addBias(y, bias) ?? o.add(y, perChannel(bias)));
  const weights = preluActivationWeights === undefined ? undefined : perChannel(preluActivationWeights);
  return activate(biased, attrs.activation, weights, attrs.leakyreluAlpha);
}

interface FilterGradient {
  readonly x: Value;
  readonly dy: Value;
}

interface InputGradient {
  readonly dy: Value;
  readonly filter: Value;
}

export const convolutions: KernelTable = {
  Conv2D: ({ x, filter }: FusedInputs, attrs: Conv2DAttrs) => {
    accept(FLOAT, x, filter);
    return convolve(x, filter, conv2d(x.shape, filter.shape, attrs));
  },
  Conv2DBackpropFilter: ({ x, dy }: FilterGradient, attrs: Conv2DAttrs & { filterShape: number[] }) => {
    accept(FLOAT, x, dy);
    return filterGradient(x, dy, attrs.filterShape, conv2d(x.shape, attrs.filterShape, attrs));
  },
  Conv2DBackpropInput: ({ dy, filter }: InputGradient, attrs: Conv2DAttrs & { inputShape: number[] }) => {
    accept(FLOAT, dy, filter);
    return inputGradient(dy, filter, conv2d(attrs.inputShape, filter.shape, attrs));
  },
  FusedConv2D: (inputs: FusedInputs, attrs: FusedAttrs) => {
    const { x, filter } = inputs;
    accept(FLOAT, x, filter);
    return finish(convolve(x, filter, conv2d(x.shape, filter.shape, attrs)), inputs, attrs);
  },
  Conv3D: ({ x, filter }: FusedInputs, attrs: Conv3DAttrs) => {
    accept(FLOAT, x, filter);
    return convolve(x, filter, conv3d(x.shape, filter.shape, attrs));
  },
  Conv3DBackpropFilterV2: ({ x, dy }: FilterGradient, attrs: Conv3DAttrs & { filterShape: number[] }) => {
    accept(FLOAT, x, dy);
    return filterGradient(x, dy, attrs.filterShape, conv3d(x.shape, attrs.filterShape, attrs));
  },
  Conv3DBackpropInputV2: ({ dy, filter }: InputGradient, attrs: Conv3DAttrs & { inputShape: number[] }) => {
    accept(FLOAT, dy, filter);
    return inputGradient(dy, filter, conv3d(attrs.inputShape, filter.shape, attrs));
  },
  DepthwiseConv2dNative: ({ x, filter }: FusedInputs, attrs: Conv2DAttrs) => {
    accept(FLOAT, x, filter);
    return depthwise(x, filter, conv2d(x.shape, filter.shape, attrs, true));
  },
  DepthwiseConv2dNativeBackpropFilter: (
    { x, dy }: FilterGradient,
    attrs: Conv2DAttrs & { filterShape: number[] },
  ) => {
    accept(FLOAT, x, dy);
    return depthwiseFilterGradient(x, dy, attrs.filterShape, conv2d(x.shape, attrs.filterShape, attrs, true));
  },
  DepthwiseConv2dNativeBackpropInput: (
    { dy, filter }: InputGradient,
    attrs: Conv2DAttrs & { inputShape: number[] },
  ) => {
    accept(FLOAT, dy, filter);
    return depthwiseInputGradient(dy, filter, conv2d(attrs.inputShape, filter.shape, attrs, true));
  },
  FusedDepthwiseConv2D: (inputs: FusedInputs, attrs: FusedAttrs) => {
    const { x, filter } = inputs;
    accept(FLOAT, x, filter);
    return finish(depthwise(x, filter, conv2d(x.shape, filter.shape, attrs, true)), inputs, attrs);
  },
};
