/**
 * From pending values to a program: walks back from what is wanted to what exists, numbers what it meets, and writes
 * two things from the same walk: a key that is equal for graphs of equal structure, and, when that key is new, a model.
 */
import { onCpu } from './cpu-nodes.ts';
import {
  BYTES_PER_ELEMENT,
  type ElementType,
  type HostData,
  type Node,
  sizeOf,
  tokens,
  type Value,
} from './graph.ts';
import { encodeModel, type ModelNode, type TensorType } from './proto.ts';
import type { Device } from './runtime.ts';
import { onWebgpu } from './webgpu-nodes.ts';

export interface Plan {
  /** Operators with their attributes, types of inputs, constants, who feeds whom, and which values are wanted. */
  readonly key: Int32Array;
  readonly hash: number;
  /** In topological order. */
  readonly nodes: readonly Node[];
  /** What has to be fed, in order. */
  readonly externals: readonly Value[];
  readonly constants: readonly Value[];
  readonly outputs: readonly Value[];
}

/** Marks in the key; places are never negative. */
const EXTERNAL = -1;
const CONSTANT = -2;
const NODE = -3;
const OUTPUTS = -4;

let epoch = 0;
let keyBuffer = new Int32Array(1 << 14);

/** Returns the plan that computes `outputs`, all of them pending. */
export function plan(outputs: readonly Value[]): Plan {
  epoch++;
  const nodes = reachable(outputs);
  const externals: Value[] = [];
  const constants: Value[] = [];
  let places = 0;
  let length = 0;
  const put = (value: number) => {
    if (length === keyBuffer.length) {
      const grown = new Int32Array(length * 2);
      grown.set(keyBuffer);
      keyBuffer = grown;
    }
    keyBuffer[length++] = value;
  };
  const place = (value: Value) => {
    value.mark = epoch;
    value.place = places++;
  };
  const putSource = (value: Value) => {
    place(value);
    if (value.constant === undefined) {
      externals.push(value);
      put(EXTERNAL);
      put(typeToken(value.dtype, value.shape));
    } else {
      constants.push(value);
      put(CONSTANT);
      put(value.constant.token);
    }
  };
  for (const node of nodes) {
    for (const input of node.inputs) if (input.mark !== epoch) putSource(input);
    put(NODE);
    put(node.token);
    for (const input of node.inputs) put(input.place);
    for (const output of node.outputs) place(output);
  }
  put(OUTPUTS);
  for (const output of outputs) put(output.place);
  const key = keyBuffer.slice(0, length);
  return { key, hash: hashOf(key), nodes, externals, constants, outputs };
}

export const inputName = (index: number): string => `i${index}`;
export const outputName = (index: number): string => `o${index}`;

/** Returns the plan as an ONNX model for a device, whose inputs are i0, i1 … and whose outputs are o0, o1 … */
export function modelOf({ nodes, externals, constants, outputs }: Plan, device: Device): Uint8Array {
  const names: string[] = [];
  externals.forEach((value, i) => {
    names[value.place] = inputName(i);
  });
  outputs.forEach((value, i) => {
    names[value.place] = outputName(i);
  });
  const nameOf = (value: Value): string => {
    names[value.place] ??= `v${value.place}`;
    return names[value.place]!;
  };
  const describe = (value: Value): TensorType => ({
    name: nameOf(value),
    dtype: value.dtype,
    shape: value.shape,
  });
  const modelNodes = nodes.flatMap((node, i): readonly ModelNode[] => {
    const made = {
      op: node.op,
      domain: node.domain,
      attributes: node.attributes,
      inputs: node.inputs.map(nameOf),
      outputs: node.outputs.map(nameOf),
      name: `${i}:${node.kernel}`,
    };
    return device === 'webgpu' ? onWebgpu(node, made) : device === 'cpu' ? onCpu(node, made) : [made];
  });
  return encodeModel({
    nodes: modelNodes,
    initializers: constants.map((value) => ({ ...describe(value), bytes: bytesOf(value.constant!.data) })),
    inputs: externals.map(describe),
    outputs: outputs.map(describe),
  });
}

/** Returns the most bytes that results of nodes take at one time, when each is freed after its last use. */
export function peakBytes({ nodes, outputs }: Plan): number {
  const lastUse = new Map<Value, number>();
  nodes.forEach((node, i) => {
    for (const input of node.inputs) lastUse.set(input, i);
  });
  for (const output of outputs) lastUse.set(output, nodes.length);
  const freedAfter: number[] = new Array(nodes.length + 1).fill(0);
  let held = 0;
  let peak = 0;
  nodes.forEach((node, i) => {
    if (node.op !== 'Reshape') {
      for (const output of node.outputs) {
        const bytes = sizeOf(output.shape) * BYTES_PER_ELEMENT[output.dtype];
        held += bytes;
        freedAfter[lastUse.get(output) ?? i]! += bytes;
      }
    }
    peak = Math.max(peak, held);
    held -= freedAfter[i]!;
  });
  return peak;
}

/** Nodes that the values need, by creation; those without a node of their own are data already. */
function reachable(values: readonly Value[]): Node[] {
  const nodes: Node[] = [];
  const stack: Node[] = [];
  const visit = (value: Value) => {
    const { node } = value;
    if (node === undefined || node.mark === epoch) return;
    node.mark = epoch;
    nodes.push(node);
    stack.push(node);
  };
  for (const value of values) visit(value);
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) node.inputs.forEach(visit);
  return nodes.sort((a, b) => a.id - b.id);
}

function typeToken(dtype: ElementType, shape: readonly number[]): number {
  return tokens.of(`${dtype}[${shape}]`);
}

/** FNV-1a over the words of the key. */
function hashOf(key: Int32Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key[i]!, 0x01000193);
  return hash;
}

function bytesOf(data: HostData): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
