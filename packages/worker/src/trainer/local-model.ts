/**
 * The federation's model in a trainer: built once, given the global weights at the start of each job, read as an
 * update at the end. Knows which weights train, which stay, and what has to be undone to make a round repeatable.
 */
import { tf } from '@tributary/engine';
import { modelFromTopology, namedWeights, weightsOfLayers, writeWeights } from '@tributary/models';
import type { FederationView, Tensor } from '@tributary/shared-protocol';

export interface LocalModel {
  readonly model: tf.LayersModel;
  /** Number of outputs an example. */
  readonly units: number;
  /** The variables that gradients are taken for. */
  readonly trainable: readonly tf.Variable[];
  /** Sets all weights; throws FED_MODEL_WEIGHTS when they don't fit. */
  setWeights(global: readonly Tensor[]): void;
  /** Returns local − global for every weight that is exchanged, in the order of `global`. */
  readUpdate(global: readonly Tensor[]): Promise<Tensor[]>;
  /** The sum of the layers' own losses (regularizers), or undefined where there is none. */
  extraLoss(): tf.Scalar | undefined;
  /** Projects trained weights that have a constraint back into it, after a step; frozen ones stay as they are. */
  applyConstraints(): void;
  dispose(): void;
}

/**
 * Returns the model of the federation's topology with its frozen layers frozen.
 *
 * Throws what modelFromTopology throws, and FED_MODEL_WEIGHTS for a frozen layer that isn't there.
 */
export async function openLocalModel(federation: FederationView): Promise<LocalModel> {
  const model = await modelFromTopology(federation.topology);
  let frozen: Set<string>;
  try {
    const { frozenLayers } = federation.training;
    frozen = new Set([...federation.frozenWeights, ...weightsOfLayers(model, frozenLayers)]);
  } catch (error) {
    model.dispose();
    throw error;
  }
  const weights = namedWeights(model);
  const exchanged = new Set(weights.map(({ name }) => name));
  for (const name of federation.frozenWeights) exchanged.delete(name);

  const layers = new Set(weights.map(({ layer }) => layer));
  for (const layer of layers) {
    const own = weights.filter((weight) => weight.layer === layer);
    if (own.every(({ name }) => frozen.has(name))) freeze(layer);
  }
  for (const layer of allLayers(model)) unseed(layer);

  const trained = weights.filter(({ name, variable }) => variable.trainable && !frozen.has(name));
  const trainable = trained.map(({ variable }) => variable.read() as tf.Variable);
  const byName = new Map(weights.map(({ name, variable }) => [name, variable]));
  const constrained = trained
    .map(({ variable }) => variable as tf.LayerVariable & { readonly constraint?: Constraint | null })
    .filter(({ constraint }) => constraint != null);

  return {
    model,
    units: (model.outputs[0]!.shape as (number | null)[]).at(-1) ?? 0,
    trainable,
    setWeights: (global) => writeWeights(model, global),
    async readUpdate(global) {
      const update: Tensor[] = [];
      for (const { name, shape, data } of global) {
        if (!exchanged.has(name)) continue;
        const local = await byName.get(name)!.read().data();
        const difference = new Float32Array(local.length);
        for (let i = 0; i < difference.length; i++) difference[i] = local[i]! - (data as Float32Array)[i]!;
        update.push({ name, dtype: 'float32', shape, data: difference });
      }
      return update;
    },
    extraLoss() {
      const losses = (model as unknown as { calculateLosses(): tf.Scalar[] }).calculateLosses();
      return losses.length === 0 ? undefined : tf.addN(losses);
    },
    applyConstraints() {
      if (constrained.length === 0) return;
      tf.tidy(() => {
        for (const { constraint, read } of constrained.map((v) => ({
          constraint: v.constraint!,
          read: v.read(),
        }))) {
          (read as tf.Variable).assign(constraint.apply(read));
        }
      });
    },
    dispose: () => void model.dispose(),
  };
}

interface Constraint {
  apply(weight: tf.Tensor): tf.Tensor;
}

/** A frozen batch normalisation keeps its statistics and uses them, as in Keras: it runs as in inference. */
function freeze(layer: tf.layers.Layer): void {
  layer.trainable = false;
  if (layer.getClassName() !== 'BatchNormalization') return;
  const call = layer.call.bind(layer);
  layer.call = (inputs, kwargs) => call(inputs, { ...kwargs, training: false });
}

/** A seed in a dropout layer would draw the same mask in every step; without, it is drawn from the round's seed. */
function unseed(layer: tf.layers.Layer): void {
  if ('seed' in layer) layer.seed = undefined;
}

/** All layers, those of nested models too. */
export function allLayers(model: tf.LayersModel): tf.layers.Layer[] {
  return model.layers.flatMap((layer) => (layer instanceof tf.LayersModel ? allLayers(layer) : [layer]));
}
