/** Steps that an engine can do again without TensorFlow.js building them each time. */
import type { RepeatedStep } from '@tributary/backend-onnxruntime';
import * as tf from './tf.ts';

interface Repeats {
  repeatable<I extends readonly tf.Tensor[], R extends Readonly<Record<string, tf.Tensor>>>(
    body: (...inputs: I) => R,
  ): RepeatedStep<I, R>;
}

/**
 * Returns `body`, a training step say, as one that the current engine may repeat: `onnxruntime` does, which makes a
 * step of a small network half as long; with the others it is the body. It may depend on its inputs and on variables, and
 * on nothing else that changes. Results are the caller's to dispose of, inputs stay the caller's.
 */
export function repeatable<I extends readonly tf.Tensor[], R extends Readonly<Record<string, tf.Tensor>>>(
  body: (...inputs: I) => R,
): RepeatedStep<I, R> {
  const backend = tf.backend() as Partial<Repeats>;
  return backend.repeatable?.(body) ?? { run: body, repeats: 0, dispose: () => {} };
}
