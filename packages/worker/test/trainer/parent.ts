/** A process that starts a trainer, gives it an endless job, says its id, and waits to be killed. */
import { startTrainer } from '../../src/trainer/handle.ts';

process.once(
  'message',
  (setup: Pick<Parameters<typeof startTrainer>[0], 'federation' | 'dataDir' | 'workDir'>) => {
    void startTrainer({ ...setup, siteName: 'orphan', engine: 'wasm' }).then((handle) =>
      process.send?.(handle.pid),
    );
  },
);
