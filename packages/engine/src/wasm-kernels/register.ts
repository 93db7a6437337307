/**
 * Puts our kernels into TensorFlow.js's registry for the wasm backend: those that it lacks, faster ones for those that
 * it has in a form without SIMD, and right ones for those whose results are wrong.
 */
import { getKernel, type KernelConfig, registerKernel, unregisterKernel } from '@tensorflow/tfjs-core';
import { conv2dBackpropFilter } from './conv2d-backprop-filter.ts';
import { conv2dBackpropInput } from './conv2d-backprop-input.ts';
import { conv3dBackpropFilter, conv3dBackpropInput } from './conv3d.ts';
import { depthwiseBackpropFilter, depthwiseBackpropInput } from './depthwise.ts';
import { matMul } from './mat-mul.ts';
import { maxPoolGrad } from './max-pool-grad.ts';
import { unsortedSegmentSum } from './unsorted-segment-sum.ts';

let registered: readonly string[] | undefined;

/** Registers the kernels once a process and returns their names. The wasm backend has to be initialised. */
export function registerWasmKernels(): readonly string[] {
  if (registered !== undefined) return registered;
  const original = getKernel('BatchMatMul', 'wasm');
  const kernels = [
    conv2dBackpropFilter,
    conv2dBackpropInput,
    depthwiseBackpropFilter,
    depthwiseBackpropInput,
    unsortedSegmentSum,
    maxPoolGrad,
    conv3dBackpropFilter,
    conv3dBackpropInput,
    ...(original === undefined ? [] : [matMul(original)]),
  ];
  for (const kernel of kernels) replaceKernel(kernel);
  registered = kernels.map((kernel) => kernel.kernelName);
  return registered;
}

function replaceKernel(kernel: KernelConfig): void {
  if (getKernel(kernel.kernelName, 'wasm') !== undefined) unregisterKernel(kernel.kernelName, 'wasm');
  registerKernel(kernel);
}
