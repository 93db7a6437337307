/**
 * The graph that kernels write and the backend later runs. A value is one of three things:
 * - computed: output of a node, with no data yet;
 * - external: data that exists, which enters a graph as an input, so that other data never means another graph;
 * - initializer: a small constant that shapes the computation (axes, bounds), part of the graph and of its cache key.
 * Shape and type of every value are known when it is made. Dead parts of the graph are garbage and nothing else.
 */
import type { GpuTensor } from './runtime.ts';

export type ElementType = 'float32' | 'int32' | 'bool' | 'int64' | 'float64';

export type HostData = Float32Array | Int32Array | Uint8Array | BigInt64Array | Float64Array;

/** An ONNX attribute: an integer, integers, a string, or a float (which has to say so). */
export type Attribute = number | string | readonly number[] | { readonly float: number };

/** Where external data is: in the process's memory, or in a device buffer. */
export type Source = { readonly host: HostData } | { readonly gpu: GpuTensor };

export interface Node {
  /** Rises in the order of creation, which is a topological order. */
  readonly id: number;
  readonly op: string;
  readonly domain: string;
  readonly attributes: Readonly<Record<string, Attribute>>;
  readonly inputs: readonly Value[];
  readonly outputs: Value[];
  /** Stands for op and attributes in cache keys. */
  readonly token: number;
  /** The TensorFlow.js kernel that made it. */
  readonly kernel: string;
  /** The flush that saw it last. */
  mark: number;
}

export class Value {
  readonly shape: readonly number[];
  readonly dtype: ElementType;
  readonly size: number;
  /** The node that computes it, until the value is computed. */
  node: Node | undefined;
  /** The data of an external value. */
  source: Source | undefined;
  /** Tensors whose data this is. */
  holders = 0;
  /** Whether tensors that know nothing of each other have this data: a reader gets a copy. */
  shared = false;
  /** Content of an initializer, and its number in cache keys. */
  readonly constant: { readonly token: number; readonly data: HostData } | undefined;
  /** Values derived from this one that several kernels ask for (views, patches), by what was asked. */
  #derived: Map<string, Value> | undefined;
  #derivedIn = 0;
  /** Place in the graph being put together, valid for the flush `mark`. */
  place = 0;
  mark = 0;

  constructor(
    shape: readonly number[],
    dtype: ElementType,
    origin: { node?: Node; source?: Source; constant?: { token: number; data: HostData } },
  ) {
    this.shape = shape;
    this.dtype = dtype;
    this.size = sizeOf(shape);
    this.node = origin.node;
    this.source = origin.source;
    this.constant = origin.constant;
  }

  /** Whether it still waits for a flush. */
  get pending(): boolean {
    return this.node !== undefined;
  }

  /** The bytes that it takes, or will take. */
  get bytes(): number {
    return this.size * BYTES_PER_ELEMENT[this.dtype];
  }

  /** From now on this value is data. */
  resolve(source: Source): void {
    this.node = undefined;
    this.source = source;
  }

  /** Returns what was derived from this value under `key` in this graph, if it was. */
  derived(key: string): Value | undefined {
    return this.#derivedIn === tracing.graph ? this.#derived?.get(key) : undefined;
  }

  /**
   * Returns the value derived from this one under `key`, made once a graph: a node left over from an earlier graph would
   * stand in another place, and make a step that is like the last one look like another.
   */
  derive(key: string, make: () => Value): Value {
    if (this.#derived === undefined || this.#derivedIn !== tracing.graph) {
      this.#derived = new Map();
      this.#derivedIn = tracing.graph;
    }
    let value = this.#derived.get(key);
    if (value === undefined) {
      value = make();
      this.#derived.set(key, value);
    }
    return value;
  }
}

export const BYTES_PER_ELEMENT: Readonly<Record<ElementType, number>> = {
  float32: 4,
  int32: 4,
  int64: 8,
  bool: 1,
  float64: 8,
};

export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const dimension of shape) size *= dimension;
  return size;
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** What is being traced right now; nodes made meanwhile carry it. */
export const tracing: {
  kernel: string;
  nodeCount: number;
  graph: number;
  /** About how large intermediate results should be that are used up at once; without end where there is no cache to fit. */
  pieceBytes: number;
} = {
  kernel: '',
  pieceBytes: Number.POSITIVE_INFINITY,
  nodeCount: 0,
  graph: 1,
};

export interface OutputType {
  readonly shape: readonly number[];
  readonly dtype: ElementType;
}

const NO_ATTRIBUTES: Readonly<Record<string, Attribute>> = {};

