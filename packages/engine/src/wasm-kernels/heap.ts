/**
 * The memory of TensorFlow.js's WebAssembly backend, as our kernels see it: tensors by address, and scratch space
 * that is freed with the call. Any allocation may move the heap to a larger buffer, so views are asked for, not kept.
 */
import type { KernelConfig, TensorInfo } from '@tensorflow/tfjs-core';
import { type GemmExports, instantiateGemm, TILE_BYTES } from './gemm-module.ts';
import type { WasmMemory } from './web-assembly.ts';

/** The parts of `BackendWasm` that are used; its own types don't name the emscripten fields. */
export interface WasmBackend {
  readonly wasm: {
    readonly HEAPF32: Float32Array;
    readonly HEAP32: Int32Array;
    readonly asm: { readonly memory: WasmMemory };
    _malloc(bytes: number): number;
    _free(address: number): void;
  };
  readonly dataIdMap: { get(dataId: object): { readonly memoryOffset: number } };
  makeOutput(shape: readonly number[], dtype: string): TensorInfo;
}

export interface Heap {
  readonly gemm: GemmExports['gemm'];
  /** An address for one tile, kept for the life of the backend. */
  readonly tileScratch: number;
  floats(): Float32Array;
  ints(): Int32Array;
  /** Byte address of a tensor's first element. */
  addressOf(tensor: TensorInfo): number;
  /** A new tensor; its memory is not cleared. */
  output(shape: readonly number[], dtype: string): TensorInfo;
  /** Runs `body` with room for these numbers of 32-bit elements, by address, freed afterwards. */
  withScratch<T>(lengths: readonly number[], body: (addresses: number[]) => T): T;
}

const heaps = new WeakMap<WasmBackend, Heap>();

/** Returns the heap of `backend`; the same object each time. */
export function heapOf(backend: WasmBackend): Heap {
  let heap = heaps.get(backend);
  if (heap === undefined) {
    heap = openHeap(backend);
    heaps.set(backend, heap);
  }
  return heap;
}

/** Returns a kernel for the wasm backend whose body gets the heap beside its inputs and attributes. */
export function wasmKernel<Inputs, Attributes>(
  kernelName: string,
  compute: (inputs: Inputs, attributes: Attributes, heap: Heap) => TensorInfo,
): KernelConfig {
  return {
    kernelName,
    backendName: 'wasm',
    kernelFunc: ({ inputs, attrs, backend }) =>
      compute(inputs as Inputs, attrs as Attributes, heapOf(backend as WasmBackend)),
  };
}

function openHeap(backend: WasmBackend): Heap {
  const { wasm } = backend;
  const allocate = (bytes: number): number => {
    const address = wasm._malloc(bytes);
    if (address === 0)
      throw new RangeError(`WebAssembly has no ${bytes} bytes left for a gradient; use a smaller batch`);
    return address;
  };
  return {
    gemm: instantiateGemm(wasm.asm.memory),
    tileScratch: allocate(TILE_BYTES),
    floats: () => wasm.HEAPF32,
    ints: () => wasm.HEAP32,
    addressOf: (tensor) => backend.dataIdMap.get(tensor.dataId).memoryOffset,
    output: (shape, dtype) => backend.makeOutput(shape, dtype),
    withScratch(lengths, body) {
      const addresses: number[] = [];
      try {
        for (const length of lengths) addresses.push(allocate(Math.max(1, length) * 4));
        return body(addresses);
      } finally {
        for (const address of addresses) wasm._free(address);
      }
    },
  };
}
