/** Dense convolution of images with few channels, whose rows would be too short to be worth taking. */
import type { Value } from '../graph.ts';
import * as o from '../ops.ts';
import { tablesOf, type Window } from '../window.ts';
import { type Geometry, patches, ZERO } from './conv-geometry.ts';

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

/** [batch · outPixels / 2, rows of the window · across · cin] */
export function pairPatches(x: Value, { window, batch, cin }: Geometry, { wide, group }: Pairs): Value {
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
  return patches(o.reshape(padded, [batch, wide.tables.inPixels, wide.cin]), wide);
}

/** [rows of the window, across, cin, 2 · cout] */
export function pairFilter(filter: Value, { window, cin, cout }: Geometry, { across }: Pairs): Value {
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
export function sumOfPair(product: Value, { window, cin, cout }: Geometry, { across }: Pairs): Value {
  const [height, width] = window.kernel as [number, number];
  const both = o.reshape(product, [height, across, cin, 2 * cout]);
  const [first, second] = [0, 1].map((i) =>
    o.slice(both, [0, i * window.stride[1]!, 0, i * cout], [height, width, cin, cout]),
  );
  return o.add(first!, second!);
}
