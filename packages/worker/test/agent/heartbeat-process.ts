/**
 * A process that watches the lateness of its own timers: an agent's while its trainer works, or an idle one's. It says
 * how long each step of the trainer took, as seen in the trainer's reports of progress.
 */
import { watchLateness } from '@tributary/testkit';
import type { TrainerSetup } from '../../src/agent/trainer-keeper.ts';
import { startTrainer } from '../../src/trainer/handle.ts';
import type { TrainJob } from '../../src/trainer/messages.ts';

/** As often as this a heartbeat could be due. */
const EVERY_MS = 20;

export type HeartbeatOrder =
  | { type: 'train'; setup: TrainerSetup; job: TrainJob }
  | { type: 'watch' }
  | { type: 'stop' };

export interface HeartbeatReport {
  worstMs: number;
  ticks: number;
  stepsMs: number[];
}

let idle: ReturnType<typeof watchLateness> | undefined;

process.on('disconnect', () => process.exit(0));
process.on('message', (order: HeartbeatOrder) => {
  if (order.type === 'watch') {
    idle = watchLateness(EVERY_MS);
    process.send?.({ type: 'watching' });
  } else if (order.type === 'stop')
    process.send?.({ ...idle!.stop(), stepsMs: [] } satisfies HeartbeatReport);
  else void train(order.setup, order.job);
});

async function train(setup: TrainerSetup, job: TrainJob): Promise<void> {
  const at: number[] = [];
  const trainer = await startTrainer(setup, { onProgress: () => at.push(performance.now()) });
  at.length = 0;
  at.push(performance.now());
  const watch = watchLateness(EVERY_MS);
  await trainer.train(job);
  const seen = watch.stop();
  await trainer.close();
  const stepsMs = at.slice(1).map((time, i) => time - at[i]!);
  process.send?.({ ...seen, stepsMs } satisfies HeartbeatReport);
}
