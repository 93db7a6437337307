import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadEngine } from '@tributary/engine';
import { buildModel, modelArtifact } from '@tributary/models';
import { inputSchema } from '@tributary/shared-protocol';
import sharp from 'sharp';
import { afterAll, describe, expect, it } from 'vitest';
import { federationFor } from './memory-data.ts';

const LIMIT_BYTES = 480 * 2 ** 20;

/** A control group with a memory limit, where this process may make one. */
function makeGroup(): string | undefined {
  let lines: string[];
  try {
    lines = readFileSync('/proc/self/cgroup', 'utf8').split('\n');
  } catch {
    return undefined;
  }
  const one = lines.find((line) => line.split(':')[1]?.split(',').includes('memory'));
  const two = lines.find((line) => line.startsWith('0::'));
  const [parent, file] = one
    ? [join('/sys/fs/cgroup/memory', one.split(':')[2]!), 'memory.limit_in_bytes']
    : [join('/sys/fs/cgroup', two?.split(':')[2] ?? ''), 'memory.max'];
  const group = join(parent, `tributary-test-${process.pid}`);
  try {
    mkdirSync(group);
  } catch {
    return undefined;
  }
  try {
    writeFileSync(join(group, file), String(LIMIT_BYTES));
    return group;
  } catch {
    rmdirSync(group);
    return undefined;
  }
}

const group = makeGroup();
const folder = mkdtempSync(join(tmpdir(), 'tributary-oom-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  if (group !== undefined) rmdirSync(group);
});

describe('a trainer under a memory limit', () => {
  // Skipped where this user may not make a control group: an unprivileged account, or a system that is not Linux.
  it.skipIf(group === undefined)(
    'is reported as killed for want of memory',
    { timeout: 120_000 },
    async () => {
      await loadEngine({ prefer: 'cpu' });
      const input = inputSchema.parse({ height: 8, width: 8, channels: 3 });
      const model = buildModel('image-cnn-small', { input, numClasses: 2, seed: 1 });
      const { topology } = await modelArtifact(model);
      model.dispose();
      for (const name of ['a', 'b']) mkdirSync(join(folder, 'train', name), { recursive: true });
      // 12,000 x 12,000 pixels in three colours: 432 MB once decoded, and a small file.
      const blank = { width: 12_000, height: 12_000, channels: 3 as const, background: '#123456' };
      for (const name of ['a', 'b']) {
        await sharp({ create: blank, limitInputPixels: false })
          .png({ compressionLevel: 1 })
          .toFile(join(folder, 'train', name, 'large.png'));
      }
      const training = {
        optimizer: { name: 'sgd', learningRate: 0.1 },
        loss: 'binaryCrossentropy',
        epochs: 1,
      };
      const child = fork(join(import.meta.dirname, 'parent.ts'), [], {
        execArgv: ['--conditions=@tributary/source', '--import', import.meta.resolve('tsx')],
        serialization: 'advanced',
        stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      });
      // The agent and all that it starts; the kernel takes the largest of them.
      writeFileSync(join(group!, 'cgroup.procs'), String(child.pid));
      child.send({
        federation: federationFor(topology, ['a', 'b'], training, { input }),
        dataDir: folder,
        workDir: join(folder, 'work'),
      });
      const [outcome] = (await once(child, 'message')) as [{ code: string; message: string }];
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
      expect(outcome.code).toBe('FED_TRAINER_OUT_OF_MEMORY');
      expect(outcome.message).toMatch(/kernel killed the trainer .* during its set-up/);
    },
  );
});
