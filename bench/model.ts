/** A model of a given number of float32 parameters, in tensors of at most four million. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeFrame, type Tensor } from '@tributary/shared-protocol';

const LARGEST = 4_000_000;

export function parameters(count: number, scale: number): Tensor[] {
  const tensors: Tensor[] = [];
  for (let left = count; left > 0; left -= LARGEST) {
    const size = Math.min(left, LARGEST);
    const data = new Float32Array(size);
    for (let i = 0; i < size; i++) data[i] = scale * Math.sin(i);
    tensors.push({ name: `w${tensors.length}`, dtype: 'float32', shape: [size], data });
  }
  return tensors;
}

/** Calls `use` with a file that holds an update for such a model, shared by all workers. */
export async function withUpdateFile<T>(count: number, use: (updateFile: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'tributary-update-'));
  try {
    const updateFile = join(dir, 'update.frame');
    writeFileSync(updateFile, encodeFrame(parameters(count, 1e-3)));
    return await use(updateFile);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
