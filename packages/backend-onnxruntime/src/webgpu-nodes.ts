/**
 * Operators that ONNX Runtime's WebGPU provider doesn't have, put together from those that it has. Left as they are,
 * each would run on the processor, and its inputs and results be copied there and back: half of a training step.
 */
import type { Node } from './graph.ts';
import { stepsFor } from './model-steps.ts';
import type { ModelNode } from './proto.ts';

/** TensorProto.DataType. */
const INT32 = 6;
const BOOL = 9;

/** Returns what computes the same as `made`, the model's form of `node`. */
export function onWebgpu(node: Node, made: ModelNode): readonly ModelNode[] {
  const { inputs } = made;
  const { step, between, result } = stepsFor(made);
  const [a, b] = inputs as readonly [string, string];
  switch (made.op) {
    case 'Or':
      return [
        step('Not', [a], between('a')),
        step('Not', [b], between('b')),
        step('And', [between('a'), between('b')], between('neither')),
        step('Not', [between('neither')], result),
      ];
    case 'IsNaN':
      return [step('Equal', [a, a], between('itself')), step('Not', [between('itself')], result)];
    case 'Concat': {
      if (node.inputs[0]!.dtype !== 'bool') return [made];
      const numbers = inputs.map((input, i) => step('Cast', [input], between(`${i}`), { to: INT32 }));
      const joined = step(
        'Concat',
        numbers.flatMap(({ outputs }) => outputs),
        between('joined'),
        made.attributes,
      );
      return [...numbers, joined, step('Cast', [between('joined')], result, { to: BOOL })];
    }
    case 'FusedMatMul': {
      if (node.inputs.every(({ shape }) => shape.length === 2)) {
        return [step('Gemm', inputs, result, made.attributes)];
      }
      const steps: ModelNode[] = [];
      const factors = (['transA', 'transB'] as const).map((flag, i) => {
        if (made.attributes[flag] !== 1) return inputs[i]!;
        const rank = node.inputs[i]!.shape.length;
        const perm = Array.from({ length: rank }, (_, axis) => axis);
        perm.push(...perm.splice(-2).reverse());
        steps.push(step('Transpose', [inputs[i]!], between(flag), { perm }));
        return between(flag);
      });
      return [...steps, step('MatMul', factors, result)];
    }
    default:
      return [made];
  }
}
