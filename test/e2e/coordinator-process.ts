/** A coordinator in a process of its own; reports the run's events, and one invite for all sites at each start. */
import { readFile } from 'node:fs/promises';
import {
  type Coordinator,
  createCoordinator,
  type FederationConfig,
  resolveFederation,
} from '@tributary/coordinator';
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
const transport =
  nats === undefined
    ? createSocketioTransport({ host: '127.0.0.1', port, tls, ...chunks })
    : createNatsTransport({ url: nats, ...chunks });
const stop = new AbortController();
process.on('SIGTERM', () => stop.abort());
let coordinator: Coordinator | undefined;
try {
  coordinator = await createCoordinator({
    federation: resolveFederation(setup.config, artifact),
    artifact,
    runDir: setup.runDir,
    transport: setup.watched ? watchedTransport(transport, report) : transport,
    onEvent: report,
    signal: stop.signal,
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
}
