/**
 * What a trainer may take of its machine. Threads and cached images are bounded before it starts; resident memory is
 * watched from outside, because most of it is the engine's own, which no limit of the JavaScript heap sees.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { promisify } from 'node:util';
import type { TrainerSetup } from '../agent/trainer-keeper.ts';
import { PolicyError } from '../errors.ts';
import { bytesText } from './rules.ts';
import type { SitePolicy } from './schema.ts';

const LOOK_MS = 250;
/** Decoded images may have this share of a bounded memory. */
const CACHE_SHARE = 0.25;
const DEFAULT_CACHE_BYTES = 512 * 2 ** 20;

/** The setup within the policy's bounds: never more than was asked for. */
export function boundSetup(setup: TrainerSetup, { engines, threads, maxMemory }: SitePolicy): TrainerSetup {
  let bound = setup;
  if (engines !== undefined) bound = { ...bound, engines };
  if (threads !== undefined) {
    // Half of them make images; a single thread does both.
    const forImages = Math.floor(threads / 2);
    const wanted = setup.imageThreads ?? Math.min(8, Math.max(1, availableParallelism() - 1));
    const imageThreads = Math.min(wanted, forImages);
    const forEngine = threads - imageThreads;
    bound = { ...bound, imageThreads, threads: Math.min(setup.threads ?? forEngine, forEngine) };
  }
  if (maxMemory !== undefined) {
    const cache = setup.maxCacheBytes ?? Math.min(DEFAULT_CACHE_BYTES, totalmem() / 8);
    bound = {
      ...bound,
      maxMemoryBytes: maxMemory,
      maxCacheBytes: Math.floor(Math.min(cache, maxMemory * CACHE_SHARE)),
    };
  }
  return bound;
}

/** Resident memory of a process in bytes; undefined when it is gone, or this system does not say. */
export async function residentBytes(pid: number): Promise<number | undefined> {
  if (process.platform === 'linux') {
    try {
      const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
      return kib === undefined ? undefined : Number(kib) * 1024;
    } catch {
      return undefined; // it has ended
    }
  }
  if (process.platform === 'win32') return undefined;
  try {
    const { stdout } = await promisify(execFile)('ps', ['-o', 'rss=', '-p', String(pid)]);
    const kib = Number(stdout.trim());
    return kib > 0 ? kib * 1024 : undefined;
  } catch {
    return undefined; // it has ended, or there is no ps
  }
}

/** Whether `residentBytes` works here: tried on this process. */
export async function canWatchMemory(): Promise<boolean> {
  return (await residentBytes(process.pid)) !== undefined;
}

/**
 * Looks at a process's memory four times a second and calls `stop` once with FED_POLICY_MEMORY when it has more than
 * `maxBytes`. Returns the function that ends the watch.
 */
export function watchMemory(pid: number, maxBytes: number, stop: (reason: PolicyError) => void): () => void {
  let over = false;
  let looking = false;
  const timer = setInterval(async () => {
    if (looking) return;
    looking = true;
    const bytes = await residentBytes(pid);
    looking = false;
    if (over || bytes === undefined || bytes <= maxBytes) return;
    over = true;
    stop(
      new PolicyError(
        'FED_POLICY_MEMORY',
        `this site's policy: the trainer had ${bytesText(bytes)} of memory, maxMemory is ${bytesText(maxBytes)}, and it was stopped. ` +
          'Raise maxMemory, keep fewer decoded images (--image-cache), or ask the lead for a smaller batch or smaller images.',
      ),
    );
  }, LOOK_MS);
  return () => {
    over = true;
    clearInterval(timer);
  };
}
