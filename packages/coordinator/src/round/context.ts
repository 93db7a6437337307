/** What every phase of a run works with. */
import type { RunEvent, SigningKey } from '@tributary/shared-protocol';
import type { ResolvedFederation, TensorShape } from '../config/resolve.ts';
import type { Roster } from '../members/roster.ts';
import type { RunDirectory } from '../run/directory.ts';
import type { LogEntry, RunState } from '../run/records.ts';

type WithoutTime<E> = E extends unknown ? Omit<E, 'at'> : never;
export type NewEvent = WithoutTime<RunEvent>;

export interface RunContext {
  readonly federation: ResolvedFederation;
  readonly directory: RunDirectory;
  /** The run's own key: it signs the log, and proves to sites whom they talk to. */
  readonly key: SigningKey;
  readonly roster: Roster;
  readonly state: RunState;
  /** Tensors that the sites send back: all but the frozen ones. */
  readonly manifest: readonly TensorShape[];
  /** Aborted when the run is to stop; its reason says why. */
  readonly signal: AbortSignal;
  readonly now: () => number;
  /** Appends to the log and takes the record into `state`. */
  record(entry: LogEntry, options?: { readonly durable?: boolean }): void;
  emit(event: NewEvent): void;
  /** Has the store, where there is one, keep the checkpoint of a round, whose model has this digest. */
  keepCheckpoint(round: number, model: string): Promise<void>;
}
