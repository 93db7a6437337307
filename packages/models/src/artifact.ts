/** A model as a federation keeps it: topology as text, weights by name. No engine is needed to read or send it. */
import { tf, withSeededRandom } from '@tributary/engine';
import type { Tensor } from '@tributary/shared-protocol';
import { ModelError } from './errors.ts';
import { withStableNames } from './stable-names.ts';
import { modelFromTopology } from './topology.ts';
import { namedWeights, readWeights, weightsOfLayers, writeWeights } from './weights.ts';

export interface ModelArtifact {
  readonly name: string;
  /** Keras JSON of the LayersModel, as text. */
  readonly topology: string;
  /** float32, in the order of the layers. */
  readonly weights: Tensor[];
  /** Names of the weights in layers whose `trainable` is false. */
  readonly frozenWeights: string[];
}

/** Returns the model that a configuration's function builds. Layers should be named: weights travel by their names. */
export type ModelBuilder = (engine: typeof tf) => tf.LayersModel | Promise<tf.LayersModel>;

/**
 * Returns the artifact of `model`, which stays the caller's to dispose. Generated layer names are replaced by stable
 * ones (`dense_1`), so equal models give equal text, whatever was built in the process before.
 */
export async function modelArtifact(model: tf.LayersModel): Promise<ModelArtifact> {
  const weights = await readWeights(model);
  const frozen = frozenLayers(model);
  const stable = await modelFromTopology(JSON.stringify(withStableNames(model.toJSON(null, false))));
  try {
    // Reading fills in defaults; what is written now reads and writes to the same text for ever.
    const topology = JSON.stringify(stable.toJSON(null, false));
    // Same layers in the same order, under their stable names.
    const names = namedWeights(stable).map(({ name }) => name);
    const renamed = weights.map((weight, i) => ({ ...weight, name: names[i]! }));
    writeWeights(stable, renamed);
    const frozenNames = stable.layers.filter((_, i) => frozen[i]).map(({ name }) => name);
    return {
      name: stable.name,
      topology,
      weights: renamed,
      frozenWeights: weightsOfLayers(stable, frozenNames),
    };
  } finally {
    stable.dispose();
  }
}

/**
 * Returns the artifact of what `builder` builds, disposing the model. Weights whose initializers have no seed are
 * drawn from `seed` (a 32-bit integer), so that the same configuration starts from the same model.
 *
 * Throws FED_MODEL_BUILDER when the builder fails or returns something else than a built LayersModel.
 */
export async function artifactFromBuilder(builder: ModelBuilder, seed: number): Promise<ModelArtifact> {
  let model: tf.LayersModel;
  try {
    model = await withSeededRandom(seed, () => builder(tf));
  } catch (error) {
    throw new ModelError('FED_MODEL_BUILDER', `The model's builder failed: ${String(error)}`, {
      cause: error,
    });
  }
  if (!(model instanceof tf.LayersModel)) {
    throw new ModelError(
      'FED_MODEL_BUILDER',
      "The model's builder did not return a LayersModel of the `tf` that it was given (another copy of TensorFlow.js?).",
    );
  }
  try {
    return await modelArtifact(model);
  } finally {
    model.dispose();
  }
}

/** Returns the model of an artifact, weights set; the caller disposes it. Throws as modelFromTopology, writeWeights. */
export async function modelFromArtifact(
  artifact: Pick<ModelArtifact, 'topology' | 'weights'>,
): Promise<tf.LayersModel> {
  const model = await modelFromTopology(artifact.topology);
  try {
    writeWeights(model, artifact.weights);
  } catch (error) {
    model.dispose();
    throw error;
  }
  return model;
}

function frozenLayers(model: tf.LayersModel): boolean[] {
  return model.layers.map((layer) => layer.weights.length > 0 && layer.trainableWeights.length === 0);
}
