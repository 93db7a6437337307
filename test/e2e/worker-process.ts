/** A site's agent in a process of its own; reports its events, and its summary at the end. */
import { decodeInvite, errorCode } from '@tributary/shared-protocol';
import { createNatsTransport } from '@tributary/shared-protocol/nats';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import { joinFederation, startTrainer } from '@tributary/worker';
import { slowFakeTrainer } from '../chaos/fake-trainer.ts';
import { watchedTransport } from '../chaos/harness/watched-transport.ts';
import { party } from './processes.ts';

export interface WorkerSetup {
  readonly invite: string;
  readonly name: string;
  readonly dataDir: string;
  readonly stateDir: string;
  /** `real` starts the trainer process; `fake` computes an exact stand-in for an update right here. */
  readonly trainer: 'real' | 'fake';
  /** How long the stand-in takes over an update. @default 0 millis */
  readonly trainMs?: number;
  readonly giveUpAfterMs: number;
  readonly preferredChunkBytes?: number;
  /** Whether round trips and chunks are reported too. @default false */
  readonly watched?: boolean;
}

const { setup, report } = party<WorkerSetup>();
const { invite, name, dataDir, stateDir, giveUpAfterMs, preferredChunkBytes } = setup;
const chunks = preferredChunkBytes === undefined ? {} : { preferredChunkBytes };
const transport = /^(nats|tls):/.test(decodeInvite(invite).url)
  ? createNatsTransport(chunks)
  : createSocketioTransport(chunks);
const leave = new AbortController();
process.on('SIGTERM', () => leave.abort());
try {
  const summary = await joinFederation({
    invite,
    name,
    dataDir,
    stateDir,
    giveUpAfterMs,
    engine: 'cpu',
    transport: setup.watched ? watchedTransport(transport, report) : transport,
    async startTrainer(trainerSetup, events) {
      if (setup.trainer === 'fake') return slowFakeTrainer(setup.trainMs ?? 0)(trainerSetup, events);
      const trainer = await startTrainer(trainerSetup, events);
      report({ type: 'trainer', pid: trainer.pid });
      return trainer;
    },
    onEvent: report,
    signal: leave.signal,
    backoff: { baseMs: 100, capMs: 1000 },
  });
  report({ type: 'summary', ...summary });
} catch (error) {
  report({
    type: 'error',
    code: errorCode(error),
    message: error instanceof Error ? error.stack : String(error),
  });
  process.exitCode = 1;
}
