/**
 * Steps that are repeated without tracing. A loop whose every step builds the same graph of the same variables pays for
 * building it each time, and for a small network that is half of the step. So a step that was traced twice alike is from
 * then on a recipe: which variables and inputs feed the graph, and which variables and results it gives.
 */
import { engine, type Tensor, type TensorInfo, type Variable } from '@tensorflow/tfjs-core';
import { type HostData, sameShape, Value } from './graph.ts';
import type { Plan } from './plan.ts';
import type { Program } from './programs.ts';

/** What a step returns. */
export type Results = Readonly<Record<string, Tensor>>;

export interface RepeatedStep<I extends readonly Tensor[], R extends Results> {
  /** Does what the body does. The results are the caller's to dispose of, the inputs stay the caller's. */
  run(...inputs: I): R;
  /** How many calls ran without tracing. */
  readonly repeats: number;
  /** Lets go of the data that the body took from elsewhere. */
  dispose(): void;
}

/** What repeating needs of the backend. */
export interface RepeatHost {
  /** Runs what is pending, and returns the graph that ran, if one did. */
  flush(): { readonly graph: Plan; readonly program: Program } | undefined;
  flushes(): number;
  /** The one value of a tensor, if it has one. */
  valueOf(tensor: TensorInfo): Value | undefined;
  /** Gives a tensor a copy of its own of numbers that others have as well. */
  own(tensor: TensorInfo): void;
  /** One holder of the value less. */
  release(value: Value): void;
  /** Runs a graph that was compiled before; false when it isn't kept any more. */
  rerun(program: Program, externals: readonly Value[], outputs: readonly Value[]): boolean;
  tensorOf(value: Value, shape: readonly number[]): Tensor;
}

/** What feeds a graph: a variable, an input by its place, or what was the same each time. */
type Feed = Variable | number | Value;

interface Output {
  readonly value: Pick<Value, 'shape' | 'dtype'>;
  readonly variables: readonly Variable[];
  readonly results: readonly { readonly name: string; readonly shape: readonly number[] }[];
}

interface Recipe {
  readonly program: Program;
  readonly feeds: readonly Feed[];
  readonly feedShapes: readonly (readonly number[])[];
  readonly outputs: readonly Output[];
}

/** Of inputs of the same shapes. */
interface State {
  /** From the latest trace. */
  latest: Recipe | undefined;
  /** Once two were alike. */
  recipe: Recipe | undefined;
  /** Traces until nobody expects any more that two are alike. */
  triesLeft: number;
}

/** The first step makes an optimizer's variables, and the second is the first that reads what a graph has written. */
const TRIES = 8;

export class Repeated<I extends readonly Tensor[], R extends Results> implements RepeatedStep<I, R> {
  readonly #host: RepeatHost;
  readonly #body: (...inputs: I) => R;
  readonly #states = new Map<string, State>();
  #repeats = 0;

  constructor(host: RepeatHost, body: (...inputs: I) => R) {
    this.#host = host;
    this.#body = body;
  }

  get repeats(): number {
    return this.#repeats;
  }

  run(...inputs: I): R {
    const state = this.#stateFor(inputs);
    if (state.recipe !== undefined) {
      const results = this.#repeat(state.recipe, inputs);
      if (results !== undefined) return results;
      this.#forget(state);
    }
    return state.triesLeft > 0 ? this.#trace(state, inputs) : this.#body(...inputs);
  }

  dispose(): void {
    for (const state of this.#states.values()) this.#forget(state);
    this.#states.clear();
  }

  #forget(state: State): void {
    for (const feed of state.recipe?.feeds ?? []) if (feed instanceof Value) this.#host.release(feed);
    state.recipe = undefined;
    state.latest = undefined;
  }

  #stateFor(inputs: I): State {
    const key = inputs.map(({ shape, dtype }) => `${dtype}[${shape}]`).join();
    let state = this.#states.get(key);
    if (state === undefined) {
      state = { latest: undefined, recipe: undefined, triesLeft: TRIES };
      this.#states.set(key, state);
    }
    return state;
  }

  #trace(state: State, inputs: I): R {
    this.#host.flush();
    const known = new Known(this.#host, inputs);
    const flushes = this.#host.flushes();
    const results = this.#body(...inputs);
    const ran = this.#host.flush();
    // Something that was read on the way may have decided what came next.
    const recipe =
      ran === undefined || this.#host.flushes() !== flushes + 1 ? undefined : known.recipe(ran, results);
    state.triesLeft--;
    if (recipe !== undefined && state.latest !== undefined && alike(recipe, state.latest)) {
      state.recipe = recipe;
      for (const feed of recipe.feeds) if (feed instanceof Value) feed.holders++;
    }
    state.latest = recipe;
    return results;
  }

  /** Undefined when something is not as it was; nothing has happened then. */
  #repeat({ program, feeds, feedShapes, outputs }: Recipe, inputs: I): R | undefined {
    this.#host.flush();
    const externals: Value[] = [];
    for (const [i, feed] of feeds.entries()) {
      const tensor = typeof feed === 'number' ? inputs[feed]! : feed;
      if (!(tensor instanceof Value) && tensor.isDisposed) return undefined;
      const value = tensor instanceof Value ? tensor : this.#host.valueOf(tensor);
      if (value === undefined || !sameShape(value.shape, feedShapes[i]!)) return undefined;
      externals.push(value);
    }
    const values = outputs.map(({ value }) => new Value(value.shape, value.dtype, {}));
    if (!this.#host.rerun(program, externals, values)) return undefined;
    this.#repeats++;
    const results: Record<string, Tensor> = {};
    for (const [i, output] of outputs.entries()) {
      values[i]!.shared = output.results.length + output.variables.length > 1;
      for (const { name, shape } of output.results) results[name] = this.#host.tensorOf(values[i]!, shape);
      for (const variable of output.variables) {
        const tensor = this.#host.tensorOf(values[i]!, variable.shape);
        variable.assign(tensor);
        tensor.dispose();
      }
    }
    return results as R;
  }
}

