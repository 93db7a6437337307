/**
 * Convolutions without a convolution: rows of pixels are gathered into patches, and one matrix product does the rest.
 * Weights [taps, cin, cout] are used as they lie in memory.
 *
 *   y  = patches(x) · W            [pixels, taps·cin] · [taps·cin, cout]
 *   dW = patches(x)ᵀ · dy
 *   dx = reached(dy) · Wᵀ          by classes of input pixels that the same taps reach: no product with a zero
 */
import { backend_util } from '@tensorflow/tfjs-core';
import { external, number, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { type Tables, tablesOf, takePixels, type Window } from '../window.ts';
import { activate } from './activation.ts';
import { addBias } from './elementwise.ts';
import { accept, FLOAT, type KernelTable, refuse } from './kernel.ts';

const ZERO = number(0);

interface Geometry {
  readonly batch: number;
  readonly tables: Tables;
  readonly cin: number;
  readonly cout: number;
  readonly inShape: readonly number[];
  readonly outShape: readonly number[];
  readonly channelsFirst: boolean;
}

type Conv2DInfo = ReturnType<typeof backend_util.computeConv2DInfo>;
type Conv3DInfo = ReturnType<typeof backend_util.computeConv3DInfo>;

function geometry2d(info: Conv2DInfo): Geometry {
  const window: Window = {
    inSize: [info.inHeight, info.inWidth],
    outSize: [info.outHeight, info.outWidth],
    kernel: [info.filterHeight, info.filterWidth],
    stride: [info.strideHeight, info.strideWidth],
    dilation: [info.dilationHeight, info.dilationWidth],
    before: [info.padInfo.top, info.padInfo.left],
  };
  return geometry(info, window);
}

function geometry3d(info: Conv3DInfo): Geometry {
  const window: Window = {
    inSize: [info.inDepth, info.inHeight, info.inWidth],
    outSize: [info.outDepth, info.outHeight, info.outWidth],
    kernel: [info.filterDepth, info.filterHeight, info.filterWidth],
    stride: [info.strideDepth, info.strideHeight, info.strideWidth],
    dilation: [info.dilationDepth, info.dilationHeight, info.dilationWidth],
    before: [info.padInfo.front, info.padInfo.top, info.padInfo.left],
  };
  return geometry(info, window);
}

function geometry(info: Conv2DInfo | Conv3DInfo, window: Window): Geometry {
  if (info.outShape.includes(0)) refuse('empty result');
  return {
    batch: info.batchSize,
    tables: tablesOf(window),
    cin: info.inChannels,
    cout: info.outChannels,
    inShape: info.inShape,
    outShape: info.outShape,
    channelsFirst: info.dataFormat === 'channelsFirst',
  };
}

// --- Channels last inside, whatever outside ---

/** As [batch, pixels, channels]. */
function pixelsOf(x: Value, { batch, channelsFirst }: Geometry): Value {
  const channels = channelsFirst ? x.shape[1]! : x.shape.at(-1)!;
  const last = channelsFirst ? o.transpose(x, [0, ...spatialAxes(x, 2), 1]) : x;
  return o.reshape(last, [batch, x.size / (batch * channels), channels]);
}

/** Back to `shape`, which has channels where the caller wants them. */
function imageOf(pixels: Value, shape: readonly number[], { channelsFirst }: Geometry): Value {
  if (!channelsFirst) return o.reshape(pixels, shape);
  const [batch, channels, ...spatial] = shape as [number, number, ...number[]];
  const last = o.reshape(pixels, [batch, ...spatial, channels]);
  return o.transpose(last, [0, shape.length - 1, ...spatial.map((_, i) => i + 1)]);
}

function spatialAxes(x: Value, first: number): number[] {
  return x.shape.slice(2).map((_, i) => i + first);
}

// --- Dense convolution ---

/** [batch · outPixels, taps · cin] */
function patches(x: Value, { batch, tables, cin }: Geometry): Value {
  const rows = takePixels(x, tables.patches, ZERO);
  return o.reshape(rows, [batch * tables.outPixels, tables.taps * cin]);
}

function convolve(x: Value, filter: Value, g: Geometry): Value {
  const weights = o.reshape(filter, [g.tables.taps * g.cin, g.cout]);
  return imageOf(o.gemm(patches(pixelsOf(x, g), g), weights), g.outShape, g);
}

function filterGradient(x: Value, dy: Value, filterShape: readonly number[], g: Geometry): Value {
  const dyRows = o.reshape(pixelsOf(dy, g), [g.batch * g.tables.outPixels, g.cout]);
  return o.reshape(o.gemm(patches(pixelsOf(x, g), g), dyRows, { transA: true }), filterShape);
}

/** A dy that is larger than the convolution's result counts as far as that goes. */
function cropped(dy: Value, { outShape }: Geometry): Value {
  return o.slice(
    dy,
    outShape.map(() => 0),
    outShape,
  );
}

function inputGradient(dy: Value, filter: Value, g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const dyPixels = pixelsOf(cropped(dy, g), g);
  const rows = o.reshape(filter, [tables.taps * cin, cout]);
  const byClass = tables.classes.map(({ taps, pixels, table }) => {
    const reached = o.reshape(takePixels(dyPixels, table, ZERO), [batch * pixels, taps.length * cout]);
    // Rows of cout numbers, by input channel and tap: the transposed weights without a transposition.
    const weights = o.reshape(weightRows(rows, taps, tables.taps, cin), [cin, taps.length * cout]);
    return o.reshape(o.gemm(reached, weights, { transB: true }), [batch, pixels, cin]);
  });
  return imageOf(inOrder(byClass, tables), g.inShape, g);
}

function weightRows(rows: Value, taps: readonly number[], allTaps: number, cin: number): Value {
  if (allTaps === 1) return rows;
  const order = rowOrders.of(`${taps}/${cin}`, () => {
    return Int32Array.from({ length: cin * taps.length }, (_, i) => {
      const channel = Math.floor(i / taps.length);
      return taps[i % taps.length]! * cin + channel;
    });
  });
  return rows.derive(`rows of ${taps}`, () => o.gather(rows, order, 0));
}

/** Joins what was computed for each class of input pixels. */
function inOrder(byClass: readonly Value[], tables: Tables): Value {
  return takePixels(o.concat(byClass, 1), tables.order, ZERO);
}

// --- One filter for each channel ---

/** [batch, pixels, taps, cin, multiplier]: each input pixel's part in each output. */
function depthwise(x: Value, filter: Value, g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const weights = o.reshape(filter, [tables.taps, cin, cout / cin]);
  const rows = o.reshape(takePixels(pixelsOf(x, g), tables.patches, ZERO), [
    batch * tables.outPixels,
    tables.taps,
    cin,
    1,
  ]);
  return imageOf(sumOverTaps(rows, weights), g.outShape, g);
}

/** Σ over taps of rows[n, tap, channel, 1 or m] · weights[tap, channel, m], multipliers side by side. */
function sumOverTaps(rows: Value, weights: Value): Value {
  const [count, taps, cin] = rows.shape as [number, number, number, number];
  const multiplier = weights.shape[2]!;
  const flat = (x: Value, width: number) => o.reshape(x, [...x.shape.slice(0, -2), cin * width]);
  const products =
    multiplier === 1 ? o.mul(flat(rows, 1), flat(weights, 1)) : flat(o.mul(rows, weights), multiplier);
  return o.reduce('ReduceSum', o.reshape(products, [count, taps, cin * multiplier]), [1], false);
}

function depthwiseFilterGradient(x: Value, dy: Value, filterShape: readonly number[], g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const rows = batch * tables.outPixels;
  const taken = o.reshape(takePixels(pixelsOf(x, g), tables.patches, ZERO), [rows, tables.taps, cin, 1]);
  const products = o.mul(taken, o.reshape(pixelsOf(dy, g), [rows, 1, cin, cout / cin]));
  return o.reshape(o.reduce('ReduceSum', products, [0], false), filterShape);
}

function depthwiseInputGradient(dy: Value, filter: Value, g: Geometry): Value {
  const { tables, batch, cin, cout } = g;
  const multiplier = cout / cin;
  const dyPixels = pixelsOf(dy, g);
  const weights = o.reshape(filter, [tables.taps, cout]);
  const byClass = tables.classes.map(({ taps, pixels, table }) => {
    const reached = o.reshape(takePixels(dyPixels, table, ZERO), [batch * pixels, taps.length, cout]);
    const order = rowOrders.of(`${taps}`, () => Int32Array.from(taps));
    const used = taps.length === tables.taps ? weights : o.gather(weights, order, 0);
    const sums = o.reduce('ReduceSum', o.mul(reached, used), [1], false);
    if (multiplier === 1) return o.reshape(sums, [batch, pixels, cin]);
    return o.reduce('ReduceSum', o.reshape(sums, [batch, pixels, cin, multiplier]), [3], false);
  });
  return imageOf(inOrder(byClass, tables), g.inShape, g);
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

/** Index tables for rows of weights, by what they select. */
const rowOrders = {
  known: new Map<string, Value>(),
  of(key: string, make: () => Int32Array): Value {
    let order = this.known.get(key);
    if (order === undefined) {
      if (this.known.size >= 256) this.known.clear();
      const indices = make();
      order = external(indices, [indices.length], 'int32');
      this.known.set(key, order);
    }
    return order;
  },
};
