/**
 * Time of a training step beside PyTorch on the CPU: same network, batch of 32, Adam, same threads. The two run by
 * turns, a few steps each, so that whatever else the machine does meets both; the ratio is that of each pair of turns.
 * PyTorch gets the layout of images that is the faster one here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

interface Turn {
  readonly times: readonly number[];
  readonly peakMiB: number;
}

interface Side {
  turn(steps: number): Promise<Turn>;
  stop(): void;
}

const CASES = [
  ['seed', 64],
  ['seed', 128],
  ['seed', 224],
  ['digits', 28],
  ['mlp', 0],
  ['lstm', 0],
] as const;

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: 'string' },
      engine: { type: 'string', default: 'onnxruntime' },
      pairs: { type: 'string', default: '6' },
      threads: { type: 'string', default: String(availableParallelism()) },
      python: { type: 'string', default: 'python3' },
      others: { type: 'boolean', default: false },
    },
  });
  const pairs = Number(values.pairs);
  console.log(
    `A training step, batch 32, Adam, ${values.threads} threads; medians of ${pairs} pairs of turns\n`,
  );
  console.log('network        ours ms   PyTorch ms   PyTorch/ours (range)   peak MiB ours   PyTorch   ratio');
  for (const [name, pixels] of CASES) {
    const title = pixels === 0 ? name : `${name} ${pixels} px`;
    if (values.only !== undefined && !values.only.split(',').includes(`${name}${pixels || ''}`)) continue;
    const argv = [name, String(pixels), values.threads];
    const ours = tfjsSide(values.engine, argv);
    const torch = start(values.python, [path('torch-side.py'), ...argv]);
    try {
      console.log(row(title, await alternate(ours, torch, pairs)));
    } finally {
      ours.stop();
      torch.stop();
    }
    if (values.others) {
      for (const backend of ['wasm', 'cpu']) console.log(await alone(backend, argv));
    }
  }
}

interface Pair {
  readonly ours: Turn;
  readonly torch: Turn;
}

async function alternate(ours: Side, torch: Side, pairs: number): Promise<Pair[]> {
  const warm = await ours.turn(4);
  await torch.turn(4);
  const steps = Math.max(2, Math.min(40, Math.round(1500 / median(warm.times.slice(1)))));
  const result: Pair[] = [];
  for (let i = 0; i < pairs; i++)
    result.push({ ours: await ours.turn(steps), torch: await torch.turn(steps) });
  return result;
}

function row(title: string, pairs: readonly Pair[]): string {
  const ratios = pairs.map(({ ours, torch }) => median(torch.times) / median(ours.times));
  const ours = median(pairs.map((pair) => median(pair.ours.times)));
  const torch = median(pairs.map((pair) => median(pair.torch.times)));
  const [a, b] = [pairs.at(-1)!.ours.peakMiB, pairs.at(-1)!.torch.peakMiB];
  const range = `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)})`;
  return [
    title.padEnd(12),
    ours.toFixed(1).padStart(9),
    torch.toFixed(1).padStart(12),
    range.padStart(22),
    a.toFixed(0).padStart(15),
    b.toFixed(0).padStart(9),
    (a / b).toFixed(2).padStart(7),
  ].join(' ');
}

/** The slow backends, for the table: few steps, by themselves. */
async function alone(backend: string, argv: readonly string[]): Promise<string> {
  const side = tfjsSide(backend, argv);
  try {
    await side.turn(1);
    const { times, peakMiB } = await side.turn(2);
    return `  ${backend.padEnd(10)} ${median(times).toFixed(1).padStart(9)} ${''.padStart(35)} ${peakMiB.toFixed(0).padStart(15)}`;
  } finally {
    side.stop();
  }
}

function tfjsSide(backend: string, argv: readonly string[]): Side {
  const tsx = import.meta.resolve('tsx');
  const node = ['--conditions=@tributary/source', '--import', tsx, path('tfjs-side.ts'), backend, ...argv];
  return start(process.execPath, node);
}

function start(file: string, argv: readonly string[]): Side {
  const child: ChildProcess = spawn(file, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return {
    async turn(steps) {
      child.stdin!.write(`${steps}\n`);
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`${file} ${argv.join(' ')} ended early (its own message is above)`);
      return JSON.parse(value) as Turn;
    },
    stop: () => child.kill(),
  };
}

function path(file: string): string {
  return fileURLToPath(new URL(`local-training/${file}`, import.meta.url));
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
