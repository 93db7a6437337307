/**
 * A model's weights by name, in the order of its layers. Names are `layer/weight` (`outer/layer/weight` in a nested
 * model) and depend on the topology alone, so that two processes mean the same thing by a name. The order doesn't
 * change when layers are frozen, unlike that of `model.weights`.
 */
import { tf } from '@tributary/engine';
import type { Tensor } from '@tributary/shared-protocol';
import { ModelError } from './errors.ts';

export interface NamedWeight {
  readonly name: string;
  readonly variable: tf.LayerVariable;
  /** The layer that has it: the innermost, where models are nested. */
  readonly layer: tf.layers.Layer;
  /** The name of the outermost layer that it is in: the one that `frozenLayers` names. */
  readonly layerName: string;
}

/** Returns every weight of `model`, moving statistics included. */
export function namedWeights(model: tf.LayersModel): NamedWeight[] {
  const taken = new Set<string>();
  const weights: NamedWeight[] = [];
  const collect = (layers: readonly tf.layers.Layer[], path: string, outermost: string | undefined): void => {
    for (const layer of layers) {
      const layerName = outermost ?? layer.name;
      if (layer instanceof tf.LayersModel) {
        collect(layer.layers, `${path}${layer.name}/`, layerName);
        continue;
      }
      for (const variable of layer.weights) {
        const name = uniqueName(`${path}${layer.name}/${localName(variable, layer)}`, taken);
        weights.push({ name, variable, layer, layerName });
      }
    }
  };
  collect(model.layers, '', undefined);
  return weights;
}

/** Returns copies of all weights as float32 tensors, in the order of namedWeights. */
export async function readWeights(model: tf.LayersModel): Promise<Tensor[]> {
  return await Promise.all(
    namedWeights(model).map(async ({ name, variable }) => ({
      name,
      dtype: 'float32' as const,
      shape: variable.shape as number[],
      data: Float32Array.from(await variable.read().data()),
    })),
  );
}

/**
 * Sets the model's weights from `tensors` (float32, by name, in any order), copying them bit by bit: a layer's
 * constraint, which an average of weights that satisfy it need not satisfy, is for training steps.
 *
 * Every weight that isn't in `optional` has to be there and of the model's shape, and no tensor may be left over; else
 * FED_MODEL_WEIGHTS names the first that is wrong, and nothing has been changed.
 */
export function writeWeights(
  model: tf.LayersModel,
  tensors: readonly Tensor[],
  optional: readonly string[] = [],
): void {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const weights = namedWeights(model);
  for (const { name, variable } of weights) {
    const tensor = byName.get(name);
    if (tensor === undefined) {
      if (optional.includes(name)) continue;
      throw new ModelError('FED_MODEL_WEIGHTS', `The weight "${name}" [${variable.shape}] is missing.`);
    }
    if (tensor.dtype !== 'float32' || !sameShape(tensor.shape, variable.shape)) {
      throw new ModelError(
        'FED_MODEL_WEIGHTS',
        `The weight "${name}" is ${tensor.dtype} [${tensor.shape}]; the model needs float32 [${variable.shape}].`,
      );
    }
  }
  const known = new Set(weights.map(({ name }) => name));
  const stranger = tensors.find(({ name }) => !known.has(name));
  if (stranger !== undefined) {
    throw new ModelError(
      'FED_MODEL_WEIGHTS',
      `The model has no weight "${stranger.name}" [${stranger.shape}].`,
    );
  }
  tf.tidy(() => {
    for (const { name, variable } of weights) {
      const tensor = byName.get(name);
      if (tensor === undefined) continue;
      // The engine may keep what it is given, and frames are views: a copy.
      const value = tf.tensor((tensor.data as Float32Array).slice(), [...tensor.shape]);
      // Not by the layer variable's own `write`, which would project the value into the layer's constraint.
      (variable.read() as tf.Variable).assign(value);
    }
  });
}

/** Returns the names of the weights of these layers; throws FED_MODEL_WEIGHTS for a layer that isn't in the model. */
export function weightsOfLayers(model: tf.LayersModel, layerNames: readonly string[]): string[] {
  const layers = model.layers.map(({ name }) => name);
  const stranger = layerNames.find((name) => !layers.includes(name));
  if (stranger !== undefined) {
    throw new ModelError(
      'FED_MODEL_WEIGHTS',
      `The model has no layer "${stranger}". It has ${layers.join(', ')}.`,
    );
  }
  return namedWeights(model)
    .filter(({ layerName }) => layerNames.includes(layerName))
    .map(({ name }) => name);
}

/** The variable's own name: its scope is the layer's, which is in the name already. */
function localName(variable: tf.LayerVariable, layer: tf.layers.Layer): string {
  const prefix = `${layer.name}/`;
  const { originalName } = variable;
  return originalName.startsWith(prefix) ? originalName.slice(prefix.length) : originalName;
}

function uniqueName(name: string, taken: Set<string>): string {
  let unique = name;
  for (let n = 1; taken.has(unique); n++) unique = `${name}_${n}`;
  taken.add(unique);
  return unique;
}

function sameShape(a: readonly number[], b: readonly (number | null)[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}
