/**
 * ONNX Runtime on the CPU: whole training steps as one graph, at native speed, with binaries that come inside an npm
 * package. The backend is ours (../../../backend-onnxruntime) and knows nothing of engines.
 */
import type { BackendOptions, OnnxRuntimeBackend } from '@tributary/backend-onnxruntime';
import { briefly, type EngineSource, isMissingModule, startBackend } from './engine-source.ts';

const PACKAGE = '@tributary/backend-onnxruntime';

export const onnxruntime: EngineSource = {
  name: 'onnxruntime',
  async probe({ importModule, threads }) {
    const options: BackendOptions = threads === undefined ? {} : { threads };
    try {
      const { registerOnnxRuntime } = (await importModule(PACKAGE)) as {
        registerOnnxRuntime: (options: BackendOptions) => void;
      };
      registerOnnxRuntime(options);
      const backend = (await startBackend('onnxruntime', 'onnxruntime')) as OnnxRuntimeBackend;
      const used = backend.options.threads;
      return {
        state: 'ready',
        backend: 'onnxruntime',
        accelerated: false,
        description: `ONNX Runtime on the CPU, ${used === 1 ? 'one thread' : `${used} threads`}`,
        facts: { node: process.version, threads: used },
      };
    } catch (error) {
      if (error instanceof Error && error.name === 'EngineError') throw error;
      if (isMissingModule(error, PACKAGE) || isMissingModule(error, 'onnxruntime-node')) {
        return {
          state: 'absent',
          reason: `${PACKAGE} or its onnxruntime-node is not installed`,
          install: `npm install ${PACKAGE}`,
        };
      }
      return { state: 'failed', reason: `its native library did not start: ${briefly(error)}` };
    }
  },
};
