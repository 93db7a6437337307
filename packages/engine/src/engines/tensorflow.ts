/**
 * The native TensorFlow binding: tfjs-node-gpu (CUDA) when it is installed, else tfjs-node. Both are optional peers:
 * their install scripts download libtensorflow, which not every site may do, so Tributary never installs them itself.
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

const GPU_PACKAGE = '@tensorflow/tfjs-node-gpu';
const CPU_PACKAGE = '@tensorflow/tfjs-node';
/** The version whose tfjs-core is ours; another one would bring a second copy. */
const INSTALL = `npm install ${GPU_PACKAGE}@4.22.0 (with CUDA) or ${CPU_PACKAGE}@4.22.0; both download libtensorflow`;

export const tensorflow: EngineSource = {
  name: 'tensorflow',
  async probe({ importModule }) {
    const failures: string[] = [];
    for (const name of [GPU_PACKAGE, CPU_PACKAGE]) {
      const probe = await probePackage(name, importModule);
      if (probe?.state === 'ready') return probe;
      if (probe?.state === 'failed') failures.push(probe.reason);
    }
    if (failures.length > 0) return { state: 'failed', reason: failures.join('; ') };
    return {
      state: 'absent',
      reason: `neither ${GPU_PACKAGE} nor ${CPU_PACKAGE} is installed`,
      install: INSTALL,
    };
  },
};

async function probePackage(name: string, importModule: ImportModule): Promise<Probe | undefined> {
  try {
    await importModule(name);
  } catch (error) {
    if (isMissingModule(error, name)) return undefined;
    return { state: 'failed', reason: `${name} is installed but did not load: ${briefly(error)}` };
  }
  let backend: object;
  try {
    backend = await startBackend('tensorflow', 'tensorflow');
  } catch (error) {
    if (error instanceof Error && error.name === 'EngineError') throw error;
    return { state: 'failed', reason: `${name} loaded but did not start: ${briefly(error)}` };
  }
  const gpu = 'isUsingGpuDevice' in backend && backend.isUsingGpuDevice === true;
  return {
    state: 'ready',
    backend: 'tensorflow',
    accelerated: gpu,
    description: `native TensorFlow (${name}) on ${gpu ? 'a CUDA GPU' : 'the CPU'}`,
    facts: { package: name, gpu, core: tf.version_core },
  };
}
