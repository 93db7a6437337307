/** LayersModel folders: `model.json` (topology and manifest) beside its weight files, as TensorFlow.js saves them. */
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { tf } from '@tributary/engine';
import type { Tensor } from '@tributary/shared-protocol';
import { type ModelArtifact, modelArtifact } from './artifact.ts';
import { ModelError } from './errors.ts';
import { isRecord } from './json.ts';
import { modelFromTopology } from './topology.ts';
import { namedWeights, writeWeights } from './weights.ts';

const WEIGHTS_FILE = 'weights.bin';

interface SavedModel {
  readonly modelTopology: Record<string, unknown>;
  readonly weightsManifest: readonly {
    readonly paths: string[];
    readonly weights: tf.io.WeightsManifestEntry[];
  }[];
}

/**
 * Returns the model saved at `path`: a folder with a model.json, or that file. Quantised weights become float32.
 *
 * Throws FED_MODEL_FILE when files are missing, of another kind (a GraphModel can't be trained) or too short, and
 * what modelFromTopology throws.
 */
export async function loadSavedModel(path: string): Promise<ModelArtifact> {
  const file = await locateModelFile(path);
  const saved = await readModelFile(file);
  const data = await readWeightFiles(file, saved);
  const config = saved.modelTopology['model_config'] ?? saved.modelTopology;
  const model = await modelFromTopology(typeof config === 'string' ? config : JSON.stringify(config));
  try {
    const specs = saved.weightsManifest.flatMap(({ weights }) => weights);
    const tensors = tf.io.decodeWeights(data, specs);
    try {
      model.loadWeights(tensors, true);
    } finally {
      tf.dispose(tensors);
    }
    return await modelArtifact(model);
  } catch (error) {
    if (error instanceof ModelError) throw error;
    throw new ModelError(
      'FED_MODEL_FILE',
      `The weights beside ${file} don't fit its topology: ${String(error)}`,
      {
        cause: error,
      },
    );
  } finally {
    model.dispose();
  }
}

/**
 * Writes a LayersModel folder, `model.json` last and by renaming, so that a folder with a model.json is whole. `dir`
 * is made if need be. Throws FED_MODEL_WEIGHTS when the weights don't fit the topology.
 */
export async function exportLayersModel(
  topology: string,
  weights: readonly Tensor[],
  dir: string,
): Promise<void> {
  const model = await modelFromTopology(topology);
  let manifest: tf.io.WeightsManifestEntry[];
  const byName = new Map(weights.map((weight) => [weight.name, weight]));
  const buffers: Buffer[] = [];
  try {
    writeWeights(model, weights);
    manifest = namedWeights(model).map(({ name, variable }) => {
      const { data, shape } = byName.get(name)!;
      buffers.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
      // TensorFlow.js finds a weight by the name that it gave to it itself.
      return { name: variable.originalName, shape: [...shape], dtype: 'float32' };
    });
  } finally {
    model.dispose();
  }
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, WEIGHTS_FILE), Buffer.concat(buffers));
  const json = {
    format: 'layers-model',
    generatedBy: 'Tributary',
    convertedBy: null,
    modelTopology: JSON.parse(topology) as object,
    weightsManifest: [{ paths: [WEIGHTS_FILE], weights: manifest }],
  };
  const target = join(dir, 'model.json');
  await writeFile(`${target}.tmp`, JSON.stringify(json));
  await rename(`${target}.tmp`, target);
}

async function locateModelFile(path: string): Promise<string> {
  try {
    return (await stat(path)).isDirectory() ? join(path, 'model.json') : path;
  } catch (error) {
    throw new ModelError('FED_MODEL_FILE', `There is no saved model at ${path}.`, { cause: error });
  }
}

async function readModelFile(file: string): Promise<SavedModel> {
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new ModelError('FED_MODEL_FILE', `${file} can't be read as a model.json: ${String(error)}`, {
      cause: error,
    });
  }
  if (isRecord(json) && json['format'] === 'graph-model') {
    throw new ModelError(
      'FED_MODEL_FILE',
      `${file} is a GraphModel, which can be run but not trained. Save the model as a LayersModel.`,
    );
  }
  if (!isRecord(json) || !isRecord(json['modelTopology']) || !isManifest(json['weightsManifest'])) {
    throw new ModelError(
      'FED_MODEL_FILE',
      `${file} has no modelTopology and weightsManifest; save the model with model.save() or tensorflowjs_converter.`,
    );
  }
  return json as unknown as SavedModel;
}

function isManifest(value: unknown): boolean {
  if (!Array.isArray(value)) return false;
  return value.every(
    (group) =>
      isRecord(group) &&
      Array.isArray(group['weights']) &&
      Array.isArray(group['paths']) &&
      group['paths'].every((path) => typeof path === 'string'),
  );
}

async function readWeightFiles(file: string, saved: SavedModel): Promise<ArrayBuffer> {
  const folder = dirname(resolve(file));
  const parts: Buffer[] = [];
  for (const path of saved.weightsManifest.flatMap(({ paths }) => paths)) {
    const full = resolve(folder, path);
    if (relative(folder, full).startsWith('..')) {
      throw new ModelError('FED_MODEL_FILE', `${file} names weights outside its folder: ${path}`);
    }
    try {
      parts.push(await readFile(full));
    } catch (error) {
      throw new ModelError('FED_MODEL_FILE', `${file} names weights that can't be read: ${path}`, {
        cause: error,
      });
    }
  }
  const bytes = Buffer.concat(parts);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
}
