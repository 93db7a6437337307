/**
 * What each record of a batch does to a layer's weights, without a backward pass of its own: a record's gradient follows
 * from what came into the layer and the gradient of what left it, so its norm can be had without it ("ghost clipping").
 * Goodfellow 2015, arXiv 1510.01799, for dense layers; Li et al. 2022, arXiv 2110.05679, where a record has many positions;
 * Bu, Mao, Xu 2022, arXiv 2205.10683, for choosing the cheaper of norm and gradient in each layer.
 */
import { tf } from '@tributary/engine';

/** A layer whose records' gradients are known from one backward pass. */
export interface GhostLayer {
  readonly layer: tf.layers.Layer;
  /**
   * `input` is what came in, `gradient` that of the loss's sum by `tapped` outputs: [n, ...] both. Must be run in a tidy.
   */
  records(input: tf.Tensor, gradient: tf.Tensor): RecordGradients;
  /** Floats that `records` needs for each record, about: bounds how many go through at a time. */
  readonly floatsARecord: number;
}

export interface RecordGradients {
  /** The squared L2 norm of each record's gradient over the layer's trained weights: [n]. */
  readonly squaredNorms: tf.Tensor1D;
  /** Gradients by weight, summed over records with these factors, [n]. */
  sum(factors: tf.Tensor1D): ReadonlyMap<tf.Variable, tf.Tensor>;
}

/** One weight's part of it. */
interface WeightGradients {
  readonly squaredNorms: tf.Tensor1D;
  sum(factors: tf.Tensor1D): tf.Tensor;
}

/** The fields of TensorFlow.js's layers that are used here. */
interface Fields {
  readonly kernel?: tf.LayerVariable;
  readonly bias?: tf.LayerVariable | null;
  readonly embeddings?: tf.LayerVariable;
  readonly gamma?: tf.LayerVariable;
  readonly beta?: tf.LayerVariable;
  readonly epsilon?: number;
  readonly axis?: readonly number[];
  readonly kernelSize?: readonly number[];
  readonly strides?: readonly number[];
  readonly dilationRate?: readonly number[];
  readonly padding?: 'valid' | 'same' | 'causal';
  readonly dataFormat?: 'channelsLast' | 'channelsFirst';
}

/**
 * Returns how the records' gradients of `layer`, for those of its weights that are in `trained`, follow from one pass; or
 * undefined where they don't: another kind of layer, one that is applied more than once, or an unusual layout.
 */
export function ghostLayer(
  layer: tf.layers.Layer,
  trained: ReadonlySet<tf.Variable>,
): GhostLayer | undefined {
  if (layer.inboundNodes.length !== 1) return undefined;
  const fields = layer as unknown as Fields;
  const inShape = layer.inboundNodes[0]!.inputShapes[0] as (number | null)[];
  const outShape = layer.inboundNodes[0]!.outputShapes[0] as (number | null)[];
  if (inShape.slice(1).includes(null) || outShape.slice(1).includes(null)) return undefined;
  const weight = (variable: tf.LayerVariable | null | undefined): tf.Variable | undefined => {
    const read = variable?.read() as tf.Variable | undefined;
    return read !== undefined && trained.has(read) ? read : undefined;
  };
  switch (layer.getClassName()) {
    case 'Dense': {
      const kernel = weight(fields.kernel);
      const bias = weight(fields.bias);
      const positions = sizeOf(outShape.slice(1, -1));
      const [inputs, outputs] = [inShape.at(-1)!, outShape.at(-1)!];
      return {
        layer,
        floatsARecord: positions === 1 ? inputs + outputs : positionFloats(positions, inputs, outputs),
        records: (input, gradient) =>
          gather([
            [kernel, () => kernelGradients(byPosition(input), byPosition(gradient), kernel!.shape)],
            [bias, () => biasGradients(byPosition(gradient))],
          ]),
      };
    }
    case 'Conv1D':
    case 'Conv2D': {
      if (fields.dataFormat !== 'channelsLast' || fields.padding === 'causal') return undefined;
      if (fields.dilationRate?.some((rate) => rate !== 1)) return undefined;
      const kernel = weight(fields.kernel);
      const bias = weight(fields.bias);
      const patches = createPatches(inShape.slice(1) as number[], fields);
      const [positions, outputs] = [sizeOf(outShape.slice(1, -1)), outShape.at(-1)!];
      return {
        layer,
        floatsARecord: positionFloats(positions, patches.width, outputs),
        records: (input, gradient) =>
          gather([
            [kernel, () => kernelGradients(patches.of(input), byPosition(gradient), kernel!.shape)],
            [bias, () => biasGradients(byPosition(gradient))],
          ]),
      };
    }
    case 'Embedding': {
      const embeddings = weight(fields.embeddings);
      const positions = sizeOf(outShape.slice(1, -1));
      return {
        layer,
        floatsARecord: positions * (positions + outShape.at(-1)!),
        records: (input, gradient) =>
          gather([
            [embeddings, () => embeddingGradients(input, byPosition(gradient), embeddings!.shape[0]!)],
          ]),
      };
    }
    case 'LayerNormalization': {
      const axis = fields.axis ?? [];
      if (axis.length !== 1 || axis[0] !== inShape.length - 1) return undefined;
      const gamma = weight(fields.gamma);
      const beta = weight(fields.beta);
      return {
        layer,
        floatsARecord: 2 * sizeOf(inShape.slice(1)),
        records: (input, gradient) =>
          gather([
            [
              gamma,
              () => biasGradients(byPosition(tf.mul(gradient, normalized(input, fields.epsilon ?? 1e-3)))),
            ],
            [beta, () => biasGradients(byPosition(gradient))],
          ]),
      };
    }
    default:
      return undefined;
  }
}

