/** Image files as a model of a federation takes them: standardised as its own training data was, but never augmented. */
import type { ResolvedFederation } from '@tributary/coordinator';
import { ImageDataGenerator, loadImage } from '@tributary/worker';
import { CliError } from './errors.ts';

/**
 * A reader of image files, each as height * width * channels numbers; it rejects with FED_IMAGE_ codes for a file that is
 * no image. Throws FED_CLI_MODEL_MISMATCH when the model needs a site's own statistics.
 */
export function modelImageReader({
  input,
  augmentation,
}: ResolvedFederation): (file: string) => Promise<Float32Array> {
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
  const { rescale, samplewiseCenter, samplewiseStdNormalization, variant } = augmentation;
  const generator = new ImageDataGenerator({
    rescale,
    samplewiseCenter,
    samplewiseStdNormalization,
    variant,
  });
  const { height, width, channels, interpolation, keepAspectRatio } = input;
  const colorMode = ({ 1: 'grayscale', 3: 'rgb', 4: 'rgba' } as const)[channels];
  return async (file) => {
    const targetSize = [height, width] as const;
    const image = await loadImage(file, { colorMode, targetSize, interpolation, keepAspectRatio });
    const data = Float32Array.from(image.data);
    generator.standardize({ data, shape: [height, width, channels] });
    return data;
  };
}
