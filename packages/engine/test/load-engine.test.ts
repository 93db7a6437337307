import { afterEach, describe, expect, it, vi } from 'vitest';
import { EngineError, type ImportModule, inspectEngines, loadEngine, tf } from '../src/index.ts';

/** What Node throws for a package that isn't installed. */
function missing(specifier: string): Error {
  const error = new Error(`Cannot find package '${specifier}' imported from load-engine.ts`);
  return Object.assign(error, { code: 'ERR_MODULE_NOT_FOUND' });
}

const ONNX_RUNTIME = '@tributary/backend-onnxruntime';
const real: ImportModule = (specifier) => import(specifier);
const OPTIONAL = [
  '@tensorflow/tfjs-node-gpu',
  '@tensorflow/tfjs-node',
  'webgpu',
  '@tensorflow/tfjs-backend-webgpu',
  ONNX_RUNTIME,
];

/** A machine with these packages (by what importing them does); the other optional ones aren't installed. */
function machine(installed: Record<string, () => unknown> = {}): ImportModule {
  return async (specifier) => {
    const load = installed[specifier];
    if (load !== undefined) return load();
    if (OPTIONAL.includes(specifier)) throw missing(specifier);
    return await real(specifier);
  };
}

/** Plays tfjs-node: a real backend of TensorFlow.js under the name that tfjs-node registers. */
function nativeTensorflow(gpu: boolean): () => Promise<object> {
  return async () => {
    const { MathBackendCPU } = (await import('@tensorflow/tfjs-backend-cpu')) as unknown as {
      MathBackendCPU: new () => tf.KernelBackend;
    };
    forgetTensorflow();
    tf.registerBackend('tensorflow', () => Object.assign(new MathBackendCPU(), { isUsingGpuDevice: gpu }));
    return {};
  };
}

/** Plays Dawn on a machine whose only adapter is this one. */
const dawnWith = (adapter: object | null): Record<string, () => unknown> => ({
  webgpu: () => ({ create: () => ({ requestAdapter: async () => adapter }), globals: {} }),
  '@tensorflow/tfjs-backend-webgpu': () => ({}),
});

function forgetTensorflow(): void {
  if (tf.findBackendFactory('tensorflow') != null) tf.removeBackend('tensorflow');
}

afterEach(() => {
  forgetTensorflow();
  Reflect.deleteProperty(globalThis, 'navigator');
});

