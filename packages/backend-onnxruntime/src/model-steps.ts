/** One node of a model as several. */
import type { Attribute } from './graph.ts';
import type { ModelNode } from './proto.ts';

/** Returns how to write nodes in the place of `made`: each step, names of what lies between, and the last one's result. */
export function stepsFor(made: ModelNode): {
  readonly step: (
    op: string,
    inputs: readonly string[],
    output: string,
    attributes?: Readonly<Record<string, Attribute>>,
  ) => ModelNode;
  readonly between: (name: string) => string;
  readonly result: string;
} {
  const result = made.outputs[0]!;
  return {
    step: (op, inputs, output, attributes = {}) => {
      const [domain, name] = op.includes('::') ? (op.split('::') as [string, string]) : ['', op];
      return { op: name, domain, attributes, inputs, outputs: [output], name: `${made.name}/${output}` };
    },
    between: (name) => `${result}_${name}`,
    result,
  };
}
