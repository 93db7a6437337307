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
  readCheckpoint,
  resolveFederation,
  runPaths,
} from '@tributary/coordinator';
import {
  decodeFrame,
  decodeMessage,
  encodeFrame,
  type Link,
  type Message,
  type Packet,
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

/** Of the model. */
export const PARAMETERS = 3007;

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

/** What was added to each parameter by the rounds up to that one. */
export function changes(run: MaskedFederation, round: number): number[] {
  const { tensors } = readCheckpoint(runPaths(run.runDir).checkpoint(round), artifact.weights);
  const before = artifact.weights.flatMap((t) => [...(t.data as Float32Array)]);
  return tensors.flatMap((t) => [...(t.data as Float32Array)]).map((value, i) => value - before[i]!);
}

export function commitsOf(run: MaskedFederation) {
  return run.log().filter((record) => record.type === 'committed');
}

export interface Tap {
  readonly transport: Transport;
  toCoordinator(): { readonly messages: readonly Message[]; readonly bodies: readonly Buffer[] };
}

/** A transport that notes what arrives at the coordinator; what the coordinator asks waits for `before`. */
export function tapped(inner: Transport, before?: (request: Message) => Promise<void>): Tap {
  const packets: Packet[] = [];
  const note = (link: Link): Link => ({
    ...link,
    async request(packet, options) {
      await before?.(decodeMessage(packet.head));
      const answer = await link.request(packet, options);
      packets.push(answer);
      return answer;
    },
    onRequest: (handler) =>
      link.onRequest((packet) => {
        packets.push(packet);
        return handler(packet);
      }),
  });
  const transport: Transport = {
    ...inner,
    listen: (onLink, ...rest) => inner.listen((link) => onLink(note(link)), ...rest),
  };
  return {
    transport,
    toCoordinator: () => ({
      messages: packets.map(({ head }): Message => decodeMessage(head)),
      bodies: packets.flatMap(({ body }) => (body && body.length > 0 ? [Buffer.from(body)] : [])),
    }),
  };
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
