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

/** Texts of the right lengths; that they are signatures of these messages is tested elsewhere. */
const KEY = 'K'.repeat(42).concat('A');
const SIGNATURE = 'S'.repeat(85).concat('A');
const ROUND_KEYS = {
  channelKey: 'C'.repeat(43),
  maskKey: 'M'.repeat(43),
  seedCommitment: 'H'.repeat(43),
  signature: SIGNATURE,
};
const SESSION = 'c2Vzc2lvbi1vZi10aGlzLWxpbms';
const SIGNED = { at: 1_767_225_600_456, counter: 3, signature: SIGNATURE };

const SITE = {
  trainExamples: 600,
  testExamples: 100,
  trainExamplesByClass: [300, 200, 100],
  unreadable: 1,
  engine: 'wasm',
};

export const MESSAGES: readonly Message[] = [
  { type: 'challenge', protocol: { major: 2, minor: 1 }, nonce: 'bm9uY2Utb2YtdGhlLXNpdGU' },
  {
    type: 'challenged',
    protocol: { major: 2, minor: 1 },
    runId: 'digits-2026-01',
    session: SESSION,
    publicKey: KEY,
    signature: SIGNATURE,
  },
  {
    type: 'hello',
    protocol: { major: 2, minor: 1 },
    software: 'tributary/0.1.0',
    role: 'worker',
    name: 'north',
    secret: 'c2VjcmV0',
    publicKey: KEY,
    signature: SIGNATURE,
    clockMs: 1_767_225_600_000,
  },
  {
    type: 'welcome',
    protocol: { major: 2, minor: 1 },
    clientId: 'c-1',
    clockMs: 1_767_225_600_123.5,
    heartbeatMs: 5000,
    federation: FEDERATION,
  },
  { type: 'ready', site: SITE, recordsUpTo: 41, signed: SIGNED },
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
    clippingNorm: 1.25,
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
    signed: SIGNED,
  },
  { type: 'trained', round: 2, base: A, release: { update: B, numExamples: 600 }, signed: SIGNED },
  {
    type: 'advertise',
    attempt: 'try-1',
    round: 2,
    base: A,
    cohort: [{ name: 'north', publicKey: 'k'.repeat(43) }],
  },
  { type: 'advertised', ...ROUND_KEYS },
  { type: 'share', attempt: 'try-1', keys: [{ site: 'north', ...ROUND_KEYS }] },
  { type: 'shared', envelopes: [{ to: 'south', sealed: 'e'.repeat(123) }] },
  {
    type: 'mask',
    attempt: 'try-1',
    sharers: ['north', 'south'],
    envelopes: [{ from: 'south', sealed: 'e'.repeat(123) }],
  },
  { type: 'agree', attempt: 'try-1', survivors: ['north', 'south'] },
  { type: 'agreed', signature: 's'.repeat(86) },
  {
    type: 'unmask',
    attempt: 'try-1',
    survivors: ['north', 'south'],
    signatures: [{ site: 'north', signature: 's'.repeat(86) }],
  },
  {
    type: 'unmasked',
    seedShares: [{ of: 'north', share: 'b'.repeat(43) }],
    maskKeyShares: [{ of: 'south', share: 'b'.repeat(43) }],
  },
  { type: 'receipt', decision: 'refused', code: 'FED_ROUND_STALE', reason: 'round 2 is committed' },
  { type: 'verdict', round: 2, update: B, accepted: true },
  { type: 'evaluation', round: 2, model: A, numExamples: 100, metrics: { loss: 0.25 }, signed: SIGNED },
  {
    type: 'failure',
    task: 'train',
    round: 2,
    code: 'FED_TRAINER_CRASHED',
    reason: 'out of memory',
    signed: SIGNED,
  },
  { type: 'rekey', publicKey: KEY, confirmation: SIGNATURE, signed: SIGNED },
  { type: 'records', lines: ['{"type":"finished","round":3}'] },
  { type: 'goodbye', code: 'FED_RUN_FINISHED', reason: 'all rounds are done' },
  { type: 'leave', reason: 'stopped by its operator', signed: SIGNED },
  { type: 'get-status' },
  { type: 'status', status: { state: 'training', round: 2, clients: [{ name: 'north', connected: true }] } },
  { type: 'invite', uses: 1, expiresMs: 3_600_000 },
  { type: 'invited', invite: 'trib1.abc' },
  { type: 'revoke', name: 'north', reason: 'its images were labelled by guessing' },
  { type: 'rotate' },
  { type: 'rotated', fingerprint: A },
  { type: 'stop', reason: 'enough' },
  { type: 'ok' },
  { type: 'error', code: 'FED_INVITE_USED', message: 'this invite was used already', retryable: false },
];
