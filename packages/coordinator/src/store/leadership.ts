/** What a leader does with its store: brings its folder up to it, and has it keep what the run adds. */
import type { KV } from '@nats-io/kv';
import type { SigningKey } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { RunPaths } from '../run/directory.ts';
import type { LogRecord } from '../run/log.ts';
import { modelsIn, type StoredCheckpoints } from './checkpoints.ts';
import type { Lease } from './lease.ts';
import { createLineQueue } from './line-queue.ts';
import { patiently } from './patience.ts';
import { restoreLog } from './restore-log.ts';
import type { Seal } from './seal.ts';
import type { Leadership } from './store.ts';
import type { StoredLog } from './stored-log.ts';

export interface LeadershipOptions {
  readonly lease: Lease;
  readonly log: StoredLog;
  readonly kv: KV;
  readonly checkpoints: StoredCheckpoints;
  readonly seal: Seal;
  /** Its address, for messages. */
  readonly store: string;
}

const LOG_KEY = 'log-key';

export function createLeadership(options: LeadershipOptions): Leadership {
  const { lease, log, kv, checkpoints, seal, store } = options;
  const { signal } = lease;
  const queue = createLineQueue(
    (line) => log.append(line, signal),
    (error) => {
      if (error instanceof CoordinatorError) lease.lose(error);
      else if (!signal.aborted) throw error;
    },
  );
  /** What the store had of the run's key when this term began. */
  let keyRevision = 0;
  let paths: RunPaths | undefined;

  async function readKey(): Promise<string | undefined> {
    const entry = await patiently(() => kv.get(LOG_KEY), signal);
    keyRevision = entry?.revision ?? 0;
    if (entry === null || log.lines.length === 0) return undefined;
    const pem = seal.open(LOG_KEY, entry.value);
    if (pem !== undefined) return pem;
    throw new CoordinatorError(
      'FED_STORE_DAMAGED',
      `${store}: the run's key in the store can't be opened. It was sealed with another key for the NATS server: give this coordinator the same one (--nats-credentials) as the one that began the run`,
    );
  }

  /** Only over what was there when this term began: what a later leader has written stays. */
  async function keepKey(key: SigningKey): Promise<void> {
    const entry = await kv.get(LOG_KEY);
    if (entry && seal.open(LOG_KEY, entry.value) === key.pem) return;
    const sealed = seal.seal(LOG_KEY, key.pem);
    await (keyRevision === 0 ? kv.create(LOG_KEY, sealed) : kv.update(LOG_KEY, sealed, keyRevision));
  }

  function append(record: LogRecord): void {
    signal.throwIfAborted();
    queue.add(Buffer.from(JSON.stringify(record)));
  }

  function folder(): RunPaths {
    if (paths === undefined) throw new TypeError('restore comes first');
    return paths;
  }

  return {
    term: lease.term,
    signal,
    leads: lease.isValid,
    onDoubt: lease.onDoubt,
    async restore(into, federation) {
      paths = into;
      const pem = await readKey();
      const { records, told, common } = await restoreLog(into, federation, log.lines, pem, store);
      // Those of lines that the folder had already were looked at when they were written.
      const models = [...modelsIn(records.slice(common)), ...modelsIn(records).slice(-1)];
      for (const one of models) await checkpoints.fetch(into, one, federation, signal);
      return told;
    },
    async begin({ records, key }) {
      if (log.lines.length === 0) {
        await patiently(() => keepKey(key), signal);
      }
      for (const record of records.slice(log.lines.length)) {
        for (const one of modelsIn([record])) await checkpoints.keep(folder(), one, signal);
        append(record);
      }
      await queue.settled();
    },
    async keepCheckpoint(round, model) {
      // Not before the lines that account for it: whoever takes over must know of the noise in a model that is there.
      await queue.settled();
      await checkpoints.keep(folder(), { round, model }, signal);
    },
    append,
    settled: queue.settled,
    get busy() {
      return queue.busy;
    },
    release: lease.release,
  };
}