/** Puts the trained weights of a layer together; the others cost nothing. */
function gather(
  parts: readonly (readonly [tf.Variable | undefined, () => WeightGradients])[],
): RecordGradients {
  const trained = parts.flatMap(([variable, make]) =>
    variable === undefined ? [] : [{ variable, gradients: make() }],
  );
  return {
    squaredNorms: tf.addN(trained.map(({ gradients }) => gradients.squaredNorms)),
    sum: (factors) => new Map(trained.map(({ variable, gradients }) => [variable, gradients.sum(factors)])),
  };
}

/**
 * Of a product input × kernel at each position: `inputs` [n, positions, in], `gradients` [n, positions, out]. A record's
 * gradient is inputsᵀ gradients; its squared norm is also the sum over pairs of positions of the product of their two
 * inner products. The cheaper one is computed.
 */
function kernelGradients(
  inputs: tf.Tensor3D,
  gradients: tf.Tensor3D,
  shape: readonly number[],
): WeightGradients {
  const [n, positions, width] = inputs.shape;
  const outputs = gradients.shape[2];
  if (wholeIsCheaper(positions, width, outputs)) {
    const whole = tf.matMul(inputs, gradients, true) as tf.Tensor3D;
    const flat = tf.reshape(whole, [n, width * outputs]) as tf.Tensor2D;
    return {
      squaredNorms: squaredRows(flat),
      sum: (factors) => tf.reshape(weigh(flat, factors), [...shape]),
    };
  }
  return {
    squaredNorms:
      positions === 1
        ? tf.mul(squaredRows(inputs), squaredRows(gradients))
        : tf.sum(
            tf.mul(tf.matMul(inputs, inputs, false, true), tf.matMul(gradients, gradients, false, true)),
            [1, 2],
          ),
    sum: (factors) => {
      const weighted = tf.mul(gradients, tf.reshape(factors, [n, 1, 1]));
      const rows = [n * positions, width] as const;
      return tf.reshape(
        tf.matMul(tf.reshape(inputs, [...rows]), tf.reshape(weighted, [n * positions, outputs]), true),
        [...shape],
      );
    },
  };
}

/** Of what is added at every position: `gradients` [n, positions, width]. */
function biasGradients(gradients: tf.Tensor3D): WeightGradients {
  const [n, positions, width] = gradients.shape;
  const own = (positions === 1 ? tf.reshape(gradients, [n, width]) : tf.sum(gradients, 1)) as tf.Tensor2D;
  return { squaredNorms: squaredRows(own), sum: (factors) => tf.reshape(weigh(own, factors), [width]) };
}

/** Of rows that are looked up: two positions of a record meet where they looked up the same row. */
function embeddingGradients(input: tf.Tensor, gradients: tf.Tensor3D, rows: number): WeightGradients {
  const [n, positions, width] = gradients.shape;
  const indices = tf.cast(tf.reshape(input, [n, positions]), 'int32');
  const same = tf.cast(
    tf.equal(tf.reshape(indices, [n, positions, 1]), tf.reshape(indices, [n, 1, positions])),
    'float32',
  );
  return {
    squaredNorms: tf.sum(tf.mul(same, tf.matMul(gradients, gradients, false, true)), [1, 2]),
    sum: (factors) => {
      const weighted = tf.mul(gradients, tf.reshape(factors, [n, 1, 1]));
      return tf.unsortedSegmentSum(
        tf.reshape(weighted, [n * positions, width]),
        tf.reshape(indices, [n * positions]) as tf.Tensor1D,
        rows,
      );
    },
  };
}

