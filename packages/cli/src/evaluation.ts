/** Measuring a model on a folder of labelled images, in a trainer process of its own so that the terminal stays alive. */
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { federationView, type ResolvedFederation } from '@tributary/coordinator';
import type { EngineName } from '@tributary/engine';
import { encodeFrame, type Tensor } from '@tributary/shared-protocol';
import { startTrainer } from '@tributary/worker';

export interface EvaluatorOptions {
  readonly federation: ResolvedFederation;
  /** `<class>/*` or `test/<class>/*`: all of it is measured on. */
  readonly dataDir: string;
  /** @default 'auto' */
  readonly engine?: EngineName | 'auto';
  /** Threads that decode images; 0: the engine's does. @default one a core but one, from 1 to 8 */
  readonly imageThreads?: number;
}

export interface Evaluator {
  readonly examples: number;
  readonly engineReason: string;
  /** Loss and metrics of the model in a tensor frame file. */
  evaluateFile(frameFile: string): Promise<Record<string, number>>;
  evaluate(tensors: readonly Tensor[]): Promise<Record<string, number>>;
  /** Ends the trainer process and removes its folder. */
  close(): Promise<void>;
}

/** An evaluator that has read its folder. Rejects with the trainer's and the data's own codes. */
export async function createEvaluator(options: EvaluatorOptions): Promise<Evaluator> {
  const { federation, engine = 'auto' } = options;
  const work = await mkdtemp(join(tmpdir(), 'tributary-evaluate-'));
  try {
    const dataDir = await asTestFolder(options.dataDir, work);
    const trainer = await startTrainer({
      federation: federationView(federation, 'evaluation', 0),
      dataDir,
      workDir: work,
      siteName: 'evaluation',
      engine,
      ...(options.imageThreads === undefined ? {} : { imageThreads: options.imageThreads }),
    });
    const evaluateFile = async (globalFile: string) =>
      (await trainer.evaluate({ round: 1, globalFile })).metrics;
    return {
      examples: trainer.site.testExamples,
      engineReason: trainer.engineReason,
      evaluateFile: async (file) => ({ ...(await evaluateFile(file)) }),
      async evaluate(tensors) {
        const file = join(work, `${randomUUID()}.frame`);
        await writeFile(file, encodeFrame(tensors));
        try {
          return { ...(await evaluateFile(file)) };
        } finally {
          await rm(file, { force: true });
        }
      },
      async close() {
        await trainer.close();
        await rm(work, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    throw error;
  }
}

/** A data folder whose test split is all of `path` (or its own `test`), by links: the trainer measures on test splits. */
async function asTestFolder(path: string, work: string): Promise<string> {
  const test = existsSync(join(path, 'test')) ? join(path, 'test') : path;
  const data = join(work, 'data');
  await mkdir(data, { recursive: true });
  for (const name of ['train', 'test']) await symlink(resolve(test), join(data, name), 'junction');
  return data;
}
