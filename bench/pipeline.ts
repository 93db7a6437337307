/**
 * The image pipeline with the seed recipe: JPEG files of 400 x 300 pixels to batches of 224 x 224, with shear, zoom,
 * flips and rescale. First the pipeline alone beside the same recipe in Python (Pillow and SciPy, as Keras does it), in
 * turns, on the same cores; then with the seed network training, and the share of time that training waited.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { median } from './median.ts';
import { startParty } from './processes.ts';

/** Images a second, pass by pass. */
interface Runner {
  pass(seed: number): Promise<number>;
  stop(): Promise<void>;
}

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      images: { type: 'string', default: '192' },
      pairs: { type: 'string', default: '6' },
      steps: { type: 'string', default: '4' },
      rounds: { type: 'string', default: '2' },
      engine: { type: 'string', default: 'auto' },
      batch: { type: 'string' },
      'image-threads': { type: 'string' },
      'no-training': { type: 'boolean', default: false },
    },
  });
  const count = Number(values.images);
  const folder = await mkdtemp(join(tmpdir(), 'tributary-bench-pipeline-'));
  try {
    const bytes = await makeImages(folder, count);
    const kib = (bytes / count / 1024).toFixed(0);
    console.log(`${count} JPEG files of 400 x 300 pixels, ${kib} KiB each, to batches of 32 at 224 x 224\n`);
    for (const decoded of [false, true]) await againstPython(folder, Number(values.pairs), count, decoded);
    if (values['no-training']) return;
    const threads = values['image-threads'];
    const settings = {
      dataDir: folder,
      ...(threads === undefined ? {} : { imageThreads: Number(threads) }),
    };
    await whileTraining(
      {
        ...settings,
        engine: values.engine,
        steps: Number(values.steps),
        ...(values.batch === undefined ? {} : { batch: Number(values.batch) }),
      },
      Number(values.rounds),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * Decode, resize, augment, with nothing cached; or augment alone, with the decoded and resized images kept by both.
 * Both get the same cores.
 */
async function againstPython(folder: string, pairs: number, count: number, decoded: boolean): Promise<void> {
  const python = findPython();
  if (python === undefined) {
    console.log('No comparison with Python: it needs Pillow and SciPy. On Debian: apt install python3-pil');
    console.log('python3-scipy; or name an interpreter that has them in PYTHON.\n');
  }
  console.log(decoded ? 'From decoded pixels in memory:' : 'From files:');
  console.log('cores   ours images/s   Python images/s   ratio of each pair, and their median');
  for (const cores of [1, 2]) {
    if (cores > availableParallelism()) continue;
    const ours = await startOurs(folder, cores, count, decoded);
    const theirs =
      python === undefined ? undefined : await startPython(python, folder, cores, count, decoded);
    // The first pass of each warms up files, compilers and allocators.
    await ours.pass(0);
    await theirs?.pass(0);
    const mine: number[] = [];
    const other: number[] = [];
    for (let pair = 1; pair <= pairs; pair++) {
      mine.push(await ours.pass(pair));
      if (theirs !== undefined) other.push(await theirs.pass(pair));
    }
    await ours.stop();
    await theirs?.stop();
    const ratios = other.map((speed, i) => mine[i]! / speed);
    const tail =
      other.length === 0
        ? ''
        : `${median(other).toFixed(0).padStart(15)}   ${ratios.map((r) => r.toFixed(2)).join(' ')}: ${median(ratios).toFixed(2)}`;
    console.log(`${String(cores).padStart(5)}   ${median(mine).toFixed(0).padStart(13)}   ${tail}`);
  }
  console.log('');
}

async function startOurs(dataDir: string, cores: number, count: number, decoded: boolean): Promise<Runner> {
  const maxCacheBytes = decoded ? 2 ** 30 : 0;
  const worker = await startParty('pipeline-images', { dataDir, imageThreads: cores, maxCacheBytes });
  await worker.next('ready');
  pin(worker.child.pid!, cores);
  return {
    async pass(seed) {
      worker.send('pass', seed);
      return count / (await worker.next<{ seconds: number }>('passed')).seconds;
    },
    stop: () => worker.stop(),
  };
}

async function startPython(
  python: string,
  folder: string,
  cores: number,
  count: number,
  decoded: boolean,
): Promise<Runner> {
  const script = fileURLToPath(new URL('./pipeline_reference.py', import.meta.url));
  // One thread of each library a process, as with ours.
  const env = { ...process.env, OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' };
  const child = spawn(python, [script, folder, String(cores), ...(decoded ? ['keep'] : [])], {
    env,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  pin(child.pid!, cores);
  return {
    async pass(seed) {
      child.stdin.write(`${seed}\n`);
      const { value } = await lines.next();
      return count / Number(value);
    },
    async stop() {
      const gone = once(child, 'exit');
      child.stdin.end();
      await gone;
    },
  };
}

/** Keeps a process, its threads and its children on the first cores, where the system lets one choose. */
function pin(pid: number, cores: number): void {
  if (cores >= availableParallelism()) return;
  spawnSync('taskset', ['-a', '-c', '-p', `0-${cores - 1}`, String(pid)], { stdio: 'ignore' });
}

function findPython(): string | undefined {
  for (const python of [process.env['PYTHON'], '/usr/bin/python3', 'python3']) {
    if (python === undefined) continue;
    try {
      execFileSync(python, ['-c', 'import PIL, scipy.ndimage'], { stdio: 'ignore' });
      return python;
    } catch {
      // The next may have them.
    }
  }
  return undefined;
}

async function whileTraining(settings: object, rounds: number): Promise<void> {
  console.log('\nWith the seed network training:');
  console.log('decoded images kept   round   images/s   s a step   waited for images');
  for (const [name, maxCacheBytes] of [
    ['none', 0],
    ['all', 2 ** 30],
  ] as const) {
    const trainer = await startParty('pipeline-training', { ...settings, maxCacheBytes });
    const engine = await trainer.next<string>('ready');
    if (maxCacheBytes === 0) console.log(`(${engine})`);
    for (let round = 1; round <= rounds; round++) {
      trainer.send('round', round);
      const { totalMs, waitedMs, images, steps } = await trainer.next<{
        totalMs: number;
        waitedMs: number;
        images: number;
        steps: number;
      }>('trained');
      console.log(
        `${name.padStart(19)}   ${String(round).padStart(5)}   ${(images / (totalMs / 1000)).toFixed(1).padStart(8)}   ` +
          `${(totalMs / 1000 / steps).toFixed(2).padStart(8)}   ${((100 * waitedMs) / totalMs).toFixed(2)} % (${waitedMs.toFixed(0)} ms)`,
      );
    }
    await trainer.stop();
  }
}

/** Photographs of nothing: waves of several sizes and some grain, in two folders. Returns their bytes on disk. */
async function makeImages(folder: string, count: number): Promise<number> {
  const [height, width] = [300, 400];
  let bytes = 0;
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (const name of ['a', 'b']) await mkdir(join(folder, 'train', name), { recursive: true });
  for (let i = 0; i < count; i++) {
    const waves = Array.from({ length: 9 }, () => ({
      channel: Math.floor(random() * 4),
      x: random() * 0.15,
      y: random() * 0.15,
      phase: random() * 6.28,
      height: 12 + random() * 36,
    }));
    const data = new Uint8Array(height * width * 3);
    const row = new Float64Array(3);
    for (let r = 0, at = 0; r < height; r++) {
      for (let c = 0; c < width; c++) {
        row.fill(128);
        for (const wave of waves) {
          const value = wave.height * Math.sin(c * wave.x + r * wave.y + wave.phase);
          // Channel 3 is all of them: most of what a photograph shows is light, not colour.
          if (wave.channel === 3) for (let k = 0; k < 3; k++) row[k]! += value;
          else row[wave.channel]! += value;
        }
        const grain = (random() - 0.5) * 16;
        for (let k = 0; k < 3; k++) data[at++] = Math.max(0, Math.min(255, row[k]! + grain));
      }
    }
    const file = join(folder, 'train', i % 2 === 0 ? 'a' : 'b', `${String(i).padStart(4, '0')}.jpg`);
    const { size } = await sharp(data, { raw: { height, width, channels: 3 } })
      .jpeg({ quality: 85 })
      .toFile(file);
    bytes += size;
  }
  return bytes;
}
