/** What the trainer's handle and its process say to each other. Both are ours and of one version: nothing is checked. */
import type { TrainerReport, TrainerSetup } from '../agent/trainer-keeper.ts';
import type { ToldOfRound } from '../site-level.ts';

export interface TrainJob {
  readonly round: number;
  /** A tensor frame: the global weights. */
  readonly globalFile: string;
  /** Where the update's frame goes; there whole or not at all. */
  readonly outFile: string;
  readonly learningRate: number;
  readonly told?: ToldOfRound | undefined;
}

export interface EvaluateJob {
  readonly round: number;
  readonly globalFile: string;
}

export interface JobResult {
  readonly numExamples: number;
  readonly metrics: Readonly<Record<string, number>>;
  /** After `evaluate`: examples by true class (row) and predicted class (column). */
  readonly confusion?: number[][];
}

export type ToTrainer =
  | { readonly type: 'setup'; readonly setup: TrainerSetup }
  | { readonly type: 'train'; readonly job: TrainJob }
  | { readonly type: 'evaluate'; readonly job: EvaluateJob }
  | { readonly type: 'abort' }
  | { readonly type: 'close' };

export type FromTrainer =
  | { readonly type: 'ready'; readonly site: TrainerReport; readonly engineReason: string }
  | { readonly type: 'progress'; readonly progress: number }
  | { readonly type: 'log'; readonly message: string }
  | { readonly type: 'done'; readonly result: JobResult }
  | { readonly type: 'aborted' }
  | { readonly type: 'failed'; readonly code: string; readonly message: string };
