/** Biases that a matrix product adds by itself. */
import { emit, type Node, type Value } from '../graph.ts';
import * as o from '../ops.ts';
import { Notes } from './notes.ts';

/** Products that are not one Gemm, by how to make them anew with a bias. */
const prepared = new Notes<(bias: Value) => Value>();

/** Returns `product`, known from now on as one that `make` makes with a bias as well. */
export function takingBias(product: Value, make: (bias: Value) => Value): Value {
  prepared.set(product, make);
  return product;
}

/**
 * x + bias, where x is a matrix product without one and bias is a row: the product adds it for nothing. The product
 * may have been reshaped since, as a convolution's is.
 */
export function addBias(x: Value, bias: Value): Value | undefined {
  const product = o.unviewed(x);
  const make = prepared.get(product) ?? again(product.node);
  if (make === undefined) return undefined;
  const width = product.shape[1]!;
  const channels = x.shape.at(-1)!;
  if (bias.size !== channels || bias.shape.at(-1) !== channels || width % channels !== 0) return undefined;
  if (bias.shape.length > x.shape.length) return undefined;
  const row = o.tile(o.reshape(bias, [channels]), [width / channels]);
  return o.reshape(make(row), x.shape);
}

function again(node: Node | undefined): ((bias: Value) => Value) | undefined {
  if (node?.op !== 'Gemm' || node.inputs.length !== 2) return undefined;
  const { shape, dtype } = node.outputs[0]!;
  return (bias) => emit('Gemm', [...node.inputs, bias], shape, dtype, node.attributes);
}
