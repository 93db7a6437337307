/** The models that have a name. A new one is a builder in a file of its own, an entry here and one in recipes.ts. */
import type { tf } from '@tributary/engine';
import { ModelError } from './errors.ts';
import { IMAGE_CNN_MIN_PIXELS, imageCnn } from './image-cnn.ts';
import { IMAGE_CNN_SMALL_MIN_PIXELS, imageCnnSmall } from './image-cnn-small.ts';

export const MODEL_NAMES = ['image-cnn', 'image-cnn-small'] as const;
export type ModelName = (typeof MODEL_NAMES)[number];

export interface BuildOptions {
  /** Pixels and colour channels of one image. */
  readonly input: { readonly height: number; readonly width: number; readonly channels: number };
  /** At least 2. Two classes give one sigmoid output, more a softmax. */
  readonly numClasses: number;
  /** A 32-bit integer; the same seed gives the same weights. */
  readonly seed: number;
}

const MODELS: Readonly<
  Record<ModelName, { build(options: BuildOptions): tf.LayersModel; minPixels: number }>
> = {
  'image-cnn': { build: imageCnn, minPixels: IMAGE_CNN_MIN_PIXELS },
  'image-cnn-small': { build: imageCnnSmall, minPixels: IMAGE_CNN_SMALL_MIN_PIXELS },
};

export function isModelName(name: string): name is ModelName {
  return (MODEL_NAMES as readonly string[]).includes(name);
}

/**
 * Returns a new model with seeded initial weights on the current engine; the caller disposes it.
 *
 * Throws FED_MODEL_UNKNOWN for a name that isn't in MODEL_NAMES, FED_MODEL_INPUT for images too small for the network
 * or fewer than two classes.
 */
export function buildModel(name: string, options: BuildOptions): tf.LayersModel {
  if (!isModelName(name)) {
    throw new ModelError(
      'FED_MODEL_UNKNOWN',
      `There is no model "${name}". The models are ${MODEL_NAMES.join(', ')}; or give the path of a saved LayersModel.`,
    );
  }
  const { build, minPixels } = MODELS[name];
  const { input, numClasses } = options;
  if (Math.min(input.height, input.width) < minPixels) {
    throw new ModelError(
      'FED_MODEL_INPUT',
      `The model "${name}" takes images of ${minPixels}x${minPixels} pixels or more, not ${input.height}x${input.width}.`,
    );
  }
  if (!Number.isInteger(numClasses) || numClasses < 2) {
    throw new ModelError('FED_MODEL_INPUT', `A model tells 2 or more classes apart, not ${numClasses}.`);
  }
  return build(options);
}
