/**
 * How late an agent's heartbeats could be while its trainer does 224 px steps, beside an idle process on the same
 * machine at the same time: the difference is what training costs the agent, the rest is the machine's. The promise is
 * 100 ms.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadEngine } from '@tributary/engine';
import { buildModel, modelArtifact, recipeFor } from '@tributary/models';
import { encodeFrame, federationViewSchema } from '@tributary/shared-protocol';
import sharp from 'sharp';
import type { HeartbeatOrder, HeartbeatReport } from '../packages/worker/test/agent/heartbeat-process.ts';

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      steps: { type: 'string', default: '6' },
      batch: { type: 'string', default: '32' },
      engine: { type: 'string', default: 'auto' },
    },
  });
  const folder = await mkdtemp(join(tmpdir(), 'tributary-bench-heartbeats-'));
  try {
    const agent = start();
    const control = start();
    const order = await orderFor(folder, Number(values.steps), Number(values.batch), values.engine);
    control.send({ type: 'watch' } satisfies HeartbeatOrder);
    await once(control, 'message');
    agent.send(order);
    const [seen] = (await once(agent, 'message')) as [HeartbeatReport];
    const idle = once(control, 'message');
    control.send({ type: 'stop' } satisfies HeartbeatOrder);
    const [undisturbed] = (await idle) as [HeartbeatReport];
    agent.disconnect();
    control.disconnect();
    const steps = seen.stepsMs.map((ms) => (ms / 1000).toFixed(2)).join(' ');
    console.log(`Steps of ${values.batch} images of 224 px, in seconds: ${steps}\n`);
    console.log('process                  timers looked at   worst lateness');
    for (const [name, { ticks, worstMs }] of [
      ['agent, trainer at work', seen],
      ['idle, at the same time', undisturbed],
    ] as const) {
      console.log(
        `${name}   ${String(ticks).padStart(16)}   ${worstMs.toFixed(1).padStart(11)} ms${worstMs > 100 ? '  (over 100)' : ''}`,
      );
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function start(): ChildProcess {
  const file = fileURLToPath(new URL('../packages/worker/test/agent/heartbeat-process.ts', import.meta.url));
  return fork(file, [], { execArgv: process.execArgv, serialization: 'advanced' });
}

async function orderFor(
  folder: string,
  steps: number,
  batchSize: number,
  engine: string,
): Promise<HeartbeatOrder> {
  await loadEngine({ prefer: 'cpu' });
  const classes = ['a', 'b'];
  const { input, augmentation, training } = recipeFor('image-cnn', 2);
  const model = buildModel('image-cnn', { input, numClasses: 2, seed: 1 });
  const { topology, weights } = await modelArtifact(model);
  model.dispose();
  const globalFile = join(folder, 'global.frame');
  await writeFile(globalFile, encodeFrame(weights));
  for (const name of classes) {
    await mkdir(join(folder, 'train', name), { recursive: true });
    for (let i = 0; i < batchSize / 2; i++) {
      const background = { r: (i * 37) % 256, g: 90, b: name === 'a' ? 40 : 200 };
      await sharp({ create: { width: 400, height: 300, channels: 3, background } })
        .jpeg()
        .toFile(join(folder, 'train', name, `${i}.jpg`));
    }
  }
  const federation = federationViewSchema.parse({
    name: 'bench',
    runId: 'bench',
    configDigest: '0'.repeat(64),
    seed: 1,
    rounds: 1,
    classes,
    input,
    augmentation,
    training: { ...training, batchSize, epochs: undefined, steps },
    maxUnreadableShare: 0,
    topology,
    frozenWeights: [],
  });
  return {
    type: 'train',
    setup: {
      federation,
      dataDir: folder,
      workDir: join(folder, 'work'),
      siteName: 'bench',
      engine: engine as 'auto',
    },
    job: { round: 1, globalFile, outFile: join(folder, 'out.update'), learningRate: 1e-3 },
  };
}
