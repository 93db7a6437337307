/**
 * A small dense network with the gradient of one record at a time, which differential privacy needs and TensorFlow.js
 * does not give: tanh between layers, a softmax with cross-entropy at the end. Plain loops over one array of parameters.
 */

export interface Network {
  /** Layer by layer the kernel [inputs, units], row-major, then the bias [units]. */
  readonly parameters: Float64Array;
  /** -ln of the probability of `label`. */
  loss(input: ArrayLike<number>, label: number): number;
  /** Adds `factor` times the gradient of that loss to `into`. */
  addGradient(input: ArrayLike<number>, label: number, into: Float64Array, factor: number): void;
  /** Writes the gradient to `into` and returns its L2 norm. */
  gradient(input: ArrayLike<number>, label: number, into: Float64Array): number;
}

/** A network with these layer sizes, inputs first; weights uniform by Glorot and Bengio 2010, or zero without `uniform`. */
export function createNetwork(sizes: readonly number[], uniform?: () => number): Network {
  const layers = sizes.slice(1).map((units, i) => ({ inputs: sizes[i]!, units, at: 0 }));
  let length = 0;
  for (const layer of layers) {
    layer.at = length;
    length += (layer.inputs + 1) * layer.units;
  }
  const parameters = new Float64Array(length);
  for (const { inputs, units, at } of uniform === undefined ? [] : layers) {
    const limit = Math.sqrt(6 / (inputs + units));
    for (let i = 0; i < inputs * units; i++) parameters[at + i] = limit * (2 * uniform!() - 1);
  }
  const outputs = layers.map(({ units }) => new Float64Array(units));
  const errors = layers.map(({ units }) => new Float64Array(units));

  function forward(input: ArrayLike<number>): Float64Array {
    let from = input;
    for (const [l, { inputs, units, at }] of layers.entries()) {
      const to = outputs[l]!;
      for (let j = 0; j < units; j++) to[j] = parameters[at + inputs * units + j]!;
      for (let i = 0; i < inputs; i++) {
        const x = from[i]!;
        if (x === 0) continue;
        for (let j = 0, k = at + i * units; j < units; j++, k++) to[j]! += x * parameters[k]!;
      }
      if (l < layers.length - 1) for (let j = 0; j < units; j++) to[j] = Math.tanh(to[j]!);
      from = to;
    }
    const last = outputs.at(-1)!;
    const largest = Math.max(...last);
    let sum = 0;
    for (let j = 0; j < last.length; j++) sum += last[j] = Math.exp(last[j]! - largest);
    for (let j = 0; j < last.length; j++) last[j]! /= sum;
    return last;
  }

  function addGradient(input: ArrayLike<number>, label: number, into: Float64Array, factor: number): void {
    const probabilities = forward(input);
    const top = errors.at(-1)!;
    for (let j = 0; j < top.length; j++) top[j] = probabilities[j]! - (j === label ? 1 : 0);
    for (let l = layers.length - 1; l >= 0; l--) {
      const { inputs, units, at } = layers[l]!;
      const error = errors[l]!;
      const from = l === 0 ? input : outputs[l - 1]!;
      for (let j = 0; j < units; j++) into[at + inputs * units + j]! += factor * error[j]!;
      for (let i = 0; i < inputs; i++) {
        const x = from[i]!;
        let back = 0;
        for (let j = 0, k = at + i * units; j < units; j++, k++) {
          into[k]! += factor * x * error[j]!;
          back += parameters[k]! * error[j]!;
        }
        if (l > 0) errors[l - 1]![i] = back * (1 - x * x);
      }
    }
  }

  return {
    parameters,
    loss: (input, label) => -Math.log(Math.max(forward(input)[label]!, 1e-12)),
    addGradient,
    gradient(input, label, into) {
      into.fill(0);
      addGradient(input, label, into, 1);
      return Math.sqrt(into.reduce((sum, value) => sum + value * value, 0));
    },
  };
}
