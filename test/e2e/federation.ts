/** The tiny federation of the end-to-end and chaos tests: its configuration, its model and its sites' pictures. */
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { FederationConfig } from '@tributary/coordinator';
import { loadEngine } from '@tributary/engine';
import { modelArtifact } from '@tributary/models';
import { createCertificate, encodeFrame } from '@tributary/shared-protocol';
import type { CoordinatorSetup } from './coordinator-process.ts';
import { SHAPES, SIDE, writeShapes } from './shapes.ts';

/** Images of each shape to train on, site by site: uneven, and not alike. */
export const SITES = {
  harbour: { bar: 24, cross: 6, ring: 10 },
  island: { bar: 5, cross: 20, ring: 9 },
  meadow: { bar: 8, cross: 8, ring: 22 },
} as const;
export type SiteName = keyof typeof SITES;

export function shapesConfig(overrides: Partial<FederationConfig> = {}): FederationConfig {
  return {
    name: 'shapes',
    seed: 11,
    model: 'tiny',
    classes: [...SHAPES],
    input: { height: SIDE, width: SIDE, channels: 3 },
    augmentation: { rescale: 1 / 255, horizontalFlip: true, widthShiftRange: 0.1 },
    training: {
      optimizer: { name: 'adam', learningRate: 0.01 },
      loss: 'categoricalCrossentropy',
      metrics: ['accuracy'],
      batchSize: 8,
      epochs: 2,
    },
    rounds: 3,
    cohort: { size: 'all', quorum: Object.keys(SITES).length },
    deadlines: {
      heartbeatSeconds: 1,
      roundSeconds: 60,
      evaluateSeconds: 60,
      quorumSeconds: 60,
      rejoinSeconds: 30,
    },
    ...overrides,
  };
}

/** Writes model, pictures and certificate under `root`, once for many runs; returns what every coordinator needs. */
export async function writeFederation(
  root: string,
  { config = shapesConfig(), tls = true } = {},
): Promise<Omit<CoordinatorSetup, 'runDir' | 'port'>> {
  for (const [i, [site, train]] of Object.entries(SITES).entries()) {
    await writeShapes(join(root, 'data', site), { seed: i + 1, train, test: 4 });
  }
  const { tf } = await loadEngine({ prefer: 'cpu' });
  const model = tf.sequential({
    layers: [
      tf.layers.flatten({ inputShape: [SIDE, SIDE, 3] }),
      tf.layers.dense({
        units: 16,
        activation: 'relu',
        kernelInitializer: tf.initializers.glorotUniform({ seed: 1 }),
      }),
      tf.layers.dense({
        units: SHAPES.length,
        activation: 'softmax',
        kernelInitializer: tf.initializers.glorotUniform({ seed: 2 }),
      }),
    ],
  });
  const { topology, weights } = await modelArtifact(model);
  model.dispose();
  const [topologyFile, weightsFile] = [join(root, 'topology.json'), join(root, 'weights.frame')];
  await mkdir(root, { recursive: true });
  await writeFile(topologyFile, topology);
  await writeFile(weightsFile, encodeFrame(weights));
  return { config, topologyFile, weightsFile, tls: tls ? await createCertificate(['127.0.0.1']) : false };
}

/** A port that is free now: a coordinator that is started again must listen where it did before. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
