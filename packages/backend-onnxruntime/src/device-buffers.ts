/**
 * Results that stay on the device. Garbage collection doesn't free them: each is disposed of once, when no tensor holds
 * it and no graph that was traced before still has to read it.
 */
import type { GpuTensor } from './runtime.ts';

export class DeviceBuffers {
  readonly #held = new Set<GpuTensor>();
  #retired: GpuTensor[] = [];

  /** Buffers that are not disposed of yet. */
  get count(): number {
    return this.#held.size;
  }

  add(tensor: GpuTensor): void {
    this.#held.add(tensor);
  }

  /** No tensor holds it any more. */
  retire(tensor: GpuTensor): void {
    this.#retired.push(tensor);
  }

  /** To be called when every traced graph has run. */
  settle(): void {
    for (const tensor of this.#retired) this.#dispose(tensor);
    this.#retired = [];
  }

  /** Disposes of all, whoever holds them. */
  clear(): void {
    for (const tensor of this.#held) this.#dispose(tensor);
    this.#retired = [];
  }

  #dispose(tensor: GpuTensor): void {
    if (this.#held.delete(tensor)) tensor.dispose();
  }
}
