/** What a leader does with its store: brings its folder up to it, and has it keep what the run adds. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import type { KV } from '@nats-io/kv';
import type { ObjectStore } from '@nats-io/obj';
import { type SigningKey, sha256 } from '@tributary/shared-protocol';
import { globalModel, readCheckpoint } from '../checkpoint.ts';
import type { TensorShape } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import { writeFileAtomic } from '../run/atomic-file.ts';
import type { RunPaths } from '../run/directory.ts';
import type { LogRecord } from '../run/log.ts';
import { replay } from '../run/records.ts';
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
  readonly objects: ObjectStore;
  readonly seal: Seal;
  /** Its address, for messages. */
  readonly store: string;
}

const LOG_KEY = 'log-key';

export function createLeadership(options: LeadershipOptions): Leadership {
  const { lease, log, kv, objects, seal, store } = options;
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

  async function fetchCheckpoint(
    path: string,
    { round, model }: { readonly round: number; readonly model: string },
    shapes: readonly TensorShape[],
  ): Promise<void> {
    if (existsSync(path) && holds(path, shapes, model)) return;
    const bytes = await patiently(() => objects.getBlob(objectName(round, model)), signal);
    if (bytes !== null) await writeFileAtomic(path, [bytes]);
    if (bytes === null || !holds(path, shapes, model)) {
      rmSync(path, { force: true });
      throw new CoordinatorError(
        'FED_STORE_DAMAGED',
        `${store}: the store has no checkpoint of round ${round} that fits the log; restore ${path} from a copy on another machine`,
      );
    }
  }

  async function keep(round: number, model: string): Promise<void> {
    const name = objectName(round, model);
    const bytes = readFileSync(folder().checkpoint(round));
    await patiently(async () => {
      if ((await objects.info(name)) === null) await objects.putBlob({ name }, bytes);
    }, signal);
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
    async restore(into, federation) {
      paths = into;
      const pem = await readKey();
      const told = await restoreLog(into, federation, log.lines, pem, store);
      if (log.lines.length === 0) return told;
      const state = replay(log.lines.map((line) => JSON.parse(Buffer.from(line).toString('utf8'))));
      if (state.runId === '') return told;
      const models = [{ round: 0, model: state.initial }, ...state.commits];
      for (const one of models) await fetchCheckpoint(into.checkpoint(one.round), one, federation.tensors);
      return told;
    },
    async begin({ records, key }) {
      if (log.lines.length === 0) {
        await patiently(() => keepKey(key), signal);
      }
      for (const record of records.slice(log.lines.length)) {
        if (record.type === 'run-started') await keep(0, record.initial);
        else if (record.type === 'committed') await keep(record.round, record.model);
        append(record);
      }
      await queue.settled();
    },
    keepCheckpoint: keep,
    append,
    settled: queue.settled,
    get busy() {
      return queue.busy;
    },
    release: lease.release,
  };
}

/** The digest is in the name: what a former leader still writes is another object. */
function objectName(round: number, model: string): string {
  return `round-${String(round).padStart(4, '0')}-${model.slice(0, 32)}`;
}

function holds(path: string, shapes: readonly TensorShape[], model: string): boolean {
  try {
    return sha256(globalModel(readCheckpoint(path, shapes).tensors).frame) === model;
  } catch {
    // Not a checkpoint of this model at all.
    return false;
  }
}