/** What is known of the world before a step is traced. */
class Known {
  readonly #host: RepeatHost;
  readonly #variables: readonly Variable[] = Object.values(engine().registeredVariables);
  readonly #before = new Map<Variable, Value | undefined>();
  /** By value; undefined where several have it, and which of them feeds a graph can't be told. */
  readonly #sources = new Map<Value, Variable | number | undefined>();

  constructor(host: RepeatHost, inputs: readonly Tensor[]) {
    this.#host = host;
    for (const tensor of [...this.#variables, ...inputs]) host.own(tensor);
    for (const variable of this.#variables) {
      this.#before.set(variable, host.valueOf(variable));
      this.#know(host.valueOf(variable), variable);
    }
    inputs.forEach((input, i) => {
      this.#know(host.valueOf(input), i);
    });
  }

  #know(value: Value | undefined, source: Variable | number): void {
    if (value === undefined) return;
    this.#sources.set(value, this.#sources.has(value) || value.shared ? undefined : source);
  }

  /** Returns what the step that was traced since then takes and gives, unless it can't be told. */
  recipe({ graph, program }: { graph: Plan; program: Program }, returned: Results): Recipe | undefined {
    const feeds: Feed[] = [];
    for (const value of graph.externals) {
      const feed = this.#sources.has(value) ? this.#sources.get(value) : value;
      if (feed === undefined) return undefined;
      feeds.push(feed);
    }
    const variables = Object.values(engine().registeredVariables);
    const changed = new Map<Value, Variable[]>();
    for (const variable of variables) {
      const value = this.#host.valueOf(variable);
      if (value === undefined || !this.#before.has(variable)) return undefined;
      if (value !== this.#before.get(variable)) changed.set(value, [...(changed.get(value) ?? []), variable]);
    }
    if (variables.length !== this.#variables.length) return undefined;
    const results = new Map<Value, { name: string; shape: readonly number[] }[]>();
    for (const [name, tensor] of Object.entries(returned)) {
      const value = this.#host.valueOf(tensor);
      if (value === undefined) return undefined;
      results.set(value, [...(results.get(value) ?? []), { name, shape: tensor.shape }]);
    }
    const outputs = graph.outputs.map((value): Output => {
      return { value, variables: changed.get(value) ?? [], results: results.get(value) ?? [] };
    });
    // All that changed is known, and somebody known has all that was computed.
    const known = new Set(graph.outputs);
    if ([...changed.keys(), ...results.keys()].some((value) => !known.has(value))) return undefined;
    if (outputs.some((output) => output.variables.length + output.results.length === 0)) return undefined;
    return { program, feeds, feedShapes: graph.externals.map(({ shape }) => shape), outputs };
  }
}

function alike(a: Recipe, b: Recipe): boolean {
  return (
    a.program === b.program &&
    a.feeds.length === b.feeds.length &&
    a.feeds.every((feed, i) => sameFeed(feed, b.feeds[i]!)) &&
    a.outputs.every(({ variables, results }, i) => {
      const other = b.outputs[i]!;
      return (
        variables.length === other.variables.length &&
        variables.every((variable, j) => variable === other.variables[j]) &&
        results.length === other.results.length &&
        results.every(({ name, shape }, j) => {
          return name === other.results[j]!.name && sameShape(shape, other.results[j]!.shape);
        })
      );
    })
  );
}

/** Numbers that a step writes down anew each time, like the ones that a gradient begins with, are compared up to this many. */
const COMPARED_SIZE = 1 << 16;

function sameFeed(a: Feed, b: Feed): boolean {
  if (a === b) return true;
  if (!(a instanceof Value && b instanceof Value) || a.dtype !== b.dtype || a.size > COMPARED_SIZE)
    return false;
  const [numbers, others] = [a, b].map(({ source }) =>
    source !== undefined && 'host' in source ? source.host : undefined,
  );
  return numbers !== undefined && others !== undefined && sameNumbers(numbers, others);
}

function sameNumbers(a: HostData, b: HostData): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i])) return false;
  return true;
}
