/**
 * Milliseconds a training step of the same network, batch and optimizer, here and in PyTorch on the same cores, or on
 * the same GPU where the engine uses one: the two take turns, so that a busy moment of the machine meets both. Each runs
 * in a process of its own; its peak memory is that process's, without what lies on a GPU.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median } from './median.ts';

/** Where PyTorch may be: on the path, or with Debian's own Python beside another one. */
const PYTHONS = ['python3', '/usr/bin/python3'];
/** Networks by name; `local-training-party.ts` and `local_training.py` build the same ones. */
const NETWORKS = ['seed-64', 'seed-128', 'seed-224', 'digits-28', 'mlp', 'lstm'];
const ENGINES = ['onnxruntime', 'wasm', 'cpu'];
/** Engines that compute on a GPU, measured when named: TensorFlow.js's backend on Dawn, and ours through ONNX Runtime. */
const GPU_ENGINES = ['webgpu', 'onnxruntime-webgpu'];
const RESULTS = fileURLToPath(new URL('./results/', import.meta.url));
/**
 * glibc gives large blocks back to the system as soon as they are free, and a virtual machine pays dearly to have them
 * again: PyTorch's step at 64 pixels fell from 850 to 100 ms on one. Both sides keep what they have had.
 */
const KEEP_FREED_MEMORY = {
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: String(2 ** 40),
  MALLOC_TOP_PAD_: String(64 * 2 ** 20),
};
/**
 * Too small to learn the one batch by heart: what vanishes becomes denormal numbers, with which a processor takes ten
 * times as long, and neither side is to be measured by that.
 */
const LEARNING_RATE = 1e-9;
/** A step slower than this is measured once, and a larger network of its kind is left out. */
const SLOW_STEP_MS = 20_000;
/** About how long one turn of one side lasts. */
const TURN_MS = 2000;

