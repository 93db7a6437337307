/**
 * What many runs share: the bundled programs, the sites' pictures, and each federation's model and certificate,
 * written once.
 */
import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { FederationConfig } from '@tributary/coordinator';
import { createCertificate, encodeFrame, type Tensor } from '@tributary/shared-protocol';
import { bundlePrograms } from '@tributary/testkit/bundle';
import type { CoordinatorSetup } from '../../e2e/coordinator-process.ts';
import { shapesConfig, writeFederation } from '../../e2e/federation.ts';
import { writeShapes } from '../../e2e/shapes.ts';
import type { DiskKind } from './disk.ts';
import { type FederationPlan, SITE_NAMES } from './plan.ts';

export type SharedSetup = Omit<CoordinatorSetup, 'runDir' | 'port'>;

export interface Stage {
  readonly root: string;
  readonly diskKind: DiskKind;
  program(name: 'coordinator-process' | 'worker-process'): URL;
  dataDir(site: string): string;
  /** What every coordinator of this federation is given, written once. */
  federation(plan: FederationPlan): Promise<SharedSetup>;
  close(): Promise<void>;
}

export interface StageOptions {
  readonly root: string;
  readonly diskKind: DiskKind;
}

/** Prepares `root`, which the caller removes. */
export async function openStage({ root, diskKind }: StageOptions): Promise<Stage> {
  const programs = await bundlePrograms(
    ['coordinator-process', 'worker-process'].map((name) => new URL(`../../e2e/${name}.ts`, import.meta.url)),
    // Where the one module that stays outside is found.
    new URL('../../../packages/worker/node_modules/', import.meta.url),
    ['sharp'],
  );
  const dataDir = (site: string) => join(root, 'data', site);
  for (const [i, site] of SITE_NAMES.entries()) {
    await writeShapes(dataDir(site), { seed: i + 1, train: { bar: 8, cross: 6, ring: 10 - i }, test: 3 });
  }
  const tls = await createCertificate(['127.0.0.1']);
  const federations = new Map<string, Promise<SharedSetup>>();
  const shapes = join(root, 'shapes');

  async function write(plan: FederationPlan): Promise<SharedSetup> {
    const config = configOf(plan);
    if (plan.realTrainer) return { ...(await writeFederation(shapes, { config })), tls };
    const folder = join(root, `federation-${keyOf(plan)}`);
    await mkdir(folder, { recursive: true });
    const [topologyFile, weightsFile] = [join(folder, 'topology.json'), join(folder, 'weights.frame')];
    await writeFile(topologyFile, '{}');
    await writeFile(weightsFile, encodeFrame(weightsOf(plan)));
    return { config, topologyFile, weightsFile, tls };
  }

  return {
    root,
    diskKind,
    program: (name) => programs.program(name),
    dataDir,
    federation(plan) {
      const known = federations.get(keyOf(plan)) ?? write(plan);
      federations.set(keyOf(plan), known);
      return known;
    },
    close: () => rm(programs.folder, { recursive: true, force: true }),
  };
}

/** A federation that masks is played without masks once, for what its weights must be. */
function keyOf({ id, masked }: FederationPlan): string {
  return masked ? `${id}-masked` : `${id}`;
}

/** Everyone has to take part in every round, and has time enough to: so the weights can be foretold. */
function configOf({ sites, rounds, strategy, id, masked, watched }: FederationPlan): FederationConfig {
  return shapesConfig({
    name: `chaos-${Math.abs(id)}`,
    rounds,
    cohort: { size: 'all', quorum: sites.length },
    strategy: { name: strategy },
    // The model that it would have to fetch once more says nothing about the update.
    ...(watched === undefined ? {} : { evaluation: { sites: false } }),
    // No site has more examples than that, so a unit of weight is one, and nothing but values is rounded.
    ...(masked ? { privacy: { secureAggregation: { maxExamples: 1000 } } } : {}),
    deadlines: {
      heartbeatSeconds: watched?.heartbeatSeconds ?? 1,
      // Longer than a run may take: one that waits for a deadline has lost something, and counts as hanging.
      roundSeconds: 300,
      evaluateSeconds: 300,
      quorumSeconds: 300,
      rejoinSeconds: 300,
    },
  });
}

/** Three tensors, the first with most of the bytes; their values are drawn from the federation's number. */
function weightsOf({ id, modelBytes }: FederationPlan): Tensor[] {
  const count = Math.ceil(modelBytes / 4);
  const noise = createHash('sha256').update(`weights ${id}`).digest();
  return [count - 300, 256, 44].map((length, t) => ({
    name: `layer_${t}/kernel`,
    dtype: 'float32' as const,
    shape: [length],
    data: Float32Array.from({ length }, (_, i) => (noise[(i + t) % 32]! - 128) / 256 + (i % 97) / 1024),
  }));
}

let lastPort = 20_000 + Math.floor(Math.random() * 8000);

/**
 * A port below those that the system gives to outgoing connections: nobody takes it while its server is being
 * started again.
 */
export async function steadyPort(): Promise<number> {
  for (;;) {
    lastPort = lastPort >= 29_999 ? 20_000 : lastPort + 1;
    // Of its own: another run may have gone on to the next by the time that this one is known to be free.
    const port = lastPort;
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
