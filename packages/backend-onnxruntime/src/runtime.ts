/**
 * ONNX Runtime, run synchronously. tf.Tensor.dataSync() needs an answer before it returns, and the public API of
 * onnxruntime-node has only promises around a native call that is synchronous anyway. So this file goes to the native
 * binding itself. That is not public: the version is pinned exactly, checked here, and test/runtime.test.ts runs it.
 */
import { createRequire } from 'node:module';
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import { BackendError } from './errors.ts';
import type { ElementType, HostData, Source } from './graph.ts';

/** The release whose binding was read and measured. */
const ORT_VERSION = '1.30.0';

export type Device = 'cpu' | 'webgpu' | 'cuda';

/** A tensor in a device buffer. It has to be disposed of: garbage collection doesn't free the buffer. */
export type GpuTensor = Tensor;

export interface RuntimeOptions {
  readonly device: Device;
  readonly threads: number;
  readonly spin: boolean;
  readonly arena: boolean;
}

export interface SessionRequest {
  readonly model: Uint8Array;
  /** Whether it is worth more than one thread. */
  readonly parallel: boolean;
  /** Names of the outputs that stay in device buffers. */
  readonly gpuOutputs: readonly string[];
  /** Path prefix of the profile to write, if any. */
  readonly profile?: string;
}

type Feeds = Record<string, Tensor>;

const RUN_OPTIONS = { logSeverityLevel: 4 } as const;

/** A compiled graph. */
export interface Session {
  run(feeds: Readonly<Record<string, Tensor>>, outputs: readonly string[]): Readonly<Record<string, Tensor>>;
  /** Frees its arena and its threads. */
  dispose(): void;
  /** Ends profiling; the file is complete afterwards. */
  endProfiling(): void;
}

/** The parts of the native binding that are used. */
interface NativeSession {
  loadModel(buffer: ArrayBufferLike, offset: number, length: number, options: object): void;
  run(feeds: Feeds, fetches: Record<string, Tensor | null>, options: object): Record<string, Tensor>;
  endProfiling(): void;
  dispose(): void;
}

interface Binding {
  readonly binding: { readonly InferenceSession: new () => NativeSession };
  readonly initOrt: () => void;
}

export class Runtime {
  readonly #options: RuntimeOptions;
  readonly #NativeSession: new () => NativeSession;
  readonly #Tensor: typeof Tensor;

  /** Throws FED_ORT_BINDING when the native library is absent, doesn't fit this machine, or is of another release. */
  constructor(options: RuntimeOptions) {
    this.#options = options;
    const { binding, initOrt, TensorClass } = loadBinding();
    initOrt();
    this.#NativeSession = binding.InferenceSession;
    this.#Tensor = TensorClass;
  }

  /** Compiles a model. Throws FED_ORT_COMPILE, or FED_ORT_DEVICE when the device can't be had. */
  createSession(request: SessionRequest): Session {
    const { device, threads, spin, arena } = this.#options;
    const options: InferenceSession.SessionOptions = {
      executionProviders: device === 'cpu' ? ['cpu'] : [device, 'cpu'],
      executionMode: 'sequential',
      interOpNumThreads: 1,
      intraOpNumThreads: request.parallel ? threads : 1,
      // Measured: without it fewer page faults, less memory, 8 to 15 % faster.
      enableMemPattern: false,
      enableCpuMemArena: arena,
      graphOptimizationLevel: 'all',
      // Failures are thrown; they need not be printed as well.
      logSeverityLevel: 4,
      extra: { session: { intra_op: { allow_spinning: spin ? '1' : '0' } } },
    };
    if (request.gpuOutputs.length > 0) {
      options.preferredOutputLocation = Object.fromEntries(
        request.gpuOutputs.map((name) => [name, 'gpu-buffer'] as const),
      );
    }
    if (request.profile !== undefined) {
      options.enableProfiling = true;
      options.profileFilePrefix = request.profile;
    }
    const native = new this.#NativeSession();
    try {
      native.loadModel(request.model.buffer, request.model.byteOffset, request.model.byteLength, options);
    } catch (cause) {
      throw describeLoadFailure(device, cause);
    }
    return {
      run: (feeds, outputs) => {
        const fetches: Record<string, null> = {};
        for (const name of outputs) fetches[name] = null;
        return native.run(feeds, fetches, RUN_OPTIONS);
      },
      dispose: () => native.dispose(),
      endProfiling: () => native.endProfiling(),
    };
  }

  /** Wraps data for a run; host data is not copied. */
  tensor(source: Source, dtype: ElementType, shape: readonly number[]): Tensor {
    if ('gpu' in source) return source.gpu;
    return new this.#Tensor(dtype as 'float32', source.host as Float32Array, shape);
  }

  /** What a run returned, as a source: a device buffer stays one. */
  sourceOf(tensor: Tensor): Source {
    return tensor.location === 'gpu-buffer' ? { gpu: tensor } : { host: tensor.data as HostData };
  }
}

function loadBinding(): Binding & { readonly TensorClass: typeof Tensor } {
  const require = createRequire(import.meta.url);
  try {
    const { version } = require('onnxruntime-node/package.json') as { version: string };
    if (version !== ORT_VERSION) {
      throw new Error(
        `onnxruntime-node ${version} is installed, and this backend is written for ${ORT_VERSION}`,
      );
    }
    // Else it makes an identifier of this machine, keeps it on disk, and reports models and errors to its makers. It is
    // read once, when the library starts; who sets it to something else means it.
    process.env['ORT_DISABLE_TELEMETRY'] ??= '1';
    const native = require('onnxruntime-node/dist/binding.js') as Binding;
    const { Tensor: TensorClass } = require('onnxruntime-node') as { Tensor: typeof Tensor };
    if (typeof native.initOrt !== 'function' || typeof native.binding.InferenceSession !== 'function') {
      throw new Error('the native binding of onnxruntime-node has another form than expected');
    }
    return { binding: native.binding, initOrt: native.initOrt, TensorClass };
  } catch (cause) {
    throw new BackendError(
      'FED_ORT_BINDING',
      `ONNX Runtime can't be loaded on ${process.platform} ${process.arch}: ${messageOf(cause)}. ` +
        `Install onnxruntime-node ${ORT_VERSION}; it has binaries for linux and win32 (x64, arm64) and darwin (arm64).`,
      { cause },
    );
  }
}

function describeLoadFailure(device: Device, cause: unknown): BackendError {
  const reason = messageOf(cause);
  if (device === 'cuda' && /cuda/i.test(reason)) {
    return new BackendError(
      'FED_ORT_DEVICE',
      `The CUDA execution provider can't be used: ${reason} ` +
        'Run the install script of onnxruntime-node (its package manager may have blocked it) on Linux x64 with CUDA 12 and cuDNN 9, or choose device "cpu" or "webgpu".',
      { cause },
    );
  }
  if (device === 'webgpu' && /webgpu|adapter|dawn|device/i.test(reason)) {
    return new BackendError(
      'FED_ORT_DEVICE',
      `WebGPU can't be used: ${reason} Install a Vulkan driver (Linux), or choose device "cpu".`,
      { cause },
    );
  }
  return new BackendError('FED_ORT_COMPILE', `ONNX Runtime refused the graph: ${reason}`, { cause });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
