import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadEngine } from '@tributary/engine';
import { buildModel, modelArtifact, recipeFor } from '@tributary/models';
import { encodeFrame } from '@tributary/shared-protocol';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { federationFor } from '../trainer/memory-data.ts';
import type { HeartbeatOrder, HeartbeatReport } from './heartbeat-process.ts';

const CLASSES = ['a', 'b'];
const STEPS = 3;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tributary-heartbeat-'));
  for (const name of CLASSES) {
    await mkdir(join(folder, 'train', name), { recursive: true });
    for (let i = 0; i < 4; i++) {
      const data = Buffer.alloc(224 * 224 * 3, name === 'a' ? 60 + i : 160 + i);
      const image = sharp(data, { raw: { width: 224, height: 224, channels: 3 } });
      await image.jpeg().toFile(join(folder, 'train', name, `${i}.jpg`));
    }
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function start(): { child: ChildProcess; order(order: HeartbeatOrder): void } {
  const child = fork(join(import.meta.dirname, 'heartbeat-process.ts'), [], {
    execArgv: ['--conditions=@tributary/source', '--import', import.meta.resolve('tsx')],
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  return { child, order: (order) => void child.send(order) };
}

describe('heartbeats', () => {
  /**
   * The promise is 100 ms, and `npm run bench -- heartbeats` measures it. A test can't demand it: on a loaded machine
   * the system itself lets a process wait for longer. What a test can tell is whether the agent ever waits for its
   * trainer: then it would be late by whole steps, and load makes those longer too. So the agent's worst lateness must
   * be far below the trainer's shortest step, beyond what an idle process suffered at the same time.
   */
  it('an agent’s timers do not wait for its trainer’s 224 px steps', { timeout: 180_000 }, async () => {
    await loadEngine({ prefer: 'wasm' });
    const { input, augmentation, training } = recipeFor('image-cnn', 2);
    const model = buildModel('image-cnn', { input, numClasses: 2, seed: 1 });
    const { topology, weights } = await modelArtifact(model);
    model.dispose();
    const plan = { ...training, batchSize: 4, epochs: undefined, steps: STEPS };
    const federation = federationFor(topology, CLASSES, plan, { input, augmentation });
    const globalFile = join(folder, 'global.frame');
    await writeFile(globalFile, encodeFrame(weights));

    const [agent, control] = [start(), start()];
    control.order({ type: 'watch' });
    await once(control.child, 'message');
    agent.order({
      type: 'train',
      setup: {
        federation,
        dataDir: folder,
        workDir: join(folder, 'work'),
        siteName: 'site',
        engine: 'wasm',
      },
      job: { round: 1, globalFile, outFile: join(folder, 'out.update'), learningRate: 1e-3 },
    });
    const [seen] = (await once(agent.child, 'message')) as [HeartbeatReport];
    const idle = once(control.child, 'message');
    control.order({ type: 'stop' });
    const [undisturbed] = (await idle) as [HeartbeatReport];
    for (const { child } of [agent, control]) {
      const gone = once(child, 'exit');
      child.disconnect();
      await gone;
    }

    expect(seen.stepsMs).toHaveLength(STEPS);
    expect(seen.ticks).toBeGreaterThan(STEPS);
    const shortestStep = Math.min(...seen.stepsMs);
    expect(seen.worstMs).toBeLessThan(undisturbed.worstMs + shortestStep / 2);
  });
});
