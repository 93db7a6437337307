/** A Relu's gradient is dy times a mask of zeros and ones. Some gradients can be made masked for less than a product costs. */
import { sameShape, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { Notes } from './notes.ts';

/**
 * 1 where x > 0, else 0, in one pass: a hard sigmoid so steep that nothing is between. Of x and relu(x) it is the same;
 * taking the latter, x itself need not be kept for the way back.
 */
export function step(x: Value): Value {
  const positive = o.unviewed(x).derived('relu');
  if (positive !== undefined) return o.reshape(step(positive), x.shape);
  return o.unary('HardSigmoid', x, { alpha: { float: 1e38 }, beta: { float: 0 } });
}

/** Gradients, by how to make them anew times step(x). */
const prepared = new Notes<(x: Value) => Value | undefined>();

/** Returns `gradient`, known from now on as one that `make` makes times step(x), or says that it can't. */
export function takingMask(gradient: Value, make: (x: Value) => Value | undefined): Value {
  prepared.set(gradient, make);
  return gradient;
}

/** gradient · mask, where the mask is a step and the gradient can be made with it. */
export function masked(gradient: Value, mask: Value): Value | undefined {
  const { node } = o.unviewed(mask);
  if (node?.op !== 'HardSigmoid' || !sameShape(gradient.shape, mask.shape)) return undefined;
  const result = prepared.get(gradient)?.(node.inputs[0]!);
  return result === undefined ? undefined : o.reshape(result, gradient.shape);
}
