/** Memory over a long training, in a process of its own. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

interface Sample {
  readonly step: number;
  readonly residentMiB: number;
  readonly tensors: number;
  readonly dataIds: number;
}

/** Garbage that waits for its collection comes and goes: not one sample, the middle of several. */
function usual(samples: readonly Sample[], from: number, to: number): number {
  const sorted = samples
    .filter(({ step }) => step >= from && step <= to)
    .map(({ residentMiB }) => residentMiB)
    .sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

it('2,000 steps of the seed network with varying batches: neither memory nor tensors grow', async () => {
  const program = fileURLToPath(new URL('./memory-process.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--conditions=@tributary/source',
    '--import',
    import.meta.resolve('tsx'),
    program,
  ]);
  const samples = JSON.parse(stdout.trim().split('\n').at(-1)!) as Sample[];
  expect(samples.at(-1)!.step).toBe(2000);
  for (const counted of ['tensors', 'dataIds'] as const) {
    expect(new Set(samples.map((sample) => sample[counted])).size).toBe(1);
  }
  expect(usual(samples, 1600, 2000)).toBeLessThan(1.03 * usual(samples, 200, 600));
}, 300_000);
