/** One valid message of every type, for tests and golden vectors. */
import type { FederationView, Message } from '@tributary/shared-protocol';
import { augmentationSchema, inputSchema, trainingSchema } from '@tributary/shared-protocol';

const A = 'a'.repeat(64);
const B = 'b'.repeat(64);
const blob = { digest: A, bytes: 40_000_392, chunkBytes: 1_048_576 };

export const FEDERATION: FederationView = {
  name: 'digits',
  runId: 'digits-2026-01',
  configDigest: B,
  seed: 4_294_967_295,
  rounds: 5,
  classes: ['null', 'eins', '二'],
  input: inputSchema.parse({ height: 28, width: 28, channels: 1 }),
  augmentation: augmentationSchema.parse({ rotationRange: 10, rescale: 1 / 255 }),
  training: trainingSchema.parse({
    optimizer: { name: 'adam', learningRate: 0.001 },
    loss: 'categoricalCrossentropy',
    epochs: 1,
  }),
  maxUnreadableShare: 0.05,
  topology: '{"class_name":"Sequential"}',
  frozenWeights: [],
};

const SITE = {
  trainExamples: 600,
  testExamples: 100,
  trainExamplesByClass: [300, 200, 100],
  unreadable: 1,
  engine: 'wasm',
};

export const MESSAGES: readonly Message[] = [
  {
    type: 'hello',
    protocol: { major: 1, minor: 0 },
    software: 'tributary/0.1.0',
    role: 'worker',
    name: 'north',
    secret: 'c2VjcmV0',
    clockMs: 1_767_225_600_000,
  },
  {
    type: 'welcome',
    protocol: { major: 1, minor: 0 },
    clientId: 'c-1',
    credential: 'Y3JlZGVudGlhbA',
    clockMs: 1_767_225_600_123.5,
    heartbeatMs: 5000,
    federation: FEDERATION,
  },
  { type: 'ready', site: SITE },
  { type: 'heartbeat', state: 'training', round: 2, progress: 0.25 },
  {
    type: 'plan',
    task: 'train',
    round: 2,
    model: blob,
    learningRate: 0.001,
    deadlineMs: null,
    cohortSize: 7,
    minUpdates: 5,
  },
  { type: 'chunk', digest: A, index: 38 },
  { type: 'chunk-data', digest: A, index: 38 },
  {
    type: 'offer',
    round: 2,
    base: A,
    numExamples: 600,
    metrics: { loss: 0.5, accuracy: 0.875 },
    update: { ...blob, digest: B },
  },
  { type: 'receipt', decision: 'refused', code: 'FED_ROUND_STALE', reason: 'round 2 is committed' },
  { type: 'verdict', round: 2, update: B, accepted: true },
  { type: 'evaluation', round: 2, model: A, numExamples: 100, metrics: { loss: 0.25 } },
  { type: 'failure', task: 'train', round: 2, code: 'FED_TRAINER_CRASHED', reason: 'out of memory' },
  { type: 'goodbye', code: 'FED_RUN_FINISHED', reason: 'all rounds are done' },
  { type: 'leave', reason: 'stopped by its operator' },
  { type: 'get-status' },
  { type: 'status', status: { state: 'training', round: 2, clients: [{ name: 'north', connected: true }] } },
  { type: 'invite', uses: 1, expiresMs: 3_600_000 },
  { type: 'invited', invite: 'trib1.abc' },
  { type: 'stop', reason: 'enough' },
  { type: 'ok' },
  { type: 'error', code: 'FED_INVITE_USED', message: 'this invite was used already', retryable: false },
];
