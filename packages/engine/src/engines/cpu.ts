/** Plain JavaScript: runs everywhere, and is the reference that the other engines are tested against. */
import { type EngineSource, startBackend } from './engine-source.ts';

export const cpu: EngineSource = {
  name: 'cpu',
  async probe({ importModule }) {
    await importModule('@tensorflow/tfjs-backend-cpu');
    const backend = await startBackend('cpu', 'cpu');
    // Its first use would print an advertisement for tfjs-node.
    if ('firstUse' in backend) backend.firstUse = false;
    return {
      state: 'ready',
      backend: 'cpu',
      accelerated: false,
      description: 'plain JavaScript, one thread',
      facts: { node: process.version, threads: 1 },
    };
  },
};
