/**
 * WebAssembly with SIMD (XNNPACK inside). TensorFlow.js starts no threads in Node, so it computes on one; the gradient
 * kernels that its WebAssembly backend lacks, or has only in a slow form, come from ../wasm-kernels.
 */
import * as tf from '../tf.ts';
import { registerWasmKernels } from '../wasm-kernels/register.ts';
import { briefly, type EngineSource, startBackend } from './engine-source.ts';

export const wasm: EngineSource = {
  name: 'wasm',
  async probe({ importModule }) {
    const restoreListeners = rememberListeners();
    try {
      await importModule('@tensorflow/tfjs-backend-wasm');
      await startBackend('wasm', 'wasm');
    } catch (error) {
      return { state: 'failed', reason: `its WebAssembly module did not start: ${briefly(error)}` };
    } finally {
      restoreListeners();
    }
    const simd = Boolean(await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT'));
    const supplied = registerWasmKernels();
    return {
      state: 'ready',
      backend: 'wasm',
      accelerated: false,
      description: `WebAssembly, ${simd ? 'SIMD' : 'no SIMD'}, one thread`,
      facts: { node: process.version, simd, threads: 1, suppliedKernels: supplied.length },
    };
  },
};

/**
 * Returns what takes away listeners for uncaught errors added since. The module's own rethrow such an error from its
 * one line of 60,000 characters, which Node then prints before the message.
 */
function rememberListeners(): () => void {
  const events = ['uncaughtException', 'unhandledRejection'] as const;
  const before = new Set<unknown>(events.flatMap((event) => process.rawListeners(event)));
  return () => {
    for (const event of events) {
      for (const listener of process.rawListeners(event)) {
        if (!before.has(listener)) process.removeListener(event, listener as () => void);
      }
    }
  };
}
