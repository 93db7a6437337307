/**
 * Checkpoints in the object store, and in the folder of who stands by: they are fetched while another leads, so that
 * taking over a run does not wait for a large model.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import type { ObjectStore } from '@nats-io/obj';
import { sha256 } from '@tributary/shared-protocol';
import { globalModel, readCheckpoint } from '../checkpoint.ts';
import type { ResolvedFederation, TensorShape } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import { writeFileAtomic } from '../run/atomic-file.ts';
import type { RunPaths } from '../run/directory.ts';
import type { LogRecord } from '../run/log.ts';
import { patiently } from './patience.ts';

/** A round and the digest of its model, as the log has them. */
export interface StoredModel {
  readonly round: number;
  readonly model: string;
}

export interface StoredCheckpoints {
  /** Puts the checkpoint in `paths` into the store, once. */
  keep(paths: RunPaths, one: StoredModel, signal: AbortSignal): Promise<void>;
  /**
   * Has the checkpoint in `paths`, with the model that the log names. Rejects with FED_STORE_DAMAGED when the store has
   * none that fits.
   */
  fetch(
    paths: RunPaths,
    one: StoredModel,
    federation: ResolvedFederation,
    signal: AbortSignal,
  ): Promise<void>;
}

/** The models that these records name. */
export function modelsIn(records: readonly LogRecord[]): StoredModel[] {
  return records.flatMap((record) => {
    if (record.type === 'run-started') return [{ round: 0, model: record.initial }];
    return record.type === 'committed' ? [{ round: record.round, model: record.model }] : [];
  });
}

/** `store` is its address, for messages. */
export function createStoredCheckpoints(objects: ObjectStore, store: string): StoredCheckpoints {
  /** Files that were looked at: reading a large model once is enough. */
  const sound = new Set<string>();
  return {
    async keep(paths, one, signal) {
      const name = objectName(one);
      const bytes = readFileSync(paths.checkpoint(one.round));
      await patiently(async () => {
        if ((await objects.info(name)) === null) await objects.putBlob({ name }, bytes);
      }, signal);
    },
    async fetch(paths, one, { tensors }, signal) {
      const path = paths.checkpoint(one.round);
      const seen = `${path} ${one.model}`;
      if (existsSync(path) && (sound.has(seen) || holds(path, tensors, one.model))) {
        sound.add(seen);
        return;
      }
      const bytes = await patiently(() => objects.getBlob(objectName(one)), signal);
      mkdirSync(paths.checkpoints, { recursive: true });
      if (bytes !== null) await writeFileAtomic(path, [bytes]);
      if (bytes === null || !holds(path, tensors, one.model)) {
        rmSync(path, { force: true });
        throw new CoordinatorError(
          'FED_STORE_DAMAGED',
          `${store}: the store has no checkpoint of round ${one.round} that fits the log; restore ${path} from a copy on another machine`,
        );
      }
      sound.add(seen);
    },
  };
}

/** The digest is in the name: what a former leader still writes is another object. */
function objectName({ round, model }: StoredModel): string {
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
