/** The coordinator of a benchmark: a model of n parameters, no evaluation, rounds as fast as its workers answer. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  createCoordinator,
  defineFederation,
  type ModelArtifact,
  resolveFederation,
} from '@tributary/coordinator';
import { decodeInvite } from '@tributary/shared-protocol';
import { parameters } from './model.ts';
import { party, peakMemoryMiB } from './party.ts';
import { createTransport } from './transport.ts';

const { setup, send, on } = party<{ params: number; workers: number; rounds: number; tls: boolean }>();

let artifact: ModelArtifact | undefined = {
  name: `${setup.params} parameters`,
  topology: '{}',
  weights: parameters(setup.params, 0.1),
  frozenWeights: [],
};
const federation = resolveFederation(
  defineFederation({
    name: 'bench',
    model: 'none',
    classes: ['a', 'b'],
    rounds: setup.rounds,
    cohort: { size: 'all', quorum: setup.workers },
    evaluation: { sites: false },
  }),
  artifact,
);
const runDir = await mkdtemp(join(tmpdir(), 'tributary-bench-'));
on('cleanup', () => void rm(runDir, { recursive: true, force: true }).then(() => send('cleaned')));

const coordinator = await createCoordinator({
  federation,
  artifact,
  runDir,
  transport: await createTransport(setup.tls),
  onEvent(event) {
    if (event.type === 'committed') send('round', event.seconds);
  },
});
artifact = undefined;
send('invite', decodeInvite(coordinator.invite({ uses: setup.workers, expiresMs: 3_600_000 })));
await coordinator.run();
send('peak', peakMemoryMiB());
await coordinator.close();
