/**
 * Kernels that are not written in ONNX (strings, complex numbers, data-dependent shapes, rare types) run in JavaScript,
 * by the kernels of the `cpu` backend on an instance of it that nobody else sees.
 */
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import {
  type BackendValues,
  type DataType,
  getKernel,
  type NamedAttrMap,
  type NamedTensorInfoMap,
  type TensorInfo,
} from '@tensorflow/tfjs-core';

/** A tensor on its way between the two backends; a complex one as its real and imaginary part. */
export interface HostTensor {
  readonly shape: number[];
  readonly dtype: DataType;
  readonly values: BackendValues | { readonly real: Float32Array; readonly imag: Float32Array };
}

/** By name, or in order where a kernel takes any number. */
type HostInputs = Readonly<Record<string, HostTensor | readonly HostTensor[]>> | readonly HostTensor[];

export class CpuKernels {
  readonly #backend = new MathBackendCPU();
  readonly #calls = new Map<string, number>();
  readonly #warn: ((message: string) => void) | undefined;

  constructor(warn: ((message: string) => void) | undefined) {
    this.#warn = warn;
    // Its advice, to install a faster backend, was followed.
    (this.#backend as unknown as { firstUse: boolean }).firstUse = false;
  }

  /** How often each kernel ran here. */
  get calls(): ReadonlyMap<string, number> {
    return this.#calls;
  }

  /** Counts a call, and says once for each kernel that it is slow and why, unless the reason is nobody's business. */
  note(kernel: string, reason: string | undefined): void {
    const calls = this.#calls.get(kernel) ?? 0;
    this.#calls.set(kernel, calls + 1);
    if (calls > 0 || reason === undefined) return;
    this.#warn?.(
      `onnxruntime backend: ${kernel} runs in JavaScript (${reason}). It is slow and cuts the step in two.`,
    );
  }

  run(kernel: string, inputs: HostInputs, attrs: NamedAttrMap | undefined): HostTensor | HostTensor[] {
    const config = getKernel(kernel, 'cpu');
    if (config === undefined || config === null) throw new TypeError(`There is no kernel "${kernel}".`);
    const owned: TensorInfo[] = [];
    const upload = (tensor: HostTensor): TensorInfo => {
      const info = this.#upload(tensor);
      owned.push(info);
      return info;
    };
    const infos = isList(inputs)
      ? inputs.map(upload)
      : Object.fromEntries(
          Object.entries(inputs).map(([name, value]) => [
            name,
            isList(value) ? value.map(upload) : upload(value),
          ]),
        );
    const args = {
      inputs: infos as unknown as NamedTensorInfoMap,
      backend: this.#backend,
      attrs: attrs ?? {},
    };
    const result = config.kernelFunc(args);
    const download = (info: TensorInfo): HostTensor => {
      owned.push(info);
      return this.#download(info);
    };
    const downloaded = Array.isArray(result) ? result.map(download) : download(result);
    for (const { dataId } of owned) if (this.#backend.data.has(dataId)) this.#backend.disposeData(dataId);
    return downloaded;
  }

  dispose(): void {
    this.#backend.dispose();
  }

  #upload({ shape, dtype, values }: HostTensor): TensorInfo {
    if ('real' in values) {
      const part = (data: Float32Array) => this.#backend.makeTensorInfo(shape, 'float32', data);
      const info = this.#backend.makeTensorInfo(shape, 'complex64');
      const parts = { real: part(values.real), imag: part(values.imag) };
      this.#backend.data.get(info.dataId).complexTensorInfos = parts;
      return info;
    }
    // Some kernels of `cpu` read a rank, as if they got tensors.
    const info = { shape, dtype, rank: shape.length, dataId: this.#backend.write(values, shape, dtype) };
    return info;
  }

  #download({ dataId, shape, dtype }: TensorInfo): HostTensor {
    const { complexTensorInfos: parts, values } = this.#backend.data.get(dataId);
    if (parts == null) return { shape, dtype, values: values as BackendValues };
    const read = (info: TensorInfo) => this.#backend.readSync(info.dataId) as Float32Array;
    return { shape, dtype, values: { real: read(parts.real), imag: read(parts.imag) } };
  }
}

function isList(value: unknown): value is readonly HostTensor[] {
  return Array.isArray(value);
}
