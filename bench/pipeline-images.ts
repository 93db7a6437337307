/** One party of the pipeline's bench: makes the seed recipe's batches as a trainer would, and throws them away. */
import { recipeFor } from '@tributary/models';
import { openShard } from '@tributary/worker';
import { party } from './party.ts';

export interface ImagesSetup {
  readonly dataDir: string;
  readonly imageThreads: number;
  readonly maxCacheBytes: number;
}

const { setup, send, on } = party<ImagesSetup>();
const { input, augmentation, training } = recipeFor('image-cnn', 2);
const shard = await openShard({
  ...setup,
  classes: ['a', 'b'],
  input,
  augmentation,
  batchSize: training.batchSize,
  maxUnreadableShare: 0,
});
send('ready');

on('pass', (seed) => {
  void (async () => {
    const began = performance.now();
    let images = 0;
    for await (const batch of shard.trainBatches({ seed: seed as number })) images += batch.labels.length;
    send('passed', { seconds: (performance.now() - began) / 1000, images });
  })();
});
