/** What `tributary init` writes. A test loads it, so every key in it is one that the configuration knows. */

export const CONFIG_TEMPLATE = `/**
 * A federation: one model, how it is trained, and when a round is done. Every key is checked when the coordinator
 * starts; \`tributary coordinator --print-config\` shows all of them with their defaults filled in.
 */
import { defineFederation } from 'tributary';

export default defineFederation({
  name: 'my-federation',

  // A model that Tributary ships (image-cnn, image-cnn-small), the path of a saved LayersModel, or a function that
  // builds one: ({ tf, input, numClasses, seed }) => tf.sequential({ ... }).
  // A shipped model brings its recipe: input size, augmentation, optimizer, loss. What you write here wins over it.
  model: 'image-cnn',

  // The names of the class folders at every site, in the order of the model's outputs.
  classes: ['cats', 'dogs'],

  input: { height: 224, width: 224, channels: 3 },

  // Keras's ImageDataGenerator, option by option: rotationRange (degrees), widthShiftRange, heightShiftRange,
  // shearRange (degrees), zoomRange, channelShiftRange, brightnessRange, horizontalFlip, verticalFlip, fillMode ...
  augmentation: { rescale: 1 / 255, shearRange: 0.2, zoomRange: 0.2, horizontalFlip: true },

  training: {
    optimizer: { name: 'adam', learningRate: 1e-3 },
    batchSize: 32,
    epochs: 1, // passes over a site's images in each round; or steps: batches a round
    validationSplit: 0.1, // held out at sites that have no test folder
    // learningRateSchedule: { kind: 'cosine', totalRounds: 10 },
    // frozenLayers: ['conv1'],
    // classWeights: { cats: 2 },
  },

  // secureAggregation: the coordinator learns the sum of the updates, and no single one (three sites or more: raise quorum).
  // differentialPrivacy protects each image of a site by clipping and noise (DP-SGD), and ends the run before a site would
  // spend more than the budget; \`tributary privacy plan\` finds the noise. Sites then tell no metrics: measure with
  // evaluation.testDir.
  // privacy: {
  //   secureAggregation: true,
  //   differentialPrivacy: { unit: 'record', clippingNorm: 1, noiseMultiplier: 1.1 },
  //   budget: { epsilon: 8, delta: 1e-5 },
  // },
  // Of many sites, each as a whole: differentialPrivacy: { unit: 'site', noise: 'coordinator', clippingNorm: { initial: 1 },
  // noiseMultiplier: 2 }, without secureAggregation; with noise: 'site' it is added before an update leaves.

  rounds: 10,

  // quorum: sites that must be ready before a round starts. size: 'all', a fraction (0.5) or a number of sites.
  cohort: { size: 'all', quorum: 2 },
  strategy: { name: 'fed-avg' },

  // A round closes when every update is here, or at its deadline with those that are.
  deadlines: { roundSeconds: 3600 },

  // A folder <class>/* of images here at the coordinator, to measure every round on images that no site holds:
  // evaluation: { testDir: './test-images' },

  // Which checkpoint counts as the best, and when to stop before the last round.
  best: { metric: 'loss', mode: 'min' },
  // earlyStopping: { metric: 'loss', mode: 'min', patience: 5 },

  // Every draw of the training comes from this number: the same seed and data give the same model.
  seed: 1,

  server: { port: 7700 }, // publicUrl: 'https://federation.example.org:7700' when sites dial another address
  invites: { uses: 1, expiresMinutes: 1440 },
});
`;
