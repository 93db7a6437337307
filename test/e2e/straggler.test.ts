/** A real site on a slow line: the round closes without it, it hears why, and the next round has it again. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCoordinator, resolveFederation, runPaths, verifyRunLog } from '@tributary/coordinator';
import { createCertificate, decodeMessage, type RunEvent, type Transport } from '@tributary/shared-protocol';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import { type JoinOptions, joinFederation, type StartTrainer, type WorkerEvent } from '@tributary/worker';
import { expect, onTestFinished, test } from 'vitest';
import { startFakeTrainer } from '../chaos/fake-trainer.ts';
import { shapesConfig } from './federation.ts';
import { SHAPES, writeShapes } from './shapes.ts';

const artifact = {
  name: 'tiny',
  topology: '{}',
  weights: [{ name: 'w', dtype: 'float32' as const, shape: [5000], data: new Float32Array(5000) }],
  frozenWeights: [],
};

/** The same transport, on whose links chunks are served only once `free` has resolved. */
function slowLine(transport: Transport, free: Promise<void>): Transport {
  return {
    ...transport,
    async connect(url, options) {
      const link = await transport.connect(url, options);
      return {
        ...link,
        closed: link.closed,
        onRequest: (handler) =>
          link.onRequest(async (packet) => {
            if (decodeMessage(packet.head).type === 'chunk') await free;
            return await handler(packet);
          }),
      };
    },
  };
}

/** A promise and what resolves it. */
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

test('a site whose update is too slow past the target is refused as late, and the run goes on with it', {
  timeout: 60_000,
}, async () => {
  const root = await mkdtemp(join(tmpdir(), 'tributary-straggler-'));
  onTestFinished(() => rm(root, { recursive: true, force: true }));
  const data = join(root, 'data');
  await writeShapes(data, { seed: 1, train: { bar: 1, cross: 1, ring: 1 }, test: 1 });
  const runDir = join(root, 'run');
  const events: RunEvent[] = [];
  const [free, heard, offered, accepted, allReady] = [gate(), gate(), gate(), gate(), gate()];
  const config = shapesConfig({
    rounds: 2,
    classes: [...SHAPES],
    // Two of three suffice: 0.6 * 3 = 1.8, rounded up.
    cohort: { quorum: 2, target: 0.6 },
    evaluation: { sites: false },
  });
  const coordinator = await createCoordinator({
    federation: resolveFederation(config, artifact),
    artifact,
    runDir,
    transport: createSocketioTransport({
      host: '127.0.0.1',
      port: 0,
      tls: await createCertificate(['127.0.0.1']),
    }),
    // The second round waits until the straggler has been told about the first.
    evaluateCentrally: async () => {
      await heard.opened;
      return { loss: 1 };
    },
    onEvent(event) {
      events.push(event);
      if (events.filter((e) => e.type === 'ready').length === 3) allReady.open();
    },
  });
  onTestFinished(() => coordinator.close());
  const invite = coordinator.invite({ uses: 3 });
  const said: WorkerEvent[] = [];
  const site = (name: string, options: Pick<JoinOptions, 'transport' | 'startTrainer' | 'onEvent'>) =>
    joinFederation({ invite, name, dataDir: data, stateDir: join(root, name), engine: 'cpu', ...options });
  /** The quick sites finish once the slow one's update is being asked for, and in round 2 once it was taken. */
  const afterOffer: StartTrainer = async (setup, events) => {
    const trainer = await startFakeTrainer(setup, events);
    return {
      ...trainer,
      async train(job) {
        await (job.round === 1 ? offered : accepted).opened;
        return await trainer.train(job);
      },
    };
  };
  const sites = [
    site('island', {
      startTrainer: startFakeTrainer,
      transport: slowLine(createSocketioTransport(), free.opened),
      onEvent(event) {
        said.push(event);
        if (event.type === 'offered') offered.open();
        if (event.type === 'accepted') accepted.open();
        if (event.type !== 'refused') return;
        free.open();
        heard.open();
      },
    }),
    ...['harbour', 'meadow'].map((name) =>
      site(name, { transport: createSocketioTransport(), startTrainer: afterOffer }),
    ),
  ];
  await allReady.opened;

  const summary = await coordinator.run();
  const [slow, ...quick] = await Promise.all(sites);
  expect(summary).toMatchObject({ reason: 'rounds', rounds: 2 });
  expect(said.find((event) => event.type === 'refused')).toMatchObject({
    round: 1,
    code: 'FED_UPDATE_LATE',
    reason: 'round 1 closed before all of this update was here',
  });
  expect(slow).toMatchObject({ ended: 'goodbye', code: 'rounds', updatesAccepted: 1, updatesRefused: 1 });
  for (const one of quick) expect(one).toMatchObject({ ended: 'goodbye', code: 'rounds' });
  expect(events.find((event) => event.type === 'update-refused')).toMatchObject({
    round: 1,
    name: 'island',
    code: 'FED_UPDATE_LATE',
  });
  const log = verifyRunLog(runPaths(runDir).log, coordinator.logPublicKey);
  expect(log.find((record) => record.type === 'update-refused')).toMatchObject({
    round: 1,
    name: 'island',
    code: 'FED_UPDATE_LATE',
  });
  const commit = log.find((record) => record.type === 'committed');
  expect(commit).toMatchObject({ updates: [{ name: 'harbour' }, { name: 'meadow' }] });
  const second = events.findLast((event) => event.type === 'round-started');
  expect(second).toMatchObject({ round: 2, cohort: ['harbour', 'island', 'meadow'] });
});
