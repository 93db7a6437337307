/** What a user can choose, with what is chosen otherwise. */
import { availableParallelism, totalmem } from 'node:os';
import type { Device } from './runtime.ts';

export interface BackendOptions {
  /**
   * Where graphs run. `webgpu` keeps weights and optimizer state in device buffers between steps. `cuda` needs the
   * provider's library, which npm doesn't carry.
   * @default 'cpu'
   */
  readonly device?: Device;
  /** Threads for one operator, from 1. @default the cores that this process may use, at most 16 */
  readonly threads?: number;
  /**
   * Whether idle threads spin for a moment before they sleep. Faster by up to a fifth for small steps; turn it off when
   * several trainers share the cores.
   * @default true
   */
  readonly spin?: boolean;
  /**
   * `lazy` collects kernels and runs them together, as late as possible. `eager` runs each by itself, about eight times
   * slower, and an error then carries the stack of the call that caused it.
   * @default 'lazy'
   */
  readonly mode?: 'lazy' | 'eager';
  /** A graph that has grown to this many nodes runs at once: a net under loops that never read. @default 30_000 */
  readonly maxPendingNodes?: number;
  /** Estimated memory that compiled graphs may keep, in bytes; the one in use always stays. @default a quarter of the machine's memory */
  readonly maxSessionBytes?: number;
  /**
   * Whether each compiled graph keeps the memory that it needed. Without it all share the process's, which is as fast
   * only where that isn't given back to the system at once: in a process that was started with MALLOC_TRIM_THRESHOLD_.
   * @default whether that variable is absent
   */
  readonly arena?: boolean;
  /**
   * On the CPU, the patches of a large convolution, and its gradients, are computed in pieces of about so many bytes, each
   * used at once: what two cores' caches hold.
   * @default 5 MiB
   */
  readonly pieceBytes?: number;
  /** Gets the warning that a kernel runs in JavaScript, once for each kernel. @default console.warn */
  readonly warn?: ((message: string) => void) | false;
}

export interface ResolvedOptions extends Required<BackendOptions> {}

/** Throws RangeError or TypeError for a value that can't be meant. */
export function resolveOptions(options: BackendOptions): ResolvedOptions {
  const resolved: ResolvedOptions = {
    device: options.device ?? 'cpu',
    threads: options.threads ?? Math.min(16, availableParallelism()),
    spin: options.spin ?? true,
    mode: options.mode ?? 'lazy',
    maxPendingNodes: options.maxPendingNodes ?? 30_000,
    maxSessionBytes: options.maxSessionBytes ?? totalmem() / 4,
    arena: options.arena ?? process.env['MALLOC_TRIM_THRESHOLD_'] === undefined,
    pieceBytes: options.pieceBytes ?? 5 << 20,
    warn: options.warn ?? ((message) => console.warn(message)),
  };
  oneOf('device', resolved.device, ['cpu', 'webgpu', 'cuda']);
  oneOf('mode', resolved.mode, ['lazy', 'eager']);
  atLeastOne('threads', resolved.threads);
  atLeastOne('maxPendingNodes', resolved.maxPendingNodes);
  atLeastOne('pieceBytes', resolved.pieceBytes);
  if (!(resolved.maxSessionBytes >= 0)) {
    throw new RangeError(`maxSessionBytes is a number of bytes, 0 or more, not ${resolved.maxSessionBytes}.`);
  }
  return resolved;
}

function oneOf(name: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value))
    throw new TypeError(`${name} is one of ${allowed.join(', ')}, not "${value}".`);
}

function atLeastOne(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1)
    throw new RangeError(`${name} is a whole number from 1, not ${value}.`);
}
