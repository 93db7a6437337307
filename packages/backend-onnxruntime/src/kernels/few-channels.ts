/** Dense convolution of images with few channels, whose rows would be too short to be worth taking. */
import { number, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { tablesOf, type Window } from '../window.ts';
import { takingBias } from './bias.ts';
import { type Geometry, ZERO } from './conv-geometry.ts';
import { piecesOf, rowsLike } from './image-pieces.ts';
import { Notes } from './notes.ts';
import { sumOfProducts } from './product.ts';
import { takingZeroRow } from './zero-row.ts';

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

/** What a product in pairs is of: patches, whose column `ones` meets the bias. */
interface Factors {
  readonly patches: Value;
  readonly ones: number;
}

const factors = new Notes<Factors>();

/** [batch · outPixels / 2, 2 · cout] */
export function convolveInPairs(x: Value, filter: Value, g: Geometry, pairs: Pairs): Value {
  const { cin, cout, tables } = pairs.wide;
  const ones = tables.taps * cin;
  const weights = o.reshape(pairFilter(filter, g, pairs), [ones, cout]);
  const product = (last: Value) => {
    const matrix = o.concat([weights, last], 0);
    const of = (patches: Value) => {
      const result = o.gemm(patches, matrix);
      factors.set(result, { patches, ones });
      return result;
    };
    const withRow = () => of(patchesAndOne(x, g, pairs, true));
    return takingZeroRow(of(patchesAndOne(x, g, pairs)), g.batch, withRow);
  };
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
  const { cin, cout, tables } = pairs.wide;
  const patches = patchesAndOne(x, g, pairs);
  const byRows = productByRows(dy);
  const ofThese = byRows?.of.patches === patches || byRows?.of.patches === patchesAndOne(x, g, pairs, true);
  const product = ofThese
    ? byRows!.product
    : o.gemm(patches, o.reshape(dy, [patches.shape[0]!, cout]), { transA: true });
  return sumOfPair(o.slice(product, [0, 0], [tables.taps * cin, cout]), g, pairs);
}

/**
 * The sum over pixels of a gradient by rows, where it is that of a product in pairs: a row of the filter's gradient, which
 * needs the same product.
 */
export function sumByRows(dy: Value): Value | undefined {
  const byRows = productByRows(dy);
  if (byRows === undefined) return undefined;
  const { product, of } = byRows;
  const sums = o.slice(product, [of.ones, 0], [1, product.shape[1]!]);
  const channels = dy.shape.at(-1)!;
  return o.reduce('ReduceSum', o.reshape(sums, [sums.size / channels, channels]), [0], false);
}

/** patchesᵀ · dy, piece by piece, for the patches of the product that dy is the gradient of. */
function productByRows(dy: Value): { product: Value; of: Factors } | undefined {
  const gradient = piecesOf(dy);
  const of = gradient?.of === undefined ? undefined : factors.get(gradient.of);
  if (gradient === undefined || of === undefined) return undefined;
  const { patches } = of;
  const [width, columns] = [patches.shape[1]!, gradient.of!.shape[1]!];
  const across = (gradient.cut.width * gradient.channels) / columns;
  // The gradient may be seen as other images than the product is.
  if (across % 1 !== 0) return undefined;
  const product = o.unviewed(dy).derive('by rows', () =>
    sumOfProducts(
      gradient.pieces.map((piece, i) => {
        // Each part of a piece meets the same patches, where it has every second pixel of a row.
        const halves = piece.length * gradient.channels === columns ? piece : [o.concat(piece, 1)];
        const count = (halves.length * halves[0]!.size) / columns;
        const taken = rowsLike(gradient, i, patches, across * width);
        return [
          o.reshape(taken, [count, width]),
          halves.map((half) => o.reshape(half, [count, columns / halves.length])),
        ] as const;
      }),
    ),
  );
  return { product, of };
}

/**
 * [batch · outPixels / 2, rows of the window · across · cin + group · cin]: each patch ends in a wide pixel of a one and
 * zeros, which meets the bias in the matrix of weights. With a zero row, there is one more row of patches below each image,
 * all zeros.
 */
function patchesAndOne(
  x: Value,
  { window, batch, cin }: Geometry,
  { wide, group }: Pairs,
  withZeroRow = false,
): Value {
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
  const size = (wide.tables.taps + 1) * wide.cin;
  const { kernel, stride, before: above } = wide.window;
  const rows = pixels.derive(`patches and one ${kernel} ${stride} ${above} ${withZeroRow}`, () =>
    o.gather(o.concat([pixels, outside, one], 1), wide.tables.patchesAndOne(withZeroRow), 1),
  );
  return o.reshape(rows, [rows.size / size, size]);
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
