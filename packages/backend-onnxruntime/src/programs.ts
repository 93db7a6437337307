/**
 * Compiled graphs, the least recently used going first when together they hold more memory than allowed. Each session
 * of ONNX Runtime keeps an arena of its own, as big as the graph's peak, until it is disposed of: a count would not do.
 */
import type { Plan } from './plan.ts';
import type { Session } from './runtime.ts';

/** A compiled graph and what it costs. */
export interface Program {
  readonly key: Int32Array;
  readonly hash: number;
  readonly session: Session;
  /** Names of its outputs, in the plan's order. */
  readonly outputNames: readonly string[];
  /** Estimate of the most that its results take at one time. */
  readonly peakBytes: number;
  /** Where its profile goes, if it is profiled. */
  readonly profile: string | undefined;
}

/** What a session takes beside its results, roughly. */
const SESSION_OVERHEAD_BYTES = 1 << 20;

const bytesOf = (program: Program): number => program.peakBytes + SESSION_OVERHEAD_BYTES;

export class Programs {
  /** In order of use, the latest last. */
  readonly #used = new Set<Program>();
  readonly #byHash = new Map<number, Program[]>();
  readonly #maxBytes: number;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get count(): number {
    return this.#used.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  find({ hash, key }: Plan): Program | undefined {
    const program = this.#byHash.get(hash)?.find((candidate) => sameKey(candidate.key, key));
    if (program !== undefined) this.use(program);
    return program;
  }

  /** Counts as a use of the program; false when it is gone. */
  use(program: Program): boolean {
    if (!this.#used.delete(program)) return false;
    this.#used.add(program);
    return true;
  }

  /** Keeps the program, and disposes of older ones until the rest fits; the new one stays whatever its size. */
  add(program: Program): void {
    this.#used.add(program);
    const sameHash = this.#byHash.get(program.hash);
    if (sameHash === undefined) this.#byHash.set(program.hash, [program]);
    else sameHash.push(program);
    this.#bytes += bytesOf(program);
    for (const oldest of this.#used) {
      if (this.#bytes <= this.#maxBytes || oldest === program) break;
      this.#remove(oldest);
    }
  }

  clear(): void {
    for (const program of this.#used) this.#remove(program);
  }

  #remove(program: Program): void {
    this.#used.delete(program);
    const rest = this.#byHash.get(program.hash)!.filter((other) => other !== program);
    if (rest.length === 0) this.#byHash.delete(program.hash);
    else this.#byHash.set(program.hash, rest);
    this.#bytes -= bytesOf(program);
    program.session.dispose();
  }
}

function sameKey(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
