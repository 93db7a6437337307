/** A trainer in this process whose every step a test can hold up, fail or crash. */
import { readFile, writeFile } from 'node:fs/promises';
import type { StartTrainer, Trainer } from '../../src/agent/trainer-keeper.ts';
import { WorkerError } from '../../src/errors.ts';

export interface FakeTrainer {
  readonly start: StartTrainer;
  /** Times that the trainer was started. */
  readonly starts: number;
  /** Rounds that were trained, in order, one entry an attempt. */
  readonly trained: number[];
  /** What each of them was told to clip to. */
  readonly norms: (number | undefined)[];
  /** The running trainer dies, as a process would: its job rejects, `exited` resolves. */
  crash(): void;
  /** Called in every `train` before it finishes; await here to hold it up, throw to fail it. */
  onTrain: (attempt: number, signal: AbortSignal | undefined) => Promise<void>;
}

export function fakeTrainer(): FakeTrainer {
  let starts = 0;
  let attempts = 0;
  let crash: () => void = () => undefined;
  const trained: number[] = [];
  const norms: (number | undefined)[] = [];
  const fake: FakeTrainer = {
    get starts() {
      return starts;
    },
    trained,
    norms,
    crash: () => crash(),
    onTrain: async () => undefined,
    async start(_setup, events) {
      starts++;
      let onExit: (code: null) => void = () => undefined;
      const exited = new Promise<null>((resolve) => {
        onExit = resolve;
      });
      const crashed = new Promise<never>((_, reject) => {
        crash = () => {
          onExit(null);
          reject(new WorkerError('FED_TRAINER_CRASHED', 'the trainer was killed (SIGKILL)'));
        };
      });
      crashed.catch(() => undefined);
      const trainer: Trainer = {
        site: {
          trainExamples: 10,
          testExamples: 4,
          trainExamplesByClass: [5, 5],
          unreadable: 0,
          engine: 'fake',
        },
        engineReason: 'a test said so',
        async train({ round, globalFile, outFile, told }, options) {
          trained.push(round);
          norms.push(told?.clippingNorm);
          attempts++;
          events.onProgress(0.5);
          await Promise.race([fake.onTrain(attempts, options?.signal), crashed]);
          const global = await readFile(globalFile);
          await writeFile(outFile, updateOf(global, round));
          return { numExamples: 10, metrics: { loss: 0.25, broken: Number.NaN } };
        },
        async evaluate({ globalFile }) {
          return { numExamples: 4, metrics: { accuracy: (await readFile(globalFile)).length } };
        },
        exited,
        close: async () => onExit(null),
      };
      return trainer;
    },
  };
  return fake;
}

/** What the fake trainer makes of a global model: every byte plus the round. */
export function updateOf(global: Uint8Array, round: number): Uint8Array {
  return global.map((byte) => (byte + round) & 255);
}
