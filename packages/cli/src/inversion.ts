/**
 * What one plain update of a model gives away without any search: the gradient of a single example is taken, as one step
 * of SGD sends it, and the analytic attacks are run on it. Adam and more steps blur it; that is no protection.
 */
import { type EngineName, loadEngine, tf } from '@tributary/engine';
import { modelFromArtifact } from '@tributary/models';
import { imageError, leakedInput, leakedLabels } from '@tributary/privacy';
import type { TrainedModel } from './models.ts';

export interface Inversion {
  /** The first dense layer that has a bias, whose input was read; absent when there is none. */
  readonly layer?: string;
  /** What that input is: the image itself, or what the layers before made of it. */
  readonly reads?: 'image' | 'features';
  /** Numbers of it. */
  readonly inputs?: number;
  /** Of what was read against what was there, in the model's own units; absent when the gradient was zero. */
  readonly mse?: number;
  readonly psnr?: number;
  /** The index of the example's class. */
  readonly label: number;
  /** Classes that the last bias tells; absent without such a bias. */
  readonly leakedLabels?: readonly number[];
}

export interface Inverter {
  /** Attacks the gradient of `image`, as the model takes it, with the class `label`. */
  invert(image: Float32Array, label: number): Promise<Inversion>;
  close(): void;
}

/** A PSNR from which on an image looks right. */
const SEEN_FROM_DB = 30;
/** A probability's logarithm is taken from no less, as training does. */
const FUZZ = 1e-7;

/** Whether the image itself was read. */
export function imageWasRead({ reads, psnr = -Infinity }: Inversion): boolean {
  return reads === 'image' && psnr >= SEEN_FROM_DB;
}

/** An inverter for `model`, on the engine named. Throws what modelFromArtifact throws. */
export async function openInverter(model: TrainedModel, engine: EngineName | 'auto'): Promise<Inverter> {
  const { input, topology, training } = model.federation;
  await loadEngine({ prefer: engine });
  const network = await modelFromArtifact({ topology, weights: [...model.tensors] });
  // What is frozen is not in an update.
  const dense = network.layers.filter(
    (layer) => isDense(layer) && layer.trainable && !training.frozenLayers.includes(layer.name),
  );
  const first = dense[0];
  const last = dense.find((layer) => layer === network.layers.at(-1));
  const intoFirst = first && tf.model({ inputs: network.inputs, outputs: first.input as tf.SymbolicTensor });

  return {
    async invert(image, label) {
      if (first === undefined) return { label };
      const x = tf.tensor4d(image, [1, input.height, input.width, input.channels]);
      const there = (intoFirst as tf.LayersModel).predict(x) as tf.Tensor;
      const { grads } = gradientsOf(network, x, label, last === undefined ? [first] : [first, last]);
      try {
        const [kernel, bias] = first.weights.map((weight) => grads[variableOf(weight).name]!);
        const truth = await there.data();
        const read = leakedInput({ kernel: await kernel!.data(), bias: await bias!.data() });
        const lastBias = last && (await grads[variableOf(last.weights[1]!).name]!.data());
        return {
          label,
          layer: first.name,
          reads: sameNumbers(truth, image) ? 'image' : 'features',
          inputs: truth.length,
          ...(read && imageError(truth, read, rangeOf(truth))),
          ...(lastBias && { leakedLabels: leakedLabels(lastBias) }),
        };
      } finally {
        tf.dispose([x, there, grads]);
      }
    },
    close: () => network.dispose(),
  };
}

/** A dense layer with a bias on one row of numbers an example. */
function isDense(layer: tf.layers.Layer): boolean {
  return (
    layer.getClassName() === 'Dense' &&
    layer.weights.length === 2 &&
    (layer.input as tf.SymbolicTensor).shape.length === 2
  );
}

/** Of the cross-entropy of one example, for the weights of `layers`. */
function gradientsOf(
  network: tf.LayersModel,
  x: tf.Tensor,
  label: number,
  layers: readonly tf.layers.Layer[],
): { grads: tf.NamedTensorMap } {
  const variables = layers.flatMap((layer) => layer.weights.map(variableOf));
  return tf.variableGrads(() => {
    const outputs = tf.reshape(network.apply(x) as tf.Tensor, [-1]);
    // One output is the probability of the second of two classes.
    const own =
      outputs.size === 1 ? (label === 1 ? outputs : tf.sub(1, outputs)) : tf.slice(outputs, label, 1);
    return tf.neg(tf.log(tf.sum(tf.clipByValue(own, FUZZ, 1)))) as tf.Scalar;
  }, [...new Set(variables)]);
}

function variableOf(weight: tf.LayerVariable): tf.Variable {
  return weight.read() as tf.Variable;
}

function sameNumbers(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && Array.from(a).every((value, i) => value === b[i]);
}

function rangeOf(values: ArrayLike<number>): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    low = Math.min(low, values[i]!);
    high = Math.max(high, values[i]!);
  }
  return [low, high];
}
