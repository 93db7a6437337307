/**
 * Forms that ONNX Runtime's CPU provider is fast with, in place of some that it computes on one thread or with its
 * caches missed. Measured on two cores; the results differ in rounding at most.
 */
import type { Node } from './graph.ts';
import { stepsFor } from './model-steps.ts';
import type { ModelNode } from './proto.ts';

/** From this many numbers on, a bias is added after the product: Gemm first writes it out, on one thread. */
const BIAS_APART_FROM = 1 << 20;
/** Parts that a sum over very many rows is made of: each is read once, and there is one for each of as many threads. */
export const PARTS = 16;
const PARTED_FROM_ROWS = PARTS * 1024;

/** Returns what computes the same as `made`, the model's form of `node`. */
export function onCpu(node: Node, made: ModelNode): readonly ModelNode[] {
  if (made.op !== 'Gemm') return [made];
  const [a, b, bias] = made.inputs as readonly [string, string, string?];
  const { step, between, result } = stepsFor(made);
  const { transA, transB } = made.attributes;
  if (bias !== undefined) {
    if (node.outputs[0]!.size < BIAS_APART_FROM) return [made];
    return [
      step('Gemm', [a, b], between('product'), made.attributes),
      step('Add', [between('product'), bias], result),
    ];
  }
  const [rows, width] = node.inputs[0]!.shape as [number, number];
  if (transA !== 1 || transB === 1 || rows < PARTED_FROM_ROWS || rows % PARTS !== 0) return [made];
  const shape = (name: string, columns: number): ModelNode =>
    step('Constant', [], between(name), { value_ints: [PARTS, rows / PARTS, columns] });
  return [
    shape('shapeA', width),
    shape('shapeB', node.inputs[1]!.shape[1]!),
    step('Reshape', [a, between('shapeA')], between('a')),
    step('Reshape', [b, between('shapeB')], between('b')),
    step('com.microsoft::FusedMatMul', [between('a'), between('b')], between('parts'), { transA: 1 }),
    step('Constant', [], between('axes'), { value_ints: [0] }),
    step('ReduceSum', [between('parts'), between('axes')], result, { keepdims: 0 }),
  ];
}