interface Party {
  /** What it computes with, for the table. */
  readonly description: string;
  /** Trains `steps` steps and resolves with milliseconds a step. */
  run(steps: number): Promise<number>;
  peakMiB(): Promise<number>;
  stop(): void;
}

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      networks: { type: 'string', default: NETWORKS.join() },
      engines: { type: 'string', default: ENGINES.join() },
      pairs: { type: 'string', default: '6' },
      threads: { type: 'string', default: String(availableParallelism()) },
      save: { type: 'string' },
    },
  });
  const threads = Number(values.threads);
  const pairs = Number(values.pairs);
  const printed: string[] = [];
  const print = (line: string): void => {
    printed.push(line);
    console.log(line);
  };
  print(
    `A training step of batch 32 with Adam, ${threads} threads; medians over ${pairs} turns, and PyTorch's time over ours\n`,
  );
  print(
    `${'network'.padEnd(11)} ${'engine'.padEnd(18)}   step ms   PyTorch ms   ratio (range)         peak MiB   PyTorch`,
  );
  const descriptions = new Set<string>();
  const tooSlow = new Map<string, string>();
  for (const network of values.networks.split(',')) {
    for (const engine of values.engines.split(',')) {
      const kind = `${network.split('-')[0]} ${engine}`;
      const title = `${network.padEnd(11)} ${engine.padEnd(18)}`;
      const slower = tooSlow.get(kind);
      if (slower !== undefined) {
        print(`${title} left out: ${slower}`);
        continue;
      }
      try {
        const row = await compare(network, engine, threads, pairs);
        if (row.stepMs > SLOW_STEP_MS) {
          tooSlow.set(kind, `${network} took ${(row.stepMs / 1000).toFixed(0)} s a step`);
        }
        for (const description of row.descriptions) descriptions.add(description);
        print(`${title} ${row.text}`);
      } catch (error) {
        print(`${title} can't run: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
  print(`\n${[...descriptions].join('\n')}`);
  if (values.save !== undefined) {
    await mkdir(RESULTS, { recursive: true });
    const day = new Date().toISOString().slice(0, 10);
    await writeFile(join(RESULTS, `local-training-${values.save}.txt`), `${day}\n${printed.join('\n')}\n`);
  }
}

async function compare(
  network: string,
  engine: string,
  threads: number,
  pairs: number,
): Promise<{ stepMs: number; text: string; descriptions: string[] }> {
  const here = fileURLToPath(new URL('.', import.meta.url));
  const gpu = GPU_ENGINES.includes(engine);
  const setup = JSON.stringify({ network, engine, threads, gpu, learningRate: LEARNING_RATE });
  const ours = await startParty(process.execPath, [
    ...process.execArgv,
    `${here}local-training-party.ts`,
    setup,
  ]);
  const torch = await startParty(pythonWithTorch(), [`${here}local_training.py`, setup]).catch(
    (error: Error) => error,
  );
  try {
    const first = await warmUp(ours);
    const ourTimes: number[] = first > SLOW_STEP_MS ? [first] : [];
    const theirTimes: number[] = [];
    const theirFirst = torch instanceof Error ? 0 : await warmUp(torch);
    for (let pair = 0; pair < pairs; pair++) {
      if (first <= SLOW_STEP_MS) ourTimes.push(await ours.run(stepsFor(first)));
      if (!(torch instanceof Error)) theirTimes.push(await torch.run(stepsFor(theirFirst)));
      if (first > SLOW_STEP_MS && pair === 0) break;
    }
    const stepMs = median(ourTimes);
    const columns = [stepMs.toFixed(stepMs < 10 ? 2 : 1).padStart(9)];
    const descriptions = [`${engine}: ${ours.description}`];
    if (!(torch instanceof Error)) descriptions.push(torch.description);
    if (torch instanceof Error) {
      columns.push(`PyTorch is not here (${torch.message}); on Debian: apt-get install python3-torch`);
      columns.push(`peak ${(await ours.peakMiB()).toFixed(0)} MiB`);
    } else {
      const ratios = theirTimes.map((theirs, i) => theirs / (ourTimes[i] ?? stepMs));
      columns.push(
        median(theirTimes)
          .toFixed(stepMs < 10 ? 2 : 1)
          .padStart(10),
        `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)})`.padEnd(
          19,
        ),
        (await ours.peakMiB()).toFixed(0).padStart(9),
        (await torch.peakMiB()).toFixed(0).padStart(8),
      );
    }
    return { stepMs, text: columns.join('   '), descriptions };
  } finally {
    ours.stop();
    if (!(torch instanceof Error)) torch.stop();
  }
}

/** Compiles and settles: the slowest step first, then as many as a turn has. Returns about what a step takes. */
async function warmUp(party: Party): Promise<number> {
  const first = await party.run(1);
  if (first > SLOW_STEP_MS) return first;
  const second = await party.run(1);
  return await party.run(Math.min(10, stepsFor(second)));
}

function stepsFor(stepMs: number): number {
  return Math.max(1, Math.min(200, Math.round(TURN_MS / stepMs)));
}

/** The first Python that has PyTorch, or just the first. */
function pythonWithTorch(): string {
  return PYTHONS.find((python) => spawnSync(python, ['-c', 'import torch']).status === 0) ?? 'python3';
}

/** A process that answers each line `run N` with milliseconds a step and `peak` with MiB, a JSON line each. */
async function startParty(file: string, argv: readonly string[]): Promise<Party> {
  const child: ChildProcess = spawn(file, argv, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...KEEP_FREED_MEMORY },
  });
  let complaint = '';
  child.stderr?.on('data', (data: Buffer) => {
    complaint = `${complaint}${data.toString()}`.slice(-2000);
  });
  const lines = createInterface({ input: child.stdout! });
  const answers: ((answer: unknown) => void)[] = [];
  lines.on('line', (line) => {
    if (line.startsWith('{')) answers.shift()?.(JSON.parse(line));
  });
  const died = new Promise<never>((_, reject) => {
    child.on('error', reject);
    child.on('exit', () => {
      const lines = complaint.trim().split('\n');
      reject(new Error(lines.find((line) => /^\w*Error\b/.test(line)) ?? (lines.at(-1) || 'it ended early')));
    });
  });
  died.catch(() => {});
  const answer = <T>(): Promise<T> =>
    Promise.race([new Promise<T>((resolve) => answers.push(resolve as (value: unknown) => void)), died]);
  const ask = <T>(line: string): Promise<T> => {
    const next = answer<T>();
    child.stdin?.write(`${line}\n`);
    return next;
  };
  const { description } = await answer<{ description: string }>();
  return {
    description,
    run: async (steps) => (await ask<{ ms: number }>(`run ${steps}`)).ms,
    peakMiB: async () => (await ask<{ mib: number }>('peak')).mib,
    stop: () => void child.kill(),
  };
}
