/** What kernels know of values that wait for a flush, for later kernels: whatever view these see, it is of the whole. */
import type { Value } from '../graph.ts';
import { unviewed } from '../ops.ts';

export class Notes<Note> {
  readonly #notes = new WeakMap<Value, Note>();

  set(x: Value, note: Note): void {
    this.#notes.set(unviewed(x), note);
  }

  /** Nothing is known of data: to make it anew would compute it a second time. */
  get(x: Value): Note | undefined {
    const whole = unviewed(x);
    return whole.pending ? this.#notes.get(whole) : undefined;
  }
}
