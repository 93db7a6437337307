/** What a process does once that will pass many chunks along. */
import { setFlagsFromString } from 'node:v8';

/**
 * Lets garbage grow to five times the heap before V8 looks for it. Chunks are buffers outside of the heap, which V8
 * counts all the same: beside a heap of 15 MiB, 16 of them are taken for a reason to mark all of it, which took a quarter
 * of the processor's time at 300 MB/s. Tensors lie outside of the heap too, so that the heap of such a process stays small.
 */
export function expectLargeBuffers(): void {
  setFlagsFromString('--heap-growing-percent=400');
}
