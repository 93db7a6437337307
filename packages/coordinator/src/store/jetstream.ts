/**
 * A run's store in the JetStream of the NATS server that its coordinator listens at: who leads and the run's key in a
 * key-value bucket, the log in a stream, checkpoints in an object store.
 */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import {
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
} from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { Objm } from '@nats-io/obj';
import { serverAddresses } from '@tributary/shared-protocol';
import { connectNatsServer, type NatsCredentials, natsPrefix, seedOf } from '@tributary/shared-protocol/nats';
import { CoordinatorError } from '../errors.ts';
import { createStoredCheckpoints } from './checkpoints.ts';
import { followRun } from './follow.ts';
import { createLeadership } from './leadership.ts';
import { takeLease } from './lease.ts';
import { storeNames } from './names.ts';
import { createSeal } from './seal.ts';
import type { RunStore } from './store.ts';
import { takeStoredLog } from './stored-log.ts';

export interface JetStreamStoreOptions {
  /** The address that the coordinator listens at: `tls://host:4222/prefix`. */
  readonly url: string;
  /** The coordinator's; the run's key is sealed with a key that follows from it. */
  readonly credentials: NatsCredentials;
  /** PEM of the authority of the server's certificate. */
  readonly ca?: string;
  /** A stand-by takes over so long after the leader's last sign of life. @default 5000 millis */
  readonly leaseMs?: number;
  /** Copies that a cluster keeps. @default those that are kept already; else 3 where the address names as many servers, else 1 */
  readonly replicas?: number;
}

const LEASE_MS = 5000;
/** Less than a lease: an answer that takes longer is asked for again. */
const TIMEOUT_MS = 2000;

/**
 * Opens the store of the federation whose prefix ends `url`, and makes what is not there yet.
 *
 * Rejects with FED_STORE_UNAVAILABLE (no JetStream there), FED_STORE_FORBIDDEN, and what dialling a NATS server rejects
 * with, as FED_TRANSPORT_UNREACHABLE or FED_TRANSPORT_UNSUPPORTED.
 */
export async function createJetStreamStore(options: JetStreamStoreOptions): Promise<RunStore> {
  const { url, credentials, ca, leaseMs = LEASE_MS } = options;
  const prefix = natsPrefix(url);
  const names = storeNames(prefix);
  const seal = createSeal(seedOf(credentials), prefix);
  const connection = await connectNatsServer({ url, credentials, ca });
  try {
    const jsm = await jetstreamManager(connection, { timeout: TIMEOUT_MS });
    const js = jetstream(connection, { timeout: TIMEOUT_MS });
    const replicas = options.replicas ?? (await copiesOf(jsm, names, url));
    const kv = await new Kvm(js).create(names.bucket, { history: 1, replicas });
    const checkpoints = createStoredCheckpoints(await new Objm(js).create(names.files, { replicas }), url);
    await keepStream(jsm, names, replicas);
    const where = `${hostname()}, process ${process.pid}`;
    return {
      async lead(asked = {}) {
        const holder = randomBytes(12).toString('hex');
        const following = new AbortController();
        const followed =
          asked.follow && followRun({ js, jsm, names, checkpoints }, asked.follow, following.signal);
        const lease = await takeLease({ kv, where, holder, leaseMs }, asked).finally(() => following.abort());
        await followed;
        try {
          const log = await takeStoredLog(js, jsm, names);
          return createLeadership({ lease, log, kv, checkpoints, seal, store: url });
        } catch (error) {
          await lease.release();
          throw error;
        }
      },
      close: () => connection.close(),
    };
  } catch (error) {
    await connection.close();
    throw inOurWords(url, error);
  }
}

/** How many copies there are, or are to be. */
async function copiesOf(
  jsm: JetStreamManager,
  { stream }: ReturnType<typeof storeNames>,
  url: string,
): Promise<number> {
  try {
    return (await jsm.streams.info(stream)).config.num_replicas;
  } catch (error) {
    if (!(error instanceof JetStreamApiError) || error.code !== JetStreamApiCodes.StreamNotFound) throw error;
    return serverAddresses(url).length >= 3 ? 3 : 1;
  }
}

/** The log's stream: nothing in it is ever removed, and a line counts as written once it is on the server's disk. */
async function keepStream(
  jsm: JetStreamManager,
  { stream, subject }: ReturnType<typeof storeNames>,
  replicas: number,
): Promise<void> {
  await jsm.streams.add({
    name: stream,
    subjects: [subject],
    storage: 'file',
    retention: 'limits',
    discard: 'new',
    deny_delete: true,
    num_replicas: replicas,
  });
}

function inOurWords(url: string, error: unknown): unknown {
  if ((error as Error).name === 'JetStreamNotEnabled') {
    return new CoordinatorError(
      'FED_STORE_UNAVAILABLE',
      `${url}: this NATS server has no JetStream, which keeps the run; turn it on in its configuration (jetstream { store_dir: "./jetstream" }), as \`tributary nats-config\` writes it, and restart the server`,
      { cause: error },
    );
  }
  const text = `${(error as Error).message} ${((error as Error).cause as Error | undefined)?.message ?? ''}`;
  if (/permission/i.test(text)) {
    return new CoordinatorError(
      'FED_STORE_FORBIDDEN',
      `${url}: the NATS server keeps this coordinator from JetStream (${text.trim()}); its configuration must permit the subjects that \`tributary nats-config\` writes for the coordinator`,
      { cause: error },
    );
  }
  if (error instanceof JetStreamApiError || /timeout|no responders/i.test(text)) {
    return new CoordinatorError(
      'FED_STORE_UNAVAILABLE',
      `${url}: JetStream does not keep the run (${text.trim()}); look at the server's log: its disk may be full, or too few servers of the cluster are there`,
      { cause: error },
    );
  }
  return error;
}
