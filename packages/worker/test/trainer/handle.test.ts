import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadEngine } from '@tributary/engine';
import { buildModel, type ModelArtifact, modelArtifact } from '@tributary/models';
import { decodeFrame, encodeFrame, type FederationView } from '@tributary/shared-protocol';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startTrainer, type TrainerHandle } from '../../src/trainer/handle.ts';
import { federationFor } from './memory-data.ts';

const CLASSES = ['dark', 'light'];
const INPUT = {
  height: 8,
  width: 8,
  channels: 1 as const,
  interpolation: 'nearest' as const,
  keepAspectRatio: false,
};
const TRAINING = {
  optimizer: { name: 'sgd', learningRate: 0.05 },
  loss: 'binaryCrossentropy',
  batchSize: 4,
  epochs: 2,
};

let folder: string;
let globalFile: string;
let artifact: ModelArtifact;
let federation: FederationView;
const open: TrainerHandle[] = [];

beforeAll(async () => {
  await loadEngine({ prefer: 'cpu' });
  const model = buildModel('image-cnn-small', { input: INPUT, numClasses: 2, seed: 1 });
  artifact = await modelArtifact(model);
  model.dispose();
  folder = await mkdtemp(join(tmpdir(), 'tributary-trainer-'));
  globalFile = join(folder, 'global.frame');
  await writeFile(globalFile, encodeFrame(artifact.weights));
  for (const split of ['train', 'test']) {
    for (const [label, name] of CLASSES.entries()) {
      await mkdir(join(folder, 'images', split, name), { recursive: true });
      for (let i = 0; i < 6; i++) {
        const pixels = Buffer.alloc(64, label * 150 + i * 10);
        const image = sharp(pixels, { raw: { width: 8, height: 8, channels: 1 } });
        await image.png().toFile(join(folder, 'images', split, name, `${i}.png`));
      }
    }
  }
  federation = federationFor(artifact.topology, CLASSES, TRAINING, { input: INPUT });
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((handle) => handle.close()));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function start(
  change: Partial<Parameters<typeof startTrainer>[0]> = {},
  events: Parameters<typeof startTrainer>[1] = {},
): Promise<TrainerHandle> {
  const setup = {
    federation,
    dataDir: join(folder, 'images'),
    workDir: join(folder, 'work'),
    siteName: 'site-1',
    engine: 'wasm' as const,
    ...change,
  };
  const handle = await startTrainer(setup, events);
  open.push(handle);
  return handle;
}

const job = (outFile: string, round = 1) => ({
  round,
  globalFile,
  outFile: join(folder, outFile),
  learningRate: 0.05,
});

/** Thousands of epochs: a job that is still at work whatever happens to it. */
const endless = () =>
  federationFor(artifact.topology, CLASSES, { ...TRAINING, epochs: 100_000 }, { input: INPUT });

/** A trainer in the middle of a job that goes on until something stops it. */
async function busy(): Promise<{
  handle: TrainerHandle;
  controller: AbortController;
  training: Promise<unknown>;
}> {
  const handle = await start({ federation: endless() });
  const controller = new AbortController();
  const training = handle.train(job('endless.update'), { signal: controller.signal });
  // It is awaited later; until then its rejection is nobody's.
  training.catch(() => {});
  return { handle, controller, training };
}

describe('startTrainer', () => {
  it('trains with privacy for each record where the federation says so: no metric and no count by class leaves, and no update comes twice', async () => {
    const federation = {
      ...federationFor(artifact.topology, CLASSES, TRAINING, { input: INPUT }),
      privacy: {
        differentialPrivacy: { unit: 'record' as const, clippingNorm: 1, noiseMultiplier: 1 },
        budget: { epsilon: 8, delta: 1e-5 },
      },
    };
    const handle = await start({ federation });
    expect(handle.site.trainExamplesByClass).toEqual([]);
    const updates = [];
    for (const name of ['first.update', 'second.update']) {
      expect(await handle.train(job(name))).toEqual({ numExamples: 12, metrics: {} });
      updates.push(decodeFrame(await readFile(join(folder, name))).tensors);
    }
    expect(updates[0]!.map(({ name }) => name)).toEqual(artifact.weights.map(({ name }) => name));
    expect(updates[0]).not.toEqual(updates[1]);
  });

  it('clips what a private site sends, over all of its weights, to the norm of the configuration or of the plan', async () => {
    const differentialPrivacy = { unit: 'site', noise: 'coordinator', noiseMultiplier: 1 } as const;
    const budget = { epsilon: 8, delta: 1e-5 };
    const view = federationFor(artifact.topology, CLASSES, TRAINING, { input: INPUT });
    const normAfter = async (privacy: FederationView['privacy'], clippingNorm?: number) => {
      const handle = await start({ federation: privacy === undefined ? view : { ...view, privacy } });
      const result = await handle.train({ ...job('one.update'), told: { clippingNorm } });
      const { tensors } = decodeFrame(await readFile(join(folder, 'one.update')));
      await handle.close();
      const squares = tensors.flatMap(({ data }) => [...data].map((value) => Number(value) ** 2));
      return { ...result, norm: Math.sqrt(squares.reduce((sum, square) => sum + square, 0)) };
    };
    const plain = await normAfter(undefined);
    expect(plain.norm).toBeGreaterThan(1e-3);
    const half = plain.norm / 2;
    const clipped = await normAfter({
      differentialPrivacy: { ...differentialPrivacy, clippingNorm: half },
      budget,
    });
    expect(clipped).toEqual({ numExamples: 12, metrics: {}, norm: expect.closeTo(half, 6) });
    expect(clipped.norm).toBeLessThanOrEqual(half);
    const adapts = { initial: 100, targetQuantile: 0.5, learningRate: 0.2 };
    const told = await normAfter(
      { differentialPrivacy: { ...differentialPrivacy, clippingNorm: adapts }, budget },
      half / 2,
    );
    expect(told.norm).toBeCloseTo(half / 2, 6);
  });

  it('adds the noise of a site that trusts nobody before its update is written', async () => {
    const federation = {
      ...federationFor(artifact.topology, CLASSES, TRAINING, { input: INPUT }),
      privacy: {
        differentialPrivacy: {
          unit: 'site',
          noise: 'site',
          clippingNorm: 1e-3,
          noiseMultiplier: 1e3,
        } as const,
        budget: { epsilon: 8, delta: 1e-5 },
      },
    };
    const handle = await start({ federation });
    await handle.train(job('one.update'));
    const { tensors } = decodeFrame(await readFile(join(folder, 'one.update')));
    const values = tensors.flatMap(({ data }) => [...data].map(Number));
    // z C = 1, and the update itself is at most 1e-3 long.
    const stdDev = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    expect(Math.abs(stdDev - 1)).toBeLessThan(5 / Math.sqrt(2 * values.length));
  });

  it('reports the site and the engine, trains, writes the update whole, and evaluates', async () => {
    const progress: number[] = [];
    const handle = await start({}, { onProgress: (p) => progress.push(p) });
    expect(handle.site).toEqual({
      trainExamples: 12,
      testExamples: 12,
      trainExamplesByClass: [6, 6],
      unreadable: 0,
      engine: 'wasm: WebAssembly, SIMD, one thread',
    });
    expect(handle.engineReason).toContain('wasm was asked for');
    expect(handle.pid).not.toBe(process.pid);

    progress.length = 0;
    const result = await handle.train(job('first.update'));
    expect(result.numExamples).toBe(12);
    expect(Object.keys(result.metrics).sort()).toEqual(['accuracy', 'loss']);
    // 2 epochs of 12 images in batches of 4: six steps.
    expect(progress).toEqual([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]);
    const update = decodeFrame(await readFile(join(folder, 'first.update')));
    expect(update.tensors.map(({ name, shape }) => [name, shape])).toEqual(
      artifact.weights.map(({ name, shape }) => [name, shape]),
    );
    expect(update.meta).toEqual({ round: 1 });

    const evaluation = await handle.evaluate({ round: 1, globalFile });
    expect(evaluation.numExamples).toBe(12);
    expect(evaluation.confusion?.flat().reduce((sum, count) => sum + count)).toBe(12);
  });

  it('a central test set: evaluates images that are all for testing, and trains nothing', async () => {
    const handle = await start({
      dataDir: join(folder, 'images', 'test'),
      testOnly: true,
      siteName: 'central',
    });
    expect(handle.site).toMatchObject({ trainExamples: 0, testExamples: 12 });
    expect((await handle.evaluate({ round: 1, globalFile })).numExamples).toBe(12);
    await expect(handle.train(job('z.update'))).rejects.toMatchObject({ code: 'FED_TRAINER_NO_EXAMPLES' });
  });

  it('another process makes the same bytes of the same round', async () => {
    const first = await start();
    await first.train(job('a.update', 3));
    const second = await start();
    await second.train(job('other.update', 2));
    await second.train(job('b.update', 3));
    expect(await readFile(join(folder, 'b.update'))).toEqual(await readFile(join(folder, 'a.update')));
  });

  it('a killed trainer rejects its job with FED_TRAINER_CRASHED and leaves no half file', async () => {
    const { handle, training } = await busy();
    process.kill(handle.pid, 'SIGKILL');
    await expect(training).rejects.toMatchObject({
      code: 'FED_TRAINER_CRASHED',
      message: expect.stringContaining('ended by SIGKILL during training round 1'),
    });
    expect(await handle.exited).toEqual({ code: null, signal: 'SIGKILL' });
    expect((await readdir(folder)).filter((name) => name.includes('endless'))).toEqual([]);
    await expect(handle.evaluate({ round: 1, globalFile })).rejects.toMatchObject({
      code: 'FED_TRAINER_CRASHED',
    });
  });

  it('a trainer that dies of an error of its own gives its last words', async () => {
    const handle = await start();
    // A frame that isn't there is no error with a code: the process says so and ends.
    const training = handle.train({ ...job('x.update'), globalFile: join(folder, 'gone.frame') });
    await expect(training).rejects.toMatchObject({
      code: 'FED_TRAINER_CRASHED',
      message: expect.stringMatching(/exit code 1 during training round 1[\s\S]*ENOENT[\s\S]*gone\.frame/),
    });
  });

  it('abort ends the job with its reason, and the trainer takes the next', async () => {
    const { handle, controller, training } = await busy();
    controller.abort(new Error('the round closed'));
    await expect(training).rejects.toThrow('the round closed');
    expect((await handle.evaluate({ round: 1, globalFile })).numExamples).toBe(12);
    expect((await readdir(folder)).filter((name) => name.includes('endless'))).toEqual([]);
  });

  it('close ends it in the middle of a job', async () => {
    const { handle, training } = await busy();
    await handle.close();
    await expect(training).rejects.toMatchObject({ code: 'FED_TRAINER_CRASHED' });
  });

  it('a second job before the first has ended is a mistake', async () => {
    const { handle } = await busy();
    await expect(handle.evaluate({ round: 1, globalFile })).rejects.toThrow(/busy with training round 1/);
  });

  it('what fails in its set-up comes back with its code, and the process ends', async () => {
    await expect(start({ dataDir: join(folder, 'nowhere') })).rejects.toMatchObject({
      code: 'FED_DATA_FOLDER_MISSING',
    });
    const lambda = JSON.stringify({
      class_name: 'Sequential',
      config: { name: 'm', layers: [{ class_name: 'Lambda', config: { name: 'evil' } }] },
    });
    await expect(start({ federation: { ...federation, topology: lambda } })).rejects.toMatchObject({
      code: 'FED_MODEL_LAYER_REFUSED',
    });
  });

  it('an error of training comes back with its code, and the trainer takes the next job', async () => {
    const handle = await start();
    const misfit = join(folder, 'misfit.frame');
    await writeFile(misfit, encodeFrame(artifact.weights.slice(1)));
    const training = handle.train({ ...job('y.update'), globalFile: misfit });
    await expect(training).rejects.toMatchObject({ code: 'FED_MODEL_WEIGHTS' });
    expect((await handle.train(job('y.update'))).numExamples).toBe(12);
  });

  it('a trainer whose parent is gone ends itself', async () => {
    const parent = fork(join(import.meta.dirname, 'parent.ts'), [], {
      execArgv: ['--conditions=@tributary/source', '--import', import.meta.resolve('tsx')],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    parent.send({ federation, dataDir: join(folder, 'images'), workDir: join(folder, 'work') });
    const [pid] = (await once(parent, 'message')) as [number];
    parent.kill('SIGKILL');
    await once(parent, 'exit');
    // Not our child, so its end can only be asked for; the test's own limit ends the asking.
    while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isAlive(pid)).toBe(false);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('a trainer with a bound on its memory', () => {
  // Any Node process with an engine in it has more than 32 MiB.
  it('is stopped from outside with a report of how much it had, and not taken for a crash', async () => {
    await expect(start({ maxMemoryBytes: 32 * 2 ** 20 })).rejects.toMatchObject({
      code: 'FED_POLICY_MEMORY',
      message: expect.stringMatching(/the trainer had \d+ MiB of memory, maxMemory is 32 MiB/),
    });
  });

  it('works within a bound that is enough', async () => {
    const handle = await start({ maxMemoryBytes: 4 * 2 ** 30 });
    expect((await handle.train(job('bounded.update'))).numExamples).toBe(12);
  });
});
