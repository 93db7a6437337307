/** Handwritten digits over three sites: ten classes, small grey images, the small network. */
import { defineFederation } from 'tributary';

export default defineFederation({
  name: 'digits',
  model: 'image-cnn-small',
  input: { height: 28, width: 28, channels: 1 },
  classes: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'],

  // No flips: a mirrored digit is another sign.
  augmentation: {
    rescale: 1 / 255,
    rotationRange: 8,
    widthShiftRange: 0.06,
    heightShiftRange: 0.06,
    zoomRange: 0.08,
  },

  training: {
    optimizer: { name: 'adam', learningRate: 2e-3 },
    batchSize: 32,
    epochs: 1,
    learningRateSchedule: { kind: 'cosine', totalRounds: 12, minFactor: 0.1 },
  },
  rounds: 12,
  cohort: { size: 'all', quorum: 3 },

  // Measured on digits that no site holds; the best round by their accuracy is the one that `export` takes.
  evaluation: { testDir: './data/test' },
  best: { metric: 'accuracy', mode: 'max' },
});
