/** Federations under secure aggregation: a real coordinator and real site agents; what they train is known beforehand. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Coordinator,
  createCoordinator,
  type FederationConfig,
  type LogRecord,
  type ModelArtifact,
  resolveFederation,
  runPaths,
} from '@tributary/coordinator';
import {
  decodeFrame,
  encodeFrame,
  type RunEvent,
  type Tensor,
  type Transport,
} from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { joinFederation, type StartTrainer, type WorkerEvent, type WorkerSummary } from '@tributary/worker';
import sharp from 'sharp';
import { onTestFinished } from 'vitest';

/** One white pixel. */
const PICTURE = await sharp({ create: { width: 1, height: 1, channels: 3, background: 'white' } })
  .png()
  .toBuffer();

export const artifact: ModelArtifact = {
  name: 'tiny',
  topology: '{"class_name":"Sequential"}',
  weights: [
    tensor(
      'dense/kernel',
      Float32Array.from({ length: 3000 }, (_, i) => i / 3000),
      [30, 100],
    ),
    tensor('dense/bias', new Float32Array(7), [7]),
  ],
  frozenWeights: [],
};

export interface MaskedFederation {
  readonly coordinator: Coordinator;
  readonly events: RunEvent[];
  readonly runDir: string;
  readonly transport: Transport;
  log(): LogRecord[];
  join(name: string, options?: SiteOptions): Site;
}

export interface SiteOptions {
  /** What it adds to each parameter of the model; by round, too. */
  readonly update?: (index: number, round: number) => number;
  readonly numExamples?: number;
  /** Awaited before a round's training is over. */
  readonly onTrain?: (round: number) => Promise<void>;
  readonly policy?: string;
  readonly stateDir?: string;
  readonly transport?: Transport;
}

export interface Site {
  readonly name: string;
  readonly events: WorkerEvent[];
  readonly stateDir: string;
  readonly summary: Promise<WorkerSummary>;
  stop(): Promise<void>;
}

export function temporaryDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'masked-'));
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** In this process; whoever dials reaches the listener that came last, as at one address. */
export function memoryTransport(): Transport {
  const inner = createMemoryTransport();
  let latest = '';
  return {
    ...inner,
    async listen(onLink) {
      const listener = await inner.listen(onLink);
      latest = listener.url;
      return listener;
    },
    connect: (_url, options) => inner.connect(latest, options),
  };
}

export async function startMasked(
  config: Partial<FederationConfig> = {},
  { transport = memoryTransport(), runDir = temporaryDir() } = {},
): Promise<MaskedFederation> {
  const events: RunEvent[] = [];
  const federation = resolveFederation(
    {
      name: 'masked',
      model: 'tiny',
      classes: ['a', 'b'],
      rounds: 2,
      privacy: { secureAggregation: true },
      deadlines: { rejoinSeconds: 5, roundSeconds: 20, quorumSeconds: 20, heartbeatSeconds: 20 },
      ...config,
    },
    artifact,
  );
  const coordinator = await createCoordinator({
    federation,
    artifact,
    transport,
    runDir,
    onEvent: (event) => events.push(event),
  });
  onTestFinished(() => coordinator.close());
  return {
    coordinator,
    events,
    runDir,
    transport,
    log: () =>
      readFileSync(runPaths(runDir).log, 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as LogRecord),
    join(name, options = {}) {
      return startSite(coordinator, name, { transport, ...options });
    },
  };
}

function startSite(
  coordinator: Coordinator,
  name: string,
  options: SiteOptions & { readonly transport: Transport },
): Site {
  const { stateDir = join(temporaryDir(), 'state'), policy } = options;
  const dataDir = temporaryDir();
  for (const label of ['a', 'b']) {
    mkdirSync(join(dataDir, label));
    writeFileSync(join(dataDir, label, '1.png'), PICTURE);
  }
  const stop = new AbortController();
  const events: WorkerEvent[] = [];
  const summary = (async () => {
    const policyFile = join(dataDir, 'site-policy.yaml');
    if (policy !== undefined) await writeFile(policyFile, policy);
    return joinFederation({
      invite: coordinator.invite(),
      name,
      dataDir,
      stateDir,
      transport: options.transport,
      startTrainer: adds(options),
      signal: stop.signal,
      backoff: { baseMs: 20, capMs: 50 },
      onEvent: (event) => events.push(event),
    });
  })();
  summary.catch(() => undefined);
  const ended = async () => {
    stop.abort(new Error('the test is over'));
    await summary.catch(() => undefined);
  };
  onTestFinished(ended);
  return { name, events, stateDir, summary, stop: ended };
}

/** A trainer that adds known numbers to the model. */
function adds({ update = () => 0.01, numExamples = 10, onTrain }: SiteOptions): StartTrainer {
  return async () => ({
    site: {
      trainExamples: numExamples,
      testExamples: 0,
      trainExamplesByClass: [],
      unreadable: 0,
      engine: 'fake',
    },
    engineReason: 'a test said so',
    async train({ round, globalFile, outFile }, { signal } = {}) {
      const { tensors } = decodeFrame(await readFile(globalFile));
      let at = 0;
      const changed = tensors.map((t) => ({
        ...t,
        data: (t.data as Float32Array).map(() => update(at++, round)),
      }));
      const stopped = new Promise<never>((_, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
      await Promise.race([onTrain?.(round), stopped]);
      await writeFile(outFile, encodeFrame(changed, { round }));
      return { numExamples, metrics: { loss: 0.5 } };
    },
    evaluate: async () => ({ numExamples: 0, metrics: {} }),
    exited: new Promise(() => undefined),
    close: async () => undefined,
  });
}

function tensor(name: string, data: Float32Array, shape: readonly number[]): Tensor {
  return { name, dtype: 'float32', shape, data };
}
