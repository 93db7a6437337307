/**
 * Makes the backend known to TensorFlow.js, with a kernel for every one that `cpu` has: those of the table, those that
 * only rename data, and JavaScript for the rest.
 */
import '@tensorflow/tfjs-backend-cpu';
import {
  type DataType,
  engine,
  getKernel,
  getKernelsForBackend,
  type KernelFunc,
  type NamedTensorInfoMap,
  registerBackend,
  registerKernel,
  removeBackend,
  type TensorInfo,
  util,
} from '@tensorflow/tfjs-core';
import { OnnxRuntimeBackend } from './backend.ts';
import { kernelTable } from './kernels/table.ts';
import type { BackendOptions } from './options.ts';

/** Above tfjs's own backends: who imports this package wants it. */
const PRIORITY = 4;

type Call = (
  backend: OnnxRuntimeBackend,
  inputs: NamedTensorInfoMap,
  attrs: Readonly<Record<string, unknown>>,
) => TensorInfo | undefined;

/** Kernels that give the same data another shape, type or name. `undefined` leaves the call to the table. */
const renaming: Readonly<Record<string, Call>> = {
  Identity: (backend, { x }) => backend.alias(x!, x!.shape),
  Reshape: (backend, { x }, { shape }) => {
    const size = util.sizeFromShape(x!.shape);
    const inferred = util.inferFromImplicitShape(shape as number[], size);
    util.assert(
      size === util.sizeFromShape(inferred),
      () => `The new shape [${inferred}] and the old shape [${x!.shape}] have different numbers of elements.`,
    );
    return backend.alias(x!, inferred);
  },
  ExpandDims: (backend, { input }, { dim }) => {
    const shape = [...input!.shape];
    const at = dim as number;
    const rank = shape.length;
    util.assert(
      at >= -(rank + 1) && at <= rank,
      () => `Axis must be in the interval [${-(rank + 1)}, ${rank}], not ${at}.`,
    );
    shape.splice(at < 0 ? at + shape.length + 1 : at, 0, 1);
    return backend.alias(input!, shape);
  },
  Cast: (backend, { x }, { dtype }) =>
    x!.dtype === (dtype as DataType) ? backend.alias(x!, x!.shape) : undefined,
  Complex: (backend, { real, imag }) => backend.makeComplex(real!, imag!),
  Real: (backend, { input }) => (input!.dtype === 'complex64' ? backend.partOf(input!, 0) : undefined),
  Imag: (backend, { input }) => (input!.dtype === 'complex64' ? backend.partOf(input!, 1) : undefined),
};

/**
 * Registers the backend under `name`, replacing one that was registered before, and returns nothing: it is made when
 * `tf.setBackend(name)` asks for it, which throws when ONNX Runtime can't be loaded here.
 */
export function registerOnnxRuntime(options: BackendOptions = {}, name = 'onnxruntime'): void {
  if (engine().findBackendFactory(name) != null) removeBackend(name);
  registerBackend(name, () => new OnnxRuntimeBackend(options), PRIORITY);
  for (const { kernelName } of getKernelsForBackend('cpu')) {
    if (getKernel(kernelName, name) != null) continue;
    registerKernel({ kernelName, backendName: name, kernelFunc: kernelFunction(kernelName) });
  }
}

function kernelFunction(kernelName: string): KernelFunc {
  const rename = renaming[kernelName];
  const lowering = kernelTable[kernelName];
  return ({ inputs, attrs, backend }) => {
    const onnx = backend as OnnxRuntimeBackend;
    return rename?.(onnx, inputs, attrs ?? {}) ?? onnx.runKernel(kernelName, lowering, inputs, attrs);
  };
}