describe('loadEngine', () => {
  it('auto: takes wasm where nothing optional is installed, and says what to install', async () => {
    const engine = await loadEngine({ importModule: machine() });
    expect(engine.name).toBe('wasm');
    expect(tf.getBackend()).toBe('wasm');
    expect(engine.accelerated).toBe(false);
    expect(engine.reason).toBe(
      `wasm was chosen: ${engine.description}. ` +
        'tensorflow was passed over: neither @tensorflow/tfjs-node-gpu nor @tensorflow/tfjs-node is installed. ' +
        'webgpu was passed over: webgpu is not installed. ' +
        'onnxruntime was passed over: @tributary/backend-onnxruntime or its onnxruntime-node is not installed.',
    );
  });

  it('auto: takes TensorFlow on a CUDA device before all others', async () => {
    const importModule = machine({ '@tensorflow/tfjs-node-gpu': nativeTensorflow(true) });
    const engine = await loadEngine({ importModule });
    expect(engine).toMatchObject({ name: 'tensorflow', accelerated: true });
    expect(engine.reason).toBe(
      'tensorflow was chosen: native TensorFlow (@tensorflow/tfjs-node-gpu) on a CUDA GPU.',
    );
  });

  it('auto: takes native TensorFlow without a GPU only after WebGPU, and before wasm', async () => {
    const importModule = machine({ '@tensorflow/tfjs-node': nativeTensorflow(false) });
    const engine = await loadEngine({ importModule });
    expect(engine).toMatchObject({ name: 'tensorflow', accelerated: false });
    expect(engine.reason).toContain('webgpu was passed over: webgpu is not installed.');
  });

  it('auto: goes on when an installed package does not load, and says why it did not', async () => {
    const importModule = machine({
      '@tensorflow/tfjs-node-gpu': () => {
        throw new Error('libcudart.so.11.0: cannot open shared object file\n    at a stack');
      },
    });
    const engine = await loadEngine({ importModule });
    expect(engine.name).toBe('wasm');
    expect(engine.reason).toContain(
      'tensorflow was passed over: @tensorflow/tfjs-node-gpu is installed but did not load: ' +
        'libcudart.so.11.0: cannot open shared object file.',
    );
  });

  it('auto: falls from a broken GPU package to the CPU package', async () => {
    const importModule = machine({
      '@tensorflow/tfjs-node-gpu': () => {
        throw new Error('no CUDA');
      },
      '@tensorflow/tfjs-node': nativeTensorflow(false),
    });
    expect((await loadEngine({ importModule })).description).toBe(
      'native TensorFlow (@tensorflow/tfjs-node) on the CPU',
    );
  });

  it('a module that a package itself lacks is a failure to load, not an absent package', async () => {
    const importModule = machine({
      '@tensorflow/tfjs-node': () => {
        throw missing('node-pre-gyp');
      },
    });
    await expect(loadEngine({ prefer: 'tensorflow', importModule })).rejects.toThrow(
      /did not load.*node-pre-gyp/,
    );
  });

  it('auto: takes ONNX Runtime before what is slower on the CPU, with the threads that were asked for', async () => {
    const importModule = machine({
      [ONNX_RUNTIME]: () => real(ONNX_RUNTIME),
      '@tensorflow/tfjs-node': nativeTensorflow(false),
    });
    const engine = await loadEngine({ importModule, threads: 1 });
    expect(engine).toMatchObject({ name: 'onnxruntime', accelerated: false });
    expect(engine.description).toBe('ONNX Runtime on the CPU, one thread');
  });

  it('auto: goes on when the native library of ONNX Runtime does not start, and says why', async () => {
    const importModule = machine({
      [ONNX_RUNTIME]: () => {
        throw new Error('libonnxruntime.so.1: cannot open shared object file');
      },
    });
    const engine = await loadEngine({ importModule });
    expect(engine.name).toBe('wasm');
    expect(engine.reason).toContain(
      'onnxruntime was passed over: its native library did not start: ' +
        'libonnxruntime.so.1: cannot open shared object file.',
    );
  });

  it('cpu, wasm and onnxruntime: compute the same sum', async () => {
    for (const prefer of ['cpu', 'wasm', 'onnxruntime'] as const) {
      const engine = await loadEngine({ prefer, importModule: real });
      expect(engine.name).toBe(prefer);
      expect(tf.tidy(() => tf.sum(tf.tensor1d([1, 2, 3])).dataSync()[0])).toBe(6);
    }
  });

  it('prefer: an engine that is not there is an error with the thing to install', async () => {
    const error = await loadEngine({ prefer: 'webgpu', importModule: machine() }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(EngineError);
    expect(error).toMatchObject({ code: 'FED_ENGINE_UNAVAILABLE', engine: 'webgpu' });
    expect(String(error)).toContain('npm install webgpu @tensorflow/tfjs-backend-webgpu@4.22.0');
  });

  it('prefer: an unknown engine is named, with the ones there are', async () => {
    const prefer = 'cuda' as 'cpu';
    await expect(loadEngine({ prefer, importModule: machine() })).rejects.toMatchObject({
      code: 'FED_ENGINE_UNKNOWN',
      message: expect.stringContaining('tensorflow, webgpu, onnxruntime, wasm, cpu'),
    });
  });

  it('refuses a backend that was built on another copy of tfjs-core', async () => {
    const importModule = machine({
      '@tensorflow/tfjs-node': () => {
        // Another copy's KernelBackend is another class, so its instances aren't ours.
        tf.registerBackend('tensorflow', () => ({ dispose() {} }) as unknown as tf.KernelBackend);
        return {};
      },
    });
    await expect(loadEngine({ prefer: 'tensorflow', importModule })).rejects.toMatchObject({
      code: 'FED_ENGINE_DUPLICATE_CORE',
    });
  });
});

describe('webgpu', () => {
  it('no adapter is an error that names the drivers', async () => {
    const importModule = machine(dawnWith(null));
    await expect(loadEngine({ prefer: 'webgpu', importModule })).rejects.toThrow(
      /found no graphics adapter\. To have it: a Vulkan/,
    );
  });

  it('a software adapter is not used unless asked for', async () => {
    const requestDevice = vi.fn(() => Promise.reject(new Error('played device')));
    const adapter = {
      info: { vendor: 'mesa', architecture: '', device: '', description: 'llvmpipe (LLVM 15.0.6)' },
      features: new Set<string>(),
      limits: {},
      requestDevice,
    };
    const importModule = machine(dawnWith(adapter));
    await expect(loadEngine({ prefer: 'webgpu', importModule })).rejects.toThrow(/software one/);
    expect(requestDevice).not.toHaveBeenCalled();
    const asked = loadEngine({ prefer: 'webgpu', allowSoftwareAdapter: true, importModule });
    await expect(asked).rejects.toThrow(/llvmpipe .* did not start: played device/);
    expect(requestDevice).toHaveBeenCalledOnce();
  });
});

describe('inspectEngines', () => {
  it('reports every engine in the order of choice, and leaves the current backend alone', async () => {
    await loadEngine({ prefer: 'cpu', importModule: machine() });
    const reports = await inspectEngines({ importModule: machine() });
    expect(tf.getBackend()).toBe('cpu');
    expect(reports.map(({ name, state, chosen }) => [name, state, chosen])).toEqual([
      ['tensorflow', 'absent', false],
      ['webgpu', 'absent', false],
      ['onnxruntime', 'absent', false],
      ['wasm', 'ready', true],
      ['cpu', 'ready', false],
    ]);
    expect(reports[0]?.install).toContain('npm install @tensorflow/tfjs-node-gpu@4.22.0');
    expect(reports[3]?.facts).toMatchObject({ threads: 1, node: process.version });
  });

  it('takes native TensorFlow on the CPU over wasm in its report too', async () => {
    const importModule = machine({ '@tensorflow/tfjs-node': nativeTensorflow(false) });
    const reports = await inspectEngines({ importModule });
    expect(reports.find(({ chosen }) => chosen)?.name).toBe('tensorflow');
  });
});
