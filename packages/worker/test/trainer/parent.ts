/** A process that starts a trainer, says its id (or why it could not be started), and waits to be killed. */
import { errorCode } from '@tributary/shared-protocol';
import { startTrainer } from '../../src/trainer/handle.ts';

process.once(
  'message',
  (setup: Pick<Parameters<typeof startTrainer>[0], 'federation' | 'dataDir' | 'workDir'>) => {
    void startTrainer({ ...setup, siteName: 'orphan', engine: 'wasm' }).then(
      (handle) => process.send?.(handle.pid),
      (error: unknown) => process.send?.({ code: errorCode(error), message: (error as Error).message }),
    );
  },
);
