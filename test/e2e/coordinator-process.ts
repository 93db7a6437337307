/** A coordinator in a process of its own; reports the run's events, and one invite for all sites at each start. */
import { readFile } from 'node:fs/promises';
import {
  type Coordinator,
  createCoordinator,
  type FederationConfig,
  type Leadership,
  type RunStore,
  resolveFederation,
  runPaths,
} from '@tributary/coordinator';
import { createJetStreamStore } from '@tributary/coordinator/jetstream';
import { decodeFrame, errorCode } from '@tributary/shared-protocol';
import { createNatsTransport } from '@tributary/shared-protocol/nats';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import { watchedTransport } from '../chaos/harness/watched-transport.ts';
import { party } from './processes.ts';

export interface CoordinatorSetup {
  readonly config: FederationConfig;
  /** Files: the model's topology, and its initial weights as a tensor frame. */
  readonly topologyFile: string;
  readonly weightsFile: string;
  readonly runDir: string;
  /** Of its own server, which it has unless `nats` names another: `nats://127.0.0.1:4222/prefix`. */
  readonly port: number;
  readonly nats?: string;
  /** The coordinator's key for that server, of which the run is then kept in its JetStream. */
  readonly store?: { readonly nkeySeed: string; readonly ca?: string };
  readonly tls: { readonly key: string; readonly cert: string } | false;
  readonly preferredChunkBytes?: number;
  /** Whether round trips and chunks are reported too. @default false */
  readonly watched?: boolean;
}

const { setup, report } = party<CoordinatorSetup>();
const { tensors: weights } = decodeFrame(await readFile(setup.weightsFile));
const artifact = {
  name: 'tiny',
  topology: await readFile(setup.topologyFile, 'utf8'),
  weights,
  frozenWeights: [],
};
const { nats, port, tls, preferredChunkBytes } = setup;
const chunks = preferredChunkBytes === undefined ? {} : { preferredChunkBytes };
const stop = new AbortController();
process.on('SIGTERM', () => stop.abort());
let store: RunStore | undefined;
let leadership: Leadership | undefined;
let coordinator: Coordinator | undefined;
try {
  if (nats !== undefined && setup.store !== undefined) {
    const { nkeySeed, ca } = setup.store;
    store = await createJetStreamStore({ url: nats, credentials: { nkeySeed }, ...(ca ? { ca } : {}) });
    leadership = await store.lead({
      signal: stop.signal,
      follow: { paths: runPaths(setup.runDir), federation: resolveFederation(setup.config, artifact) },
      onStandby: (leader) => report({ type: 'standing-by', ...leader }),
    });
    report({ type: 'leading', term: leadership.term });
  }
  const transport =
    nats === undefined
      ? createSocketioTransport({ host: '127.0.0.1', port, tls, ...chunks })
      : createNatsTransport({ url: nats, ...chunks, ...natsOptions(leadership) });
  coordinator = await createCoordinator({
    federation: resolveFederation(setup.config, artifact),
    artifact,
    runDir: setup.runDir,
    transport: setup.watched ? watchedTransport(transport, report) : transport,
    onEvent: report,
    signal: stop.signal,
    ...(leadership ? { leadership } : {}),
  });
  coordinator.invite({ uses: 16 });
  report({ type: 'summary', ...(await coordinator.run()) });
} catch (error) {
  report({
    type: 'error',
    code: errorCode(error),
    message: error instanceof Error ? error.stack : String(error),
  });
  process.exitCode = 1;
} finally {
  await coordinator?.close();
  await store?.close();
}

function natsOptions(leading: Leadership | undefined) {
  const { nkeySeed, ca } = setup.store ?? {};
  return {
    ...(nkeySeed === undefined ? {} : { credentials: { nkeySeed } }),
    ...(ca === undefined ? {} : { ca }),
    ...(leading === undefined ? {} : { exclusive: false, mayAct: leading.leads }),
  };
}
