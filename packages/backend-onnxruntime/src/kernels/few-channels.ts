/** Dense convolution of images with few channels, whose rows would be too short to be worth taking. */
import { number, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { tablesOf, type Window } from '../window.ts';
import { takingBias } from './bias.ts';
import { type Geometry, ZERO } from './conv-geometry.ts';

/**
 * To take a row of 4 bytes costs what one of 60 does. So an image of few channels is seen as one of wide pixels, each as
 * many neighbours as two results lie apart, and every place yields two results side by side: the filter stands twice in
 * the matrix, once a stride further, with zeros around it. A 5 x 5 window of stride 2 takes 5 rows a result, not 25.
 */
export interface Pairs {
  /** The convolution of wide pixels. */
  readonly wide: Geometry;
  /** Pixels in a wide one. */
  readonly group: number;
  /** Pixels in a row of the wide window. */
  readonly across: number;
}

const FEW_CHANNELS = 4;

/** Returns how to compute the convolution in pairs, where its channels are few and its results pair up. */
export function inPairs({ window, batch, cin, cout, inShape, outShape }: Geometry): Pairs | undefined {
  const [, outWidth] = window.outSize;
  const [, kernelWidth] = window.kernel;
  if (cin > FEW_CHANNELS || window.kernel.length !== 2) return undefined;
  if (kernelWidth === 1 || outWidth! % 2 !== 0) return undefined;
  if (window.dilation.some((d) => d !== 1)) return undefined;
  const stride = window.stride[1]!;
  const group = 2 * stride;
  const groups = Math.ceil((kernelWidth! + stride) / group);
  const wide: Window = {
    inSize: [window.inSize[0]!, outWidth! / 2 - 1 + groups],
    outSize: [window.outSize[0]!, outWidth! / 2],
    kernel: [window.kernel[0]!, groups],
    stride: [window.stride[0]!, 1],
    dilation: [1, 1],
    before: [window.before[0]!, 0],
  };
  return {
    wide: {
      batch,
      window: wide,
      tables: tablesOf(wide),
      cin: group * cin,
      cout: 2 * cout,
      inShape,
      outShape,
      channelsFirst: false,
    },
    group,
    across: groups * group,
  };
}

/** [batch · outPixels / 2, 2 · cout] */
export function convolveInPairs(x: Value, filter: Value, g: Geometry, pairs: Pairs): Value {
  const rows = patchesAndOne(x, g, pairs);
  const { cin, cout } = pairs.wide;
  const weights = o.reshape(pairFilter(filter, g, pairs), [rows.shape[1]! - cin, cout]);
  const product = (last: Value) => o.gemm(rows, o.concat([weights, last], 0));
  return takingBias(product(o.expand(ZERO, [cin, cout])), (bias) =>
    product(
      o.pad(
        o.reshape(bias, [1, cout]),
        [
          [0, cin - 1],
          [0, 0],
        ],
        ZERO,
      ),
    ),
  );
}

export function filterGradientInPairs(x: Value, dy: Value, g: Geometry, pairs: Pairs): Value {
  const rows = patchesAndOne(x, g, pairs);
  const { cin, cout } = pairs.wide;
  const product = o.gemm(rows, o.reshape(dy, [rows.shape[0]!, cout]), { transA: true });
  return sumOfPair(o.slice(product, [0, 0], [rows.shape[1]! - cin, cout]), g, pairs);
}

/**
 * [batch · outPixels / 2, rows of the window · across · cin + group · cin]: each patch ends in a wide pixel of a one and
 * zeros, which meets the bias in the matrix of weights.
 */
function patchesAndOne(x: Value, { window, batch, cin }: Geometry, { wide, group }: Pairs): Value {
  const [height, width] = window.inSize as [number, number];
  const before = window.before[1]!;
  const after = wide.window.inSize[1]! * group - width - before;
  const padded = x.derive(`padded ${before} ${after}`, () =>
    o.pad(
      o.reshape(x, [batch, height, width, cin]),
      [
        [0, 0],
        [0, 0],
        [before, after],
        [0, 0],
      ],
      ZERO,
    ),
  );
  const pixels = o.reshape(padded, [batch, wide.tables.inPixels, wide.cin]);
  const outside = o.expand(ZERO, [batch, 1, wide.cin]);
  const one = o.pad(
    o.expand(number(1), [batch, 1, 1]),
    [
      [0, 0],
      [0, 0],
      [0, wide.cin - 1],
    ],
    ZERO,
  );
  const { kernel, stride, before: above } = wide.window;
  const rows = pixels.derive(`patches and one ${kernel} ${stride} ${above}`, () =>
    o.gather(o.concat([pixels, outside, one], 1), wide.tables.patchesAndOne, 1),
  );
  return o.reshape(rows, [batch * wide.tables.outPixels, (wide.tables.taps + 1) * wide.cin]);
}

/** [rows of the window, across, cin, 2 · cout] */
function pairFilter(filter: Value, { window, cin, cout }: Geometry, { across }: Pairs): Value {
  const [height, width] = window.kernel as [number, number];
  const stride = window.stride[1]!;
  const shifted = [0, stride].map((by) =>
    o.pad(
      o.reshape(filter, [height, width, cin, cout]),
      [
        [0, 0],
        [by, across - width - by],
        [0, 0],
        [0, 0],
      ],
      ZERO,
    ),
  );
  return o.concat(shifted, 3);
}

/** The gradient of a filter that stood twice in the matrix. */
function sumOfPair(product: Value, { window, cin, cout }: Geometry, { across }: Pairs): Value {
  const [height, width] = window.kernel as [number, number];
  const both = o.reshape(product, [height, across, cin, 2 * cout]);
  const [first, second] = [0, 1].map((i) =>
    o.slice(both, [0, i * window.stride[1]!, 0, i * cout], [height, width, cin, cout]),
  );
  return o.add(first!, second!);
}
