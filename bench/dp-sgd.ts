/**
 * What differential privacy costs a training step: DP-SGD on Poisson batches beside plain SGD on batches of the same
 * expected size, and as a yardstick DP-SGD with one backward pass a record. They take turns in one process, so that a busy
 * moment of the machine meets all.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** As the worker's trainer process has it: glibc keeps what was freed. */
const KEEP_FREED_MEMORY = { MALLOC_MMAP_MAX_: '0', MALLOC_TRIM_THRESHOLD_: String(2 ** 40) };

export async function bench(args: string[]): Promise<void> {
  const file = fileURLToPath(new URL('./dp-sgd-party.ts', import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, file, ...args], {
    stdio: 'inherit',
    env: { ...process.env, ...KEEP_FREED_MEMORY },
  });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`the bench ended with ${code}`);
}
