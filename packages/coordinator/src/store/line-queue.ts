/** Lines on their way into the store: in order, one at a time, so that none is there without those before it. */
export interface LineQueue {
  add(line: Uint8Array): void;
  readonly busy: boolean;
  /** Resolves once all that was added is written; rejects with what broke it off. */
  settled(): Promise<void>;
}

/** `write` is called for one line after the other; what it rejects with is the end of the queue, told to `onBroken`. */
export function createLineQueue(
  write: (line: Uint8Array) => Promise<void>,
  onBroken: (error: unknown) => void,
): LineQueue {
  const waiting: Uint8Array[] = [];
  let work: Promise<void> | undefined;

  async function writeAll(): Promise<void> {
    for (let line = waiting[0]; line !== undefined; line = waiting[0]) {
      await write(line);
      waiting.shift();
    }
    work = undefined;
  }

  return {
    add(line) {
      waiting.push(line);
      if (work !== undefined) return;
      work = writeAll();
      work.catch(onBroken);
    },
    get busy() {
      return waiting.length > 0;
    },
    settled: () => work ?? Promise.resolve(),
  };
}
