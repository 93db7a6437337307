/** An image thread: takes jobs from its port until it is told to close. Started by image-pool.ts only. */
import { parentPort, workerData } from 'node:worker_threads';
import type { FromThread, PipelineSetup, ToThread } from './job.ts';
import { createLanes } from './lanes.ts';

const { setup, thread } = workerData as { setup: PipelineSetup; thread: number };
const lanes = createLanes(setup, thread);
const port = parentPort!;

port.on('message', (message: ToThread) => {
  if (message.type === 'close') return port.close();
  if (message.type === 'statistics') return lanes.useStatistics(message.statistics);
  const { id, job } = message;
  void lanes.run(job).then((failures) => port.postMessage({ id, failures } satisfies FromThread));
});
