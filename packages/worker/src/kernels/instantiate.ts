/** Our own WebAssembly: one instance of each kernel a thread, made when it is first needed. */

/** Not in the type library of Node without the browser's. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: unknown };
};

export interface Memory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

const PAGE = 2 ** 16;

/**
 * Returns a function that returns the kernel's exports, or undefined where it can't run (a processor without SIMD).
 * @param code base64
 */
export function kernel<Exports extends { readonly memory: Memory }>(code: string): () => Exports | undefined {
  let found: { exports: Exports | undefined } | undefined;
  return () => {
    if (found === undefined) {
      try {
        const module = new WebAssembly.Module(Buffer.from(code, 'base64'));
        found = { exports: new WebAssembly.Instance(module).exports as Exports };
      } catch {
        found = { exports: undefined };
      }
    }
    return found.exports;
  };
}

/** Makes the memory at least `bytes` long. Views of the buffer that were taken before are then empty. */
export function reserve(memory: Memory, bytes: number): void {
  const missing = bytes - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
}
