/**
 * Matrix products with a transposed factor: what the gradient of every dense layer is made of. The backend has SIMD
 * code only for untransposed factors, and goes on to use it for those.
 */
import type { BatchMatMulAttrs, KernelConfig, TensorInfo } from '@tensorflow/tfjs-core';
import { TILE_COLUMNS } from './gemm-module.ts';
import { type Heap, heapOf, type WasmBackend } from './heap.ts';
import { fillOffsets, packColumns, packRows } from './pack.ts';

interface Inputs {
  readonly a: TensorInfo;
  readonly b: TensorInfo;
}

/** Returns BatchMatMul for the wasm backend: ours for transposed factors, `original` for the rest. */
export function matMul(original: KernelConfig): KernelConfig {
  return {
    ...original,
    kernelFunc: (call) => {
      const { a, b } = call.inputs as unknown as Inputs;
      const { transposeA, transposeB } = call.attrs as unknown as BatchMatMulAttrs;
      const ours = (transposeA || transposeB) && a.shape.length === b.shape.length && hasSameBatch(a, b);
      if (!ours || a.dtype !== 'float32' || b.dtype !== 'float32') return original.kernelFunc(call);
      return multiply(a, b, transposeA, transposeB, heapOf(call.backend as WasmBackend));
    },
  };
}

function hasSameBatch(a: TensorInfo, b: TensorInfo): boolean {
  return a.shape.slice(0, -2).every((size, axis) => size === b.shape[axis]);
}

function multiply(
  a: TensorInfo,
  b: TensorInfo,
  transposeA: boolean,
  transposeB: boolean,
  heap: Heap,
): TensorInfo {
  const batchShape = a.shape.slice(0, -2);
  const [aHeight, aWidth] = a.shape.slice(-2) as [number, number];
  const [bHeight, bWidth] = b.shape.slice(-2) as [number, number];
  const [m, k] = transposeA ? [aWidth, aHeight] : [aHeight, aWidth];
  const [kOfB, n] = transposeB ? [bWidth, bHeight] : [bHeight, bWidth];
  if (k !== kOfB)
    throw new RangeError(`matMul: inner sizes differ, ${k} and ${kOfB}, in [${a.shape}] and [${b.shape}]`);
  const out = heap.output([...batchShape, m, n], 'float32');
  const batches = batchShape.reduce((product, size) => product * size, 1);
  if (batches * m * n === 0) return out;
  if (k === 0) {
    const start = heap.addressOf(out) >> 2;
    heap.floats().fill(0, start, start + batches * m * n);
    return out;
  }
  const panels = Math.ceil(n / TILE_COLUMNS);
  const slots = (count: number): number => Math.ceil(count / 4) * 4;
  heap.withScratch(
    [slots(m), slots(k), slots(m), panels * TILE_COLUMNS * k],
    ([aRows, aColumns, cRows, packed]) => {
      fillOffsets(heap, aColumns!, k, 0, transposeA ? aWidth * 4 : 4);
      for (let i = 0; i < batches; i++) {
        const aStart = heap.addressOf(a) + i * m * k * 4;
        const bStart = heap.addressOf(b) + i * k * n * 4;
        const cStart = heap.addressOf(out) + i * m * n * 4;
        fillOffsets(heap, aRows!, m, aStart, transposeA ? 4 : aWidth * 4);
        fillOffsets(heap, cRows!, m, cStart, n * 4);
        let [bAddress, rowBytes, panelBytes] = [packed!, TILE_COLUMNS * 4, TILE_COLUMNS * 4 * k];
        if (transposeB) packColumns(heap, bStart, n, k, packed!);
        else if (n % TILE_COLUMNS !== 0) packRows(heap, bStart, n, k, packed!);
        else [bAddress, rowBytes, panelBytes] = [bStart, n * 4, TILE_COLUMNS * 4];
        heap.gemm(m, n, k, aRows!, aColumns!, bAddress, rowBytes, panelBytes, cRows!, 0, heap.tileScratch);
      }
    },
  );
  return out;
}
