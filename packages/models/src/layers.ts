/** What the image models share: seeded initial weights and the output layer. */
import { seededRandom, tf } from '@tributary/engine';

type Initializer = ReturnType<typeof tf.initializers.glorotUniform>;

/** Returns a function that gives another Glorot-uniform initializer (2010) each time, all drawn from one seed. */
export function initializers(seed: number): () => Initializer {
  const random = seededRandom(seed);
  // 0 would mean "no seed" to TensorFlow.js.
  return () => tf.initializers.glorotUniform({ seed: 1 + Math.floor(random() * (2 ** 31 - 1)) });
}

/** One sigmoid for two classes (the probability of the second), else a softmax over all. */
export function outputLayer(numClasses: number, kernelInitializer: Initializer): tf.layers.Layer {
  return numClasses === 2
    ? tf.layers.dense({ name: 'output', units: 1, activation: 'sigmoid', kernelInitializer })
    : tf.layers.dense({ name: 'output', units: numClasses, activation: 'softmax', kernelInitializer });
}
