/** Keeps one trainer process: started when needed, started afresh after a crash, the same one otherwise. */
import type { EngineName } from '@tributary/engine';
import { errorCode, type FederationView, type SiteReport } from '@tributary/shared-protocol';
import type { ToldOfRound } from '../site-level.ts';
import type { EmitWorkerEvent } from './events.ts';
import type { WorkResult } from './spool.ts';

/** What a trainer has found in the images; the agent decides what of it others hear. */
export type TrainerReport = SiteReport & { readonly trainExamples: number };

/** The trainer process, as the agent needs it; `startTrainer` of the trainer module makes real ones. */
export interface Trainer {
  readonly site: TrainerReport;
  /** Why this engine: for the preflight's engine step. */
  readonly engineReason: string;
  train(
    job: {
      readonly round: number;
      readonly globalFile: string;
      readonly outFile: string;
      readonly learningRate: number;
      readonly told?: ToldOfRound | undefined;
    },
    options?: { signal?: AbortSignal },
  ): Promise<WorkResult>;
  evaluate(
    job: { readonly round: number; readonly globalFile: string },
    options?: { signal?: AbortSignal },
  ): Promise<WorkResult>;
  readonly exited: Promise<unknown>;
  close(): Promise<void>;
}

export interface TrainerSetup {
  readonly federation: FederationView;
  readonly dataDir: string;
  readonly workDir: string;
  readonly siteName: string;
  readonly engine: EngineName | 'auto';
  /** With `auto`, the engines to choose from. @default all */
  readonly engines?: readonly EngineName[];
  readonly threads?: number;
  /** Threads that make images. @default see ShardOptions */
  readonly imageThreads?: number;
  /** Decoded images kept in memory, in bytes. @default see ShardOptions */
  readonly maxCacheBytes?: number;
  /** The process is stopped when its resident memory is larger, in bytes. @default no bound */
  readonly maxMemoryBytes?: number;
  /** All images are for evaluation: the trainer of a central test set. @default false */
  readonly testOnly?: boolean;
}

export type StartTrainer = (
  setup: TrainerSetup,
  events: { onProgress(progress: number): void; onLog(message: string): void },
) => Promise<Trainer>;

export interface TrainerKeeper {
  /** Returns the running trainer, starting one if there is none. Rejects as `startTrainer` does. */
  get(): Promise<Trainer>;
  close(): Promise<void>;
}

/** Returns a keeper that has not started anything yet. `onProgress` hears the job that runs now, in [0, 1]. */
export function createTrainerKeeper(
  start: StartTrainer,
  setup: TrainerSetup,
  events: { onProgress(progress: number): void; onLog(message: string): void },
): TrainerKeeper {
  let running: Promise<Trainer> | undefined;
  return {
    get() {
      if (running !== undefined) return running;
      const starting = start(setup, events);
      running = starting;
      const forget = () => {
        if (running === starting) running = undefined;
      };
      starting.then((trainer) => trainer.exited.then(forget, forget), forget);
      return starting;
    },
    async close() {
      const last = running;
      running = undefined;
      const trainer = await last?.catch(() => undefined);
      await trainer?.close();
    },
  };
}

/** How often a trainer may crash on one piece of work before it counts as failed. */
const MAX_ATTEMPTS = 3;

/** The process is gone: a new one may fare better. */
const DEATHS: readonly (string | undefined)[] = ['FED_TRAINER_CRASHED', 'FED_TRAINER_OUT_OF_MEMORY'];

/** Runs `work` again while the trainer dies of it, three times in all; any other error is the caller's. */
export async function withAttempts<T>(work: () => Promise<T>, emit: EmitWorkerEvent): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!DEATHS.includes(errorCode(error))) throw error;
      const reason = (error as Error).message;
      emit({ type: 'trainer-crashed', attempt, attempts: MAX_ATTEMPTS, reason });
      if (attempt === MAX_ATTEMPTS) throw error;
    }
  }
}