/** Adds a node with one output to the graph. `op` is an ONNX operator, "com.microsoft::X" one of ONNX Runtime's own. */
export function emit(
  op: string,
  inputs: readonly Value[],
  shape: readonly number[],
  dtype: ElementType,
  attributes: Readonly<Record<string, Attribute>> = NO_ATTRIBUTES,
): Value {
  return emitMany(op, inputs, [{ shape, dtype }], attributes)[0]!;
}

/** Adds a node with several outputs. */
export function emitMany(
  op: string,
  inputs: readonly Value[],
  outputs: readonly OutputType[],
  attributes: Readonly<Record<string, Attribute>> = NO_ATTRIBUTES,
): Value[] {
  const colon = op.indexOf('::');
  const node: Node = {
    id: ++tracing.nodeCount,
    op: colon < 0 ? op : op.slice(colon + 2),
    domain: colon < 0 ? '' : op.slice(0, colon),
    attributes,
    inputs,
    outputs: [],
    token: tokens.of(attributes === NO_ATTRIBUTES ? op : op + describe(attributes)),
    kernel: tracing.kernel,
    mark: 0,
  };
  for (const { shape, dtype } of outputs) node.outputs.push(new Value(shape, dtype, { node }));
  return node.outputs;
}

/** Data as a value; the array is used as it is, so it must not change afterwards. */
export function external(data: HostData, shape: readonly number[], dtype: ElementType): Value {
  return new Value(shape, dtype, { source: { host: data } });
}

/** Integers that shape a computation, as a one-dimensional initializer. */
export function ints(values: readonly number[]): Value {
  return constants.get(`i${values.join()}`, (token) => {
    const data = BigInt64Array.from(values, BigInt);
    return new Value([values.length], 'int64', { constant: { token, data } });
  });
}

/** A number that belongs to a formula (not one that a caller may vary from step to step), as a scalar initializer. */
export function number(value: number, dtype: ElementType = 'float32'): Value {
  return constants.get(`${dtype}${Object.is(value, -0) ? '-0' : value}`, (token) => {
    return new Value([], dtype, { constant: { token, data: filledArray(value, 1, dtype) } });
  });
}

/** The same number everywhere, as data. Optimizers and gradients ask for the same dozens at every step: made once. */
export function uniform(value: number, shape: readonly number[], dtype: ElementType): Value {
  const make = () => external(filledArray(value, sizeOf(shape), dtype), shape, dtype);
  if (sizeOf(shape) > MAX_SHARED_SIZE) return make();
  const key = `${dtype}[${shape}]${Object.is(value, -0) ? '-0' : value}`;
  let shared = uniforms.get(key);
  if (shared === undefined) {
    if (uniforms.size >= 1024) uniforms.clear();
    shared = make();
    shared.shared = true;
    uniforms.set(key, shared);
  }
  return shared;
}

const MAX_SHARED_SIZE = 1 << 16;
const uniforms = new Map<string, Value>();

function filledArray(value: number, size: number, dtype: ElementType): HostData {
  if (dtype === 'int64') return new BigInt64Array(size).fill(BigInt(value));
  const Numbers = { float32: Float32Array, float64: Float64Array, int32: Int32Array, bool: Uint8Array }[
    dtype
  ];
  const array = new Numbers(size);
  return value === 0 && !Object.is(value, -0) ? array : array.fill(value);
}

/**
 * Numbers for what is equal. When the table is full it starts anew with numbers that were never given: graphs compiled
 * before are then not found again, which costs a compilation and nothing else.
 */
class Tokens {
  #known = new Map<string, number>();
  #next = 1;
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  of(text: string): number {
    let token = this.#known.get(text);
    if (token === undefined) {
      if (this.#known.size >= this.#limit) this.#known.clear();
      token = this.#next++;
      this.#known.set(text, token);
    }
    return token;
  }
}

class Constants {
  #known = new Map<string, Value>();
  #next = 1;
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(key: string, make: (token: number) => Value): Value {
    let value = this.#known.get(key);
    if (value === undefined) {
      if (this.#known.size >= this.#limit) this.#known.clear();
      value = make(this.#next++);
      this.#known.set(key, value);
    }
    return value;
  }
}

export const tokens: Tokens = new Tokens(50_000);
const constants = new Constants(20_000);

function describe(attributes: Readonly<Record<string, Attribute>>): string {
  let text = '';
  for (const name in attributes) {
    const value = attributes[name]!;
    text += `;${name}=${typeof value === 'object' && 'float' in value ? `f${value.float}` : value}`;
  }
  return text;
}