interface Patches {
  /** Floats of one patch: kernel places × channels. */
  readonly width: number;
  /** [n, ...input] to [n, positions, width]: what the kernel meets at each output position. */
  of(input: tf.Tensor): tf.Tensor3D;
}

/** The patches of a convolution over [width, channels] or [height, width, channels]. */
function createPatches(inShape: readonly number[], fields: Fields): Patches {
  const flat = inShape.length === 2;
  const [height, width, channels] = (flat ? [1, ...inShape] : inShape) as [number, number, number];
  const pair = (values: readonly number[] | undefined): [number, number] =>
    (flat ? [1, values?.[0] ?? 1] : [values?.[0] ?? 1, values?.[1] ?? 1]) as [number, number];
  const [kernelHeight, kernelWidth] = pair(fields.kernelSize);
  const strides = pair(fields.strides);
  const { padInfo, outHeight, outWidth } = tf.backend_util.computeConv2DInfo(
    [1, height, width, channels],
    [kernelHeight, kernelWidth, channels, 1],
    strides,
    1,
    fields.padding as 'valid' | 'same',
  );
  const padded = {
    height: height + padInfo.top + padInfo.bottom,
    width: width + padInfo.left + padInfo.right,
  };
  const pixels: number[] = [];
  for (let y = 0; y < outHeight; y++) {
    for (let x = 0; x < outWidth; x++) {
      for (let i = 0; i < kernelHeight; i++) {
        for (let j = 0; j < kernelWidth; j++) {
          pixels.push((y * strides[0] + i) * padded.width + x * strides[1] + j);
        }
      }
    }
  }
  const patch = kernelHeight * kernelWidth * channels;
  const table = Int32Array.from(pixels);
  return {
    width: patch,
    of(input) {
      const n = input.shape[0]!;
      const around = tf.pad(tf.reshape(input, [n, height, width, channels]), [
        [0, 0],
        [padInfo.top, padInfo.bottom],
        [padInfo.left, padInfo.right],
        [0, 0],
      ]);
      const rows = tf.reshape(around, [n, padded.height * padded.width, channels]);
      const taken = tf.gather(rows, tf.tensor1d(table, 'int32'), 1);
      return tf.reshape(taken, [n, outHeight * outWidth, patch]);
    },
  };
}

/** What a layer normalisation makes of its input before gamma and beta. */
function normalized(input: tf.Tensor, epsilon: number): tf.Tensor {
  const { mean, variance } = tf.moments(input, -1, true);
  return tf.mul(tf.sub(input, mean), tf.rsqrt(tf.add(variance, epsilon)));
}

/**
 * Whether a record's gradient is worth having whole. It takes width * outputs floats a record and makes the weighted sum
 * nearly free; the pairs of positions take positions * (width + outputs) multiplications for each position beside it.
 */
function wholeIsCheaper(positions: number, width: number, outputs: number): boolean {
  return positions > 1 && width * outputs <= 4 * positions * (width + outputs);
}

function positionFloats(positions: number, width: number, outputs: number): number {
  const pairs = wholeIsCheaper(positions, width, outputs) ? width * outputs : 2 * positions * positions;
  return 2 * positions * width + pairs;
}

/** [n, ..., width] to [n, positions, width]. */
function byPosition(x: tf.Tensor): tf.Tensor3D {
  const [n, width] = [x.shape[0]!, x.shape.at(-1)!];
  return tf.reshape(x, [n, sizeOf(x.shape.slice(1, -1)), width]);
}

function squaredRows(x: tf.Tensor): tf.Tensor1D {
  return tf.sum(tf.square(tf.reshape(x, [x.shape[0]!, -1])), 1);
}

/** factors [n] × rows [n, width] → [1, width]. */
function weigh(rows: tf.Tensor2D, factors: tf.Tensor1D): tf.Tensor {
  return tf.matMul(tf.reshape(factors, [1, factors.shape[0]]), rows);
}

function sizeOf(shape: readonly (number | null)[]): number {
  return shape.reduce<number>((product, size) => product * (size ?? 1), 1);
}
