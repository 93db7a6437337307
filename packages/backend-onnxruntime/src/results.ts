/**
 * Results of graphs. The memory of each is given back once, when no tensor holds it and no graph that was traced before
 * still has to read it. For a device's buffers nobody else does that. In the process's memory the garbage collector
 * would, but late and dearly: weights lie outside of its heap, and megabytes of them at every step make it mark that
 * whole heap at every step.
 */
import { MessageChannel } from 'node:worker_threads';
import type { HostData, Source, Value } from './graph.ts';
import type { GpuTensor } from './runtime.ts';

type Result = GpuTensor | HostData;

/** Smaller ones may wait for the collector, which would otherwise hardly ever look. */
const FREED_FROM_BYTES = 1 << 20;

/** A port that is closed: what is transferred through it is gone. */
const nowhere = new MessageChannel().port1;
nowhere.close();

export class Results {
  readonly #held = new Set<Result>();
  #buffers = 0;
  #retired: Value[] = [];

  /** Device buffers that are not given back yet. */
  get deviceBuffers(): number {
    return this.#buffers;
  }

  add(source: Source): void {
    const result = resultIn(source);
    if (ArrayBuffer.isView(result)) {
      if (result.byteLength < FREED_FROM_BYTES || result.byteLength !== result.buffer.byteLength) return;
    } else {
      this.#buffers++;
    }
    this.#held.add(result);
  }

  /** Somebody was given the array itself: from now on it is the garbage collector's. */
  handOut(data: HostData): void {
    this.#held.delete(data);
  }

  /** No tensor holds the value any more; a kernel that returns what another was made from can make one hold it again. */
  retire(value: Value): void {
    if (value.source !== undefined && this.#held.has(resultIn(value.source))) this.#retired.push(value);
  }

  /** To be called when every traced graph has run. */
  settle(): void {
    for (const { holders, source } of this.#retired) if (holders === 0) this.#free(resultIn(source!));
    this.#retired = [];
  }

  /** Gives back all device buffers, whoever holds them; arrays stay with who has them. */
  clear(): void {
    for (const result of this.#held) if (!ArrayBuffer.isView(result)) this.#free(result);
    this.#held.clear();
    this.#retired = [];
  }

  #free(result: Result): void {
    if (!this.#held.delete(result)) return;
    if (ArrayBuffer.isView(result)) {
      nowhere.postMessage(undefined, [result.buffer as ArrayBuffer]);
    } else {
      this.#buffers--;
      result.dispose();
    }
  }
}

const resultIn = (source: Source): Result => ('gpu' in source ? source.gpu : source.host);
