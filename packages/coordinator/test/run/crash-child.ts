/**
 * A whole federation in one process, to be killed: a coordinator and three scripted sites over the memory transport. Its
 * arguments are the run directory and, as JSON, what the configuration says besides.
 */
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { startScriptedWorker } from '@tributary/testkit';
import { createCoordinator, type FederationConfig, resolveFederation } from '../../src/index.ts';
import { adds, artifact, baseConfig } from '../scripts.ts';

const transport = createMemoryTransport();
const more = JSON.parse(process.argv[3] ?? '{}') as Partial<FederationConfig>;
const config = { ...baseConfig, rounds: 3, cohort: { quorum: 3 }, ...more };
const coordinator = await createCoordinator({
  federation: resolveFederation(config, artifact),
  artifact,
  runDir: process.argv[2] ?? '',
  transport,
});
const { url } = coordinator;
for (const [i, name] of ['a', 'b', 'c'].entries()) {
  const options = {
    transport,
    url,
    name,
    credential: `credential of ${name}`,
    train: adds(0.1 * (i + 1), 3 + i),
    evaluate: () => ({ numExamples: 5, metrics: { loss: i } }),
  };
  // A known site comes back with its credential; a new one needs an invite.
  await startScriptedWorker(options).catch(() =>
    startScriptedWorker({ ...options, invite: coordinator.invite() }),
  );
}
const summary = await coordinator.run();
await coordinator.close();
console.log(JSON.stringify(summary));
