/** Class probabilities of single images. */
import { type EngineName, loadEngine } from '@tributary/engine';
import { modelFromArtifact } from '@tributary/models';
import { modelImageReader } from './model-images.ts';
import type { TrainedModel } from './models.ts';

export interface ClassProbability {
  readonly name: string;
  /** In [0, 1]. */
  readonly probability: number;
}

export interface Predictor {
  /** For each file all classes, the most probable first. Rejects with FED_IMAGE_ codes for one that is no image. */
  predict(files: readonly string[]): Promise<ClassProbability[][]>;
  close(): void;
}

const BATCH_SIZE = 64;

/** A predictor for `model` on the engine named. Throws FED_CLI_MODEL_MISMATCH when it needs a site's own statistics. */
export async function openPredictor(model: TrainedModel, engine: EngineName | 'auto'): Promise<Predictor> {
  const { input, classes, topology } = model.federation;
  const load = modelImageReader(model.federation);
  const { tf } = await loadEngine({ prefer: engine });
  const network = await modelFromArtifact({ topology, weights: [...model.tensors] });
  const { height, width, channels } = input;
  const length = height * width * channels;

  async function predictBatch(files: readonly string[]): Promise<ClassProbability[][]> {
    const batch = new Float32Array(files.length * length);
    for (const [i, file] of files.entries()) batch.set(await load(file), i * length);
    const output = tf.tidy(() =>
      network.predict(tf.tensor4d(batch, [files.length, height, width, channels])),
    );
    const values = await (Array.isArray(output) ? output[0]! : output).data();
    tf.dispose(output);
    const outputs = values.length / files.length;
    return files.map((_, i) => ranked(Array.from(values.subarray(i * outputs, (i + 1) * outputs)), classes));
  }

  return {
    async predict(files) {
      const predictions: ClassProbability[][] = [];
      for (let at = 0; at < files.length; at += BATCH_SIZE) {
        predictions.push(...(await predictBatch(files.slice(at, at + BATCH_SIZE))));
      }
      return predictions;
    },
    close: () => network.dispose(),
  };
}

/** A single output stands for the second of two classes. */
function ranked(outputs: readonly number[], classes: readonly string[]): ClassProbability[] {
  const probabilities =
    outputs.length === 1 && classes.length === 2 ? [1 - outputs[0]!, outputs[0]!] : outputs;
  return probabilities
    .map((probability, i) => ({ name: classes[i] ?? String(i), probability }))
    .sort((a, b) => b.probability - a.probability);
}
