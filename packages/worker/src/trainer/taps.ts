/**
 * One backward pass that stops at the layers: what came into each, and the gradient of the loss by what its weights made
 * of that, before the activation. No gradient by weights is computed.
 */
import { tf } from '@tributary/engine';

export interface Tap {
  /** What came in: [n, ...]. */
  readonly input: tf.Tensor;
  /** Of the losses' sum, by the layer's output before its activation: [n, ...]. */
  readonly gradient: tf.Tensor;
}

/**
 * Runs `losses`, which applies the model to a batch and returns one number a record, forwards and backwards. Returns them,
 * and a tap for each of `layers`, in their order. The tensors are kept: the caller disposes them.
 */
export function tapLayers(
  layers: readonly tf.layers.Layer[],
  losses: () => tf.Tensor,
): { readonly losses: tf.Tensor; readonly taps: readonly Tap[] } {
  const inputs = new Map<tf.layers.Layer, tf.Tensor>();
  const gradients = new Map<tf.layers.Layer, tf.Tensor>();
  let value: tf.Tensor | undefined;
  // A number that every tapped output seems to depend on: the backward pass goes from the loss to all of them, and ends.
  tf.grad((source) => {
    const undo = layers.map((layer) => tapLayer(layer, source, inputs, gradients));
    try {
      value = tf.keep(losses());
      return tf.sum(value);
    } finally {
      for (const restore of undo) restore();
    }
  })(tf.scalar(0));
  return {
    losses: value!,
    taps: layers.map((layer) => {
      const [input, gradient] = [inputs.get(layer), gradients.get(layer)];
      if (input === undefined || gradient === undefined) {
        throw new Error(`the layer "${layer.name}" has no part in the loss`);
      }
      return { input, gradient };
    }),
  };
}

/** Has `layer` record what it meets, until the function that this returns is called. */
function tapLayer(
  layer: tf.layers.Layer,
  source: tf.Tensor,
  inputs: Map<tf.layers.Layer, tf.Tensor>,
  gradients: Map<tf.layers.Layer, tf.Tensor>,
): () => void {
  const own = layer as unknown as { activation?: Activation };
  const { call } = layer;
  layer.call = (given, kwargs) => {
    if (inputs.has(layer)) throw new Error(`the layer "${layer.name}" was applied twice`);
    inputs.set(layer, tf.keep(tf.clone(Array.isArray(given) ? given[0]! : given)));
    const { activation } = own;
    if (activation !== undefined) own.activation = identity();
    try {
      const output = call.call(layer, given, kwargs) as tf.Tensor;
      const tapped = tf.customGrad((x) => ({
        value: tf.clone(x as tf.Tensor),
        gradFunc: (gradient: tf.Tensor) => {
          gradients.set(layer, tf.keep(tf.clone(gradient)));
          return [gradient, tf.scalar(0)];
        },
      }))(output, source);
      return activation === undefined ? tapped : activation.apply(tapped);
    } finally {
      if (activation !== undefined) own.activation = activation;
    }
  };
  return () => {
    layer.call = call;
  };
}

interface Activation {
  apply(x: tf.Tensor): tf.Tensor;
}

let linear: Activation | undefined;
/** The activation that does nothing, which TensorFlow.js makes but does not export. */
function identity(): Activation {
  linear ??= (tf.layers.dense({ units: 1, activation: 'linear' }) as unknown as { activation: Activation })
    .activation;
  return linear;
}
