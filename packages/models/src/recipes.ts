/** How each named model is trained unless the configuration says otherwise. */
import {
  type AugmentationPlan,
  augmentationSchema,
  type InputPlan,
  inputSchema,
  type TrainingPlan,
  trainingSchema,
} from '@tributary/shared-protocol';
import { isModelName, MODEL_NAMES, type ModelName } from './build-model.ts';
import { ModelError } from './errors.ts';

export interface Recipe {
  readonly model: ModelName;
  readonly input: InputPlan;
  readonly augmentation: AugmentationPlan;
  readonly training: TrainingPlan;
  /** Rounds of one pass over the data each. */
  readonly rounds: number;
}

/**
 * Returns the recipe of the named model for this many classes (it decides the loss), as new objects.
 * Throws FED_MODEL_UNKNOWN for a name that isn't in MODEL_NAMES.
 */
export function recipeFor(name: string, numClasses: number): Recipe {
  if (!isModelName(name)) {
    throw new ModelError(
      'FED_MODEL_UNKNOWN',
      `There is no recipe for a model "${name}". There is one for ${MODEL_NAMES.join(', ')}.`,
    );
  }
  return RECIPES[name](numClasses === 2 ? 'binaryCrossentropy' : 'categoricalCrossentropy');
}

const RECIPES: Readonly<Record<ModelName, (loss: string) => Recipe>> = {
  // The seed recipe: ten epochs, here one a round.
  'image-cnn': (loss) => ({
    model: 'image-cnn',
    input: inputSchema.parse({ height: 224, width: 224, channels: 3 }),
    augmentation: augmentationSchema.parse({
      rescale: 1 / 255,
      shearRange: 0.2,
      zoomRange: 0.2,
      horizontalFlip: true,
    }),
    training: trainingSchema.parse({
      optimizer: { name: 'adam', learningRate: 1e-3 },
      loss,
      metrics: ['accuracy'],
      batchSize: 32,
      epochs: 1,
    }),
    rounds: 10,
  }),
  // Digits and the like: no flips, since a mirrored digit is another sign.
  'image-cnn-small': (loss) => ({
    model: 'image-cnn-small',
    input: inputSchema.parse({ height: 28, width: 28, channels: 1 }),
    augmentation: augmentationSchema.parse({
      rescale: 1 / 255,
      rotationRange: 10,
      widthShiftRange: 0.1,
      heightShiftRange: 0.1,
      zoomRange: 0.1,
    }),
    training: trainingSchema.parse({
      optimizer: { name: 'adam', learningRate: 2e-3 },
      loss,
      metrics: ['accuracy'],
      batchSize: 32,
      epochs: 1,
    }),
    rounds: 8,
  }),
};
