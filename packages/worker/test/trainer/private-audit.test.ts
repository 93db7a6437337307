/** The audit of a mechanism, of the one that trains here: what leaves a batch must not tell whether a record was in it. */
import { loadEngine, tf } from '@tributary/engine';
import { auditMechanism, gaussianEpsilon } from '@tributary/privacy';
import { seededWords } from '@tributary/testkit';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createObjective } from '../../src/trainer/objectives.ts';
import {
  createPrivateGradients,
  type PrivateGradients,
  type Records,
} from '../../src/trainer/private-gradients.ts';

const TRIALS = 4000;
const DELTA = 1e-5;
const CLIPPING_NORM = 1;
const NOISE_MULTIPLIER = 5;
/** What is known of the batch beforehand. */
const EXPECTED = 2;

/** One sigmoid without bias at zero: the gradient of record x of class 1 is -x/2. */
const ONE: Records = { images: Float32Array.of(0.1, -0.3), shape: [1, 2], labels: Int32Array.of(1) };
/** The same and the canary, which is clipped from a norm of 500 and lies in the first coordinate. */
const WITH_CANARY: Records = {
  images: Float32Array.of(0.1, -0.3, -1000, 0),
  shape: [2, 2],
  labels: Int32Array.of(1, 1),
};

let model: tf.LayersModel;
beforeAll(async () => {
  await loadEngine({ prefer: 'cpu' });
  const layer = tf.layers.dense({
    units: 1,
    activation: 'sigmoid',
    useBias: false,
    kernelInitializer: 'zeros',
    inputShape: [2],
  });
  model = tf.sequential({ layers: [layer] });
});
afterAll(() => model.dispose());

const gradientsOf = (seed: number): PrivateGradients =>
  createPrivateGradients(
    {
      model,
      trainable: model.trainableWeights.map((weight) => weight.read() as tf.Variable),
      objective: createObjective({ loss: 'binaryCrossentropy', metrics: [], units: 1, numClasses: 2 }),
    },
    {
      clippingNorm: CLIPPING_NORM,
      noiseMultiplier: NOISE_MULTIPLIER,
      expectedBatchSize: EXPECTED,
      random: seededWords(seed),
    },
  );

/** The first coordinate of so many batches of the same records. */
async function releases(gradients: PrivateGradients, records: Records): Promise<number[]> {
  const first: number[] = [];
  for (let trial = 0; trial < TRIALS; trial++) {
    await gradients.add(records);
    const tensors = Object.values(gradients.finish().gradients);
    first.push(tensors[0]!.dataSync()[0]!);
    tf.dispose(tensors);
  }
  return first;
}

it.each([1, 2])(
  'Opacus 571 and 819: an audit does not refute the claim, and would if the sum were divided by the records there are (seed %d)',
  async (seed) => {
    const gradients = gradientsOf(seed);
    const [without, withCanary] = [
      await releases(gradients, ONE),
      await releases(gradients, WITH_CANARY),
    ] as const;
    const audit = (divisors: readonly [number, number]) => {
      const sets = [without, withCanary].map((values, i) =>
        values.map((value) => (value * EXPECTED) / divisors[i]!).values(),
      );
      return auditMechanism({
        release: (set: Iterator<number>) => [set.next().value],
        without: sets[0]!,
        with: sets[1]!,
        coordinate: 0,
        trials: TRIALS,
        claimedEpsilon: gaussianEpsilon(NOISE_MULTIPLIER, DELTA),
        delta: DELTA,
      });
    };
    expect(audit([EXPECTED, EXPECTED]).verdict).toBe('not-refuted');
    expect(audit([1, 2]).verdict).toBe('refuted');
  },
);
