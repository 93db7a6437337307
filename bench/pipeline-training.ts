/** One party of the pipeline's bench: trains the seed network as a trainer does, and says what it waited for. */
import { loadEngine } from '@tributary/engine';
import { buildModel, modelArtifact, recipeFor } from '@tributary/models';
import { federationViewSchema } from '@tributary/shared-protocol';
import { openShard } from '@tributary/worker';
import { openLocalModel } from '../packages/worker/src/trainer/local-model.ts';
import { type Timing, trainRound } from '../packages/worker/src/trainer/train.ts';
import { party } from './party.ts';
import type { ImagesSetup } from './pipeline-images.ts';

interface TrainingSetup extends Omit<ImagesSetup, 'imageThreads'> {
  readonly imageThreads?: number;
  readonly engine: Parameters<typeof loadEngine>[0] extends { prefer?: infer P } | undefined ? P : never;
  readonly steps: number;
  readonly batch?: number;
}

const { setup, send, on } = party<TrainingSetup>();
const { dataDir, imageThreads, maxCacheBytes, steps } = setup;
const engine = await loadEngine({ prefer: setup.engine });
const { input, augmentation, training } = recipeFor('image-cnn', 2);
const classes = ['a', 'b'];
const initial = buildModel('image-cnn', { input, numClasses: 2, seed: 1 });
// WebAssembly has 2 GiB, which a step of 32 such images does not fit into.
const batchSize = setup.batch ?? (engine.name === 'wasm' || engine.name === 'cpu' ? 8 : training.batchSize);
const { topology, weights } = await modelArtifact(initial);
initial.dispose();
const federation = federationViewSchema.parse({
  name: 'bench',
  runId: 'bench',
  configDigest: '0'.repeat(64),
  seed: 1,
  rounds: 1,
  classes,
  input,
  augmentation,
  training: { ...training, batchSize, epochs: undefined, steps },
  maxUnreadableShare: 0,
  topology,
  frozenWeights: [],
});
const data = await openShard({
  dataDir,
  classes,
  input,
  augmentation,
  batchSize,
  maxUnreadableShare: 0,
  maxCacheBytes,
  imageThreads,
});
const local = await openLocalModel(federation);
send('ready', `${engine.name}: ${engine.description}; batches of ${batchSize}`);

on('round', (round) => {
  void (async () => {
    let timing: Timing | undefined;
    const onTiming = (found: Timing) => {
      timing = found;
    };
    const context = { federation, siteName: 'bench', local, data };
    const job = { round: round as number, global: weights, learningRate: 1e-3 };
    await trainRound(context, job, { onTiming });
    send('trained', { ...timing, images: steps * batchSize, steps });
  })();
});
