/**
 * WebGPU through Dawn: any GPU with Vulkan, Metal or Direct3D 12, no CUDA. The two packages are optional peers, since
 * Dawn alone unpacks to 131 MiB. A software adapter (a Vulkan driver that computes on the CPU) is slower than wasm, so
 * it is used only when asked for.
 */
import * as tf from '../tf.ts';
import {
  briefly,
  type EngineSource,
  type ImportModule,
  isMissingModule,
  type Probe,
  startBackend,
} from './engine-source.ts';

const DAWN_PACKAGE = 'webgpu';
const BACKEND_PACKAGE = '@tensorflow/tfjs-backend-webgpu';
const INSTALL = `npm install ${DAWN_PACKAGE} ${BACKEND_PACKAGE}@4.22.0, and a Vulkan, Metal or Direct3D 12 driver`;
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|software|basic render|\bcpu\b/i;

/** What is used of the WebGPU API; its full types belong to browsers. */
interface Gpu {
  requestAdapter(options: object): Promise<Adapter | null>;
}
interface AdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly isFallbackAdapter?: boolean;
}
interface Adapter {
  readonly info: AdapterInfo;
  readonly isFallbackAdapter?: boolean;
  readonly features: { has(name: string): boolean };
  readonly limits: Readonly<Record<string, number>>;
  requestDevice(descriptor: object): Promise<object>;
}
interface DawnModule {
  create(flags: string[]): Gpu;
  readonly globals: object;
}
interface BackendModule {
  readonly WebGPUBackend: new (device: object, info: AdapterInfo) => tf.KernelBackend;
}

/** One Dawn instance a process and module: its devices end when the instance is collected. */
const instances = new Map<object, Gpu>();

export const webgpu: EngineSource = {
  name: 'webgpu',
  async probe({ importModule, allowSoftwareAdapter }) {
    let gpu: Gpu;
    let backendModule: BackendModule;
    try {
      gpu = await openDawn(importModule);
      backendModule = (await importModule(BACKEND_PACKAGE)) as BackendModule;
    } catch (error) {
      for (const name of [DAWN_PACKAGE, BACKEND_PACKAGE]) {
        if (isMissingModule(error, name)) {
          return { state: 'absent', reason: `${name} is not installed`, install: INSTALL };
        }
      }
      return { state: 'failed', reason: `Dawn is installed but did not load: ${briefly(error)}` };
    }
    const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
    if (adapter === null) {
      return {
        state: 'failed',
        reason: 'Dawn found no graphics adapter',
        install: 'a Vulkan (Linux), Metal (macOS) or Direct3D 12 (Windows) driver for your GPU',
      };
    }
    const software = isSoftware(adapter);
    if (software && !allowSoftwareAdapter) {
      return {
        state: 'failed',
        reason: `the only adapter (${nameOf(adapter.info)}) is a software one, which computes on the CPU`,
        install: 'a hardware driver for your GPU',
      };
    }
    return await startDevice(adapter, software, backendModule);
  },
};

async function openDawn(importModule: ImportModule): Promise<Gpu> {
  const module = (await importModule(DAWN_PACKAGE)) as DawnModule;
  const known = instances.get(module);
  if (known !== undefined) return known;
  Object.assign(globalThis, module.globals);
  const gpu = module.create([]);
  const navigator = (globalThis as { navigator?: object }).navigator;
  if (navigator === undefined) {
    Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true, writable: true });
  } else {
    Object.defineProperty(navigator, 'gpu', { value: gpu, configurable: true });
  }
  instances.set(module, gpu);
  return gpu;
}

async function startDevice(adapter: Adapter, software: boolean, module: BackendModule): Promise<Probe> {
  const features = ['timestamp-query', 'shader-f16'].filter((name) => adapter.features.has(name));
  const requiredLimits: Record<string, number> = {};
  for (const name of [
    'maxComputeWorkgroupStorageSize',
    'maxComputeWorkgroupsPerDimension',
    'maxStorageBufferBindingSize',
    'maxBufferSize',
    'maxComputeWorkgroupSizeX',
    'maxComputeInvocationsPerWorkgroup',
  ]) {
    const limit = adapter.limits[name];
    if (limit !== undefined) requiredLimits[name] = limit;
  }
  try {
    const device = await adapter.requestDevice({ requiredFeatures: features, requiredLimits });
    if (tf.findBackendFactory('webgpu') === null) {
      tf.registerBackend('webgpu', () => new module.WebGPUBackend(device, adapter.info));
    }
    await startBackend('webgpu', 'webgpu');
  } catch (error) {
    if (error instanceof Error && error.name === 'EngineError') throw error;
    return { state: 'failed', reason: `${nameOf(adapter.info)} did not start: ${briefly(error)}` };
  }
  return {
    state: 'ready',
    backend: 'webgpu',
    accelerated: !software,
    description: `WebGPU on ${nameOf(adapter.info)}${software ? ' (software adapter)' : ''}`,
    facts: {
      adapter: nameOf(adapter.info),
      software,
      maxBufferBytes: adapter.limits['maxBufferSize'] ?? 0,
    },
  };
}

function isSoftware(adapter: Adapter): boolean {
  const { info } = adapter;
  if (adapter.isFallbackAdapter === true || info.isFallbackAdapter === true) return true;
  return SOFTWARE.test(`${info.vendor} ${info.architecture} ${info.device} ${info.description}`);
}

function nameOf(info: AdapterInfo): string {
  return (
    info.description ||
    [info.vendor, info.architecture, info.device].filter(Boolean).join(' ') ||
    'an unnamed GPU'
  );
}
