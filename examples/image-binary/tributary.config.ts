/**
 * Two classes of RGB photographs with the seed recipe: 224x224, batches of 32, Adam at 1e-3, binary cross-entropy,
 * rescale, shear, zoom and horizontal flips, ten rounds of one epoch. The recipe comes with the model's name; what is
 * written here is what this data needs otherwise.
 */
import { defineFederation } from 'tributary';

export default defineFederation({
  name: 'image-binary',
  model: 'image-cnn',
  classes: ['3', '8'],

  // Any size works. The example's own images are small, so they are scaled up smoothly.
  input: { height: 224, width: 224, channels: 3, interpolation: 'bilinear' },

  // The seed recipe flips horizontally; a mirrored 3 is no 3.
  augmentation: { horizontalFlip: false },

  cohort: { size: 'all', quorum: 2 },
  evaluation: { testDir: './data/test' },
  best: { metric: 'accuracy', mode: 'max' },
});
