/** Class probabilities of single images, standardised as the model's own training data was, but never augmented. */
import { type EngineName, loadEngine } from '@tributary/engine';
import { modelFromArtifact } from '@tributary/models';
import { ImageDataGenerator, loadImage } from '@tributary/worker';
import { CliError } from './errors.ts';
import type { TrainedModel } from './models.ts';

export interface ClassProbability {
  readonly name: string;
  /** In [0, 1]. */
  readonly probability: number;
}

export interface Predictor {
  /** All classes, the most probable first. Rejects with FED_IMAGE_ codes for a file that is no image. */
  predict(file: string): Promise<ClassProbability[]>;
  close(): void;
}

/** A predictor for `model` on the engine named. Throws FED_CLI_MODEL_MISMATCH when it needs a site's own statistics. */
export async function openPredictor(model: TrainedModel, engine: EngineName | 'auto'): Promise<Predictor> {
  const { input, classes, augmentation, topology } = model.federation;
  if (
    augmentation.featurewiseCenter ||
    augmentation.featurewiseStdNormalization ||
    augmentation.zcaWhitening
  ) {
    throw new CliError(
      'FED_CLI_MODEL_MISMATCH',
      'This model was trained on images centred or whitened by each site’s own statistics, which it does not hold.',
      {
        todo: 'Measure it with `tributary evaluate --data`, where they are taken from the images.',
      },
    );
  }
  const { tf } = await loadEngine({ prefer: engine });
  const network = await modelFromArtifact({ topology, weights: [...model.tensors] });
  const { rescale, samplewiseCenter, samplewiseStdNormalization, variant } = augmentation;
  const generator = new ImageDataGenerator({
    rescale,
    samplewiseCenter,
    samplewiseStdNormalization,
    variant,
  });
  const { height, width, channels } = input;
  const colorMode = ({ 1: 'grayscale', 3: 'rgb', 4: 'rgba' } as const)[channels];
  return {
    async predict(file) {
      const { interpolation, keepAspectRatio } = input;
      const image = await loadImage(file, {
        colorMode,
        targetSize: [height, width],
        interpolation,
        keepAspectRatio,
      });
      const data = Float32Array.from(image.data);
      generator.standardize({ data, shape: [height, width, channels] });
      const output = tf.tidy(() => network.predict(tf.tensor4d(data, [1, height, width, channels])));
      const values = Array.from(await (Array.isArray(output) ? output[0]! : output).data());
      tf.dispose(output);
      const probabilities =
        values.length === 1 && classes.length === 2 ? [1 - values[0]!, values[0]!] : values;
      return probabilities
        .map((probability, i) => ({ name: classes[i] ?? String(i), probability }))
        .sort((a, b) => b.probability - a.probability);
    },
    close: () => network.dispose(),
  };
}
