/**
 * Results of graphs. The memory of each is given back once, when no tensor holds it and no graph that was traced before
 * still has to read it. For a device's buffers nobody else does that. In the process's memory the garbage collector
 * would, but late and dearly: weights lie outside of its heap, and megabytes of them at every step make it mark that
 * whole heap at every step.
 */
import { MessageChannel } from 'node:worker_threads';
import type { HostData, Source, Value } from './graph.ts';
import type { GpuTensor } from './runtime.ts';

/** Smaller ones may wait for the collector, which would otherwise hardly ever look. */
const FREED_FROM_BYTES = 1 << 20;

/** A port that is closed: what is transferred through it is gone. */
const nowhere = new MessageChannel().port1;
nowhere.close();

export class Results {
  readonly #buffers = new Set<GpuTensor>();
  /** Arrays that nobody was given; a tensor that is dropped without disposal leaves its own to the collector. */
  readonly #arrays = new WeakSet<HostData>();
  #retired: Value[] = [];

  /** Device buffers that are not given back yet. */
  get deviceBuffers(): number {
    return this.#buffers.size;
  }

  add(source: Source): void {
    if ('gpu' in source) this.#buffers.add(source.gpu);
    else if (isWorthFreeing(source.host)) this.#arrays.add(source.host);
  }

  /** Somebody was given the array itself: from now on it is the garbage collector's. */
  handOut(data: HostData): void {
    this.#arrays.delete(data);
  }

  /** No tensor holds the value any more; a kernel that returns what another was made from can make one hold it again. */
  retire(value: Value): void {
    if (value.source !== undefined) this.#retired.push(value);
  }

  /** To be called when every traced graph has run. */
  settle(): void {
    for (const { holders, source } of this.#retired) if (holders === 0) this.#free(source!);
    this.#retired = [];
  }

  /** Gives back all device buffers, whoever holds them; arrays stay with who has them. */
  clear(): void {
    for (const gpu of this.#buffers) this.#free({ gpu });
    this.#retired = [];
  }

  #free(source: Source): void {
    if ('gpu' in source) {
      if (this.#buffers.delete(source.gpu)) source.gpu.dispose();
    } else if (this.#arrays.delete(source.host)) {
      nowhere.postMessage(undefined, [source.host.buffer as ArrayBuffer]);
    }
  }
}

function isWorthFreeing({ byteLength, buffer }: HostData): boolean {
  return byteLength >= FREED_FROM_BYTES && byteLength === buffer.byteLength;
}
