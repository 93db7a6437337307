/**
 * Where a run's durable things live so that another machine can go on with it. The run directory stays what a
 * coordinator works with; a store holds a copy of each line of the log and of each checkpoint, and lets one coordinator
 * at a time add to them. What a line says leaves this process, for a site or for a screen, only once the store has it.
 */
import type { SigningKey } from '@tributary/shared-protocol';
import type { ResolvedFederation } from '../config/resolve.ts';
import type { RunPaths } from '../run/directory.ts';
import type { LogRecord } from '../run/log.ts';

export interface RunStore {
  /**
   * Resolves once this coordinator leads, and no other can write any more; until then it stands by.
   *
   * Rejects with the signal's reason, FED_STORE_UNAVAILABLE, FED_STORE_FORBIDDEN, or FED_STORE_ENDED when the leader
   * that was waited for has ended the run for good.
   */
  lead(options?: LeadOptions): Promise<Leadership>;
  /** Harmless when called twice. */
  close(): Promise<void>;
}

export interface LeadOptions {
  readonly signal?: AbortSignal;
  /** A folder that is kept up to date while another leads. @default none */
  readonly follow?: { readonly paths: RunPaths; readonly federation: ResolvedFederation };
  /** Called when another leads, and when that other changes; must not throw. */
  readonly onStandby?: (leader: Leader) => void;
}

export interface Leader {
  /** Grows with each change of the leader. */
  readonly term: number;
  /** The machine and the process, for people. */
  readonly where: string;
}

/** One coordinator's time as the leader. */
export interface Leadership {
  readonly term: number;
  /** Aborted with FED_STORE_LEASE_LOST once another leads, or with why the store can't be written any more. */
  readonly signal: AbortSignal;
  /** Whether nobody else can lead at this moment. While it is false, this coordinator keeps silent. */
  leads(): boolean;
  /** Called when it falls silent because the store does not answer, and when that is over; must not throw. */
  onDoubt(listener: (inDoubt: boolean) => void): void;
  /**
   * Brings the run directory to what the store has, before the log in it is opened. Resolves with what a person should
   * know. Rejects with FED_STORE_OTHER_RUN, FED_STORE_DAMAGED, FED_RUN_CONFIG_CHANGED or FED_RUN_STORAGE.
   */
  restore(paths: RunPaths, federation: ResolvedFederation): Promise<string[]>;
  /** Takes in the log that was opened: its key, and those of its lines that the store lacks. */
  begin(log: { readonly records: readonly LogRecord[]; readonly key: SigningKey }): Promise<void>;
  /** Resolves once the store has that round's checkpoint; `model` is the digest that the log will name. */
  keepCheckpoint(round: number, model: string): Promise<void>;
  /** Has the store take a line, after all before it. Throws the signal's reason once that is aborted. */
  append(record: LogRecord): void;
  /** Resolves once the store has every line that was appended so far; rejects with the signal's reason. */
  settled(): Promise<void>;
  /** Whether there is anything that `settled` would wait for. */
  readonly busy: boolean;
  /** Lets another lead at once. `ended` tells those that stand by not to: the run was stopped on purpose. */
  release(ended?: string): Promise<void>;
}
