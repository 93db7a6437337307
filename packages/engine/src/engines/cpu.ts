/** Plain JavaScript: runs everywhere, and is the reference that the other engines are tested against. */
import { type EngineSource, startBackend } from './engine-source.ts';

export const cpu: EngineSource = {
  name: 'cpu',
  async probe({ importModule }) {
    await importModule('@tensorflow/tfjs-backend-cpu');
    await startBackend('cpu', 'cpu');
    return {
      state: 'ready',
      backend: 'cpu',
      accelerated: false,
      description: 'plain JavaScript, one thread',
      facts: { node: process.version, threads: 1 },
    };
  },
};
