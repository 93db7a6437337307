/** The other end, under a test's control: answers everything properly unless told otherwise, and remembers all of it. */
import {
  type BlobRef,
  type Channel,
  coordinatorStatement,
  createBlobShelf,
  createChannel,
  createSigningKey,
  type FederationView,
  fetchBlob,
  type Listener,
  type Message,
  type MessageOf,
  type MessageType,
  newNonce,
  openMemorySink,
  PROTOCOL_VERSION,
  type SigningKey,
  type Transport,
} from '@tributary/shared-protocol';

type Reply = Message | { message: Message; body: Uint8Array };
type Handlers = { [T in MessageType]?: (message: MessageOf<T>, channel: Channel) => Promise<Reply> | Reply };

export interface ScriptedCoordinator {
  readonly transport: Transport;
  /** The run's. */
  readonly key: SigningKey;
  readonly shelf: ReturnType<typeof createBlobShelf>;
  /** Chunk numbers that were asked for, in order. */
  readonly chunksAsked: number[];
  readonly url: string;
  readonly fingerprint: string | undefined;
  /** Replaces the usual answer to a message. */
  readonly on: Handlers;
  readonly channels: Channel[];
  /** Updates pulled so far, by digest. */
  readonly updates: Map<string, Uint8Array>;
  /** Resolves with the `count`th (from 1) message of a type since the start. */
  received<T extends MessageType>(type: T, count?: number): Promise<MessageOf<T>>;
  count(type: MessageType): number;
  /** Puts a model on the shelf. */
  addModel(bytes: Uint8Array): Promise<BlobRef>;
  plan(plan: Partial<MessageOf<'plan'>> & { model: BlobRef }): Promise<void>;
  goodbye(code?: string, reason?: string): Promise<void>;
  /** Its usual answer to `hello`. */
  welcome(): MessageOf<'welcome'>;
  /** Shows another certificate from now on. */
  renew(tls: { readonly key: string; readonly cert: string }): void;
  /** Closes the present link. */
  drop(): Promise<void>;
  close(): Promise<void>;
}

export const CHUNK_BYTES = 64;

export async function scriptedCoordinator(
  transport: Transport,
  federation: FederationView,
  heartbeatMs = 60_000,
): Promise<ScriptedCoordinator> {
  const shelf = createBlobShelf();
  const on: Handlers = {};
  const channels: Channel[] = [];
  const updates = new Map<string, Uint8Array>();
  const log: Message[] = [];
  const chunksAsked: number[] = [];
  const key = createSigningKey();
  const waiting: { type: MessageType; count: number; resolve(message: Message): void }[] = [];

  function record(message: Message): void {
    log.push(message);
    for (const waiter of [...waiting]) {
      const found = log.filter(({ type }) => type === waiter.type)[waiter.count - 1];
      if (found === undefined) continue;
      waiting.splice(waiting.indexOf(waiter), 1);
      waiter.resolve(found);
    }
  }

  const welcome = (): MessageOf<'welcome'> => ({
    type: 'welcome',
    protocol: PROTOCOL_VERSION,
    clientId: 'client-1',
    clockMs: Date.now(),
    heartbeatMs,
    federation,
  });

  const usual: Handlers = {
    challenge: (message) => {
      const scope = { runId: federation.runId, fingerprint: listener.fingerprint };
      return challenged(message, { ...scope, session: newNonce(), key });
    },
    hello: () => welcome(),
    offer(message, channel) {
      void pull(message, channel);
      return { type: 'receipt', decision: 'send' };
    },
    evaluation: () => ({ type: 'receipt', decision: 'have' }),
    chunk: (message) => shelf.answer(message),
  };

  async function pull({ update, round }: MessageOf<'offer'>, channel: Channel): Promise<void> {
    const sink = openMemorySink(update);
    try {
      await fetchBlob(channel, update, sink);
      updates.set(update.digest, sink.bytes);
      await channel.call({ type: 'verdict', round, update: update.digest, accepted: true }, 'ok');
    } catch {
      // The link was dropped under us: the worker offers it again.
    }
  }

  async function handle(message: Message, channel: Channel): Promise<Reply> {
    if (message.type === 'chunk') chunksAsked.push(message.index);
    const handler = (on[message.type] ?? usual[message.type]) as
      | ((message: Message, channel: Channel) => Promise<Reply> | Reply)
      | undefined;
    const reply = handler === undefined ? { type: 'ok' as const } : await handler(message, channel);
    record(message);
    return reply;
  }

  const listener: Listener = await transport.listen((link) => {
    const channel = createChannel(link);
    channels.push(channel);
    channel.handle((message) => handle(message, channel));
  });
  const present = (): Channel => {
    const channel = channels.at(-1);
    if (channel === undefined) throw new Error('nobody has dialled yet');
    return channel;
  };
  return {
    transport,
    key,
    shelf,
    chunksAsked,
    url: listener.url,
    get fingerprint() {
      return listener.fingerprint;
    },
    welcome,
    renew: (tls) => listener.renew?.(tls),
    on,
    channels,
    updates,
    received<T extends MessageType>(type: T, count = 1) {
      const found = log.filter((message) => message.type === type)[count - 1];
      if (found !== undefined) return Promise.resolve(found as MessageOf<T>);
      return new Promise<MessageOf<T>>((resolve) => {
        waiting.push({ type, count, resolve: (message) => resolve(message as MessageOf<T>) });
      });
    },
    count: (type) => log.filter((message) => message.type === type).length,
    addModel: (bytes) => shelf.addBytes(bytes, CHUNK_BYTES),
    async plan(plan) {
      await present().call(
        { type: 'plan', task: 'train', round: 1, learningRate: 0.1, deadlineMs: null, ...plan },
        'ok',
      );
    },
    async goodbye(code = 'FED_RUN_FINISHED', reason = 'all rounds are done') {
      await present().call({ type: 'goodbye', code, reason }, 'ok');
    },
    drop: () => present().close('dropped by the test'),
    close: () => listener.close(),
  };
}

/** The answer to a challenge, signed by `signer` (unless said otherwise by the holder of `key`). */
export function challenged(
  { nonce }: MessageOf<'challenge'>,
  options: {
    readonly runId: string;
    readonly session: string;
    readonly fingerprint: string | undefined;
    readonly key: SigningKey;
    readonly signer?: SigningKey;
  },
): MessageOf<'challenged'> {
  const { runId, session, key, signer = key } = options;
  const fingerprint = options.fingerprint ?? null;
  const signature = signer.sign(coordinatorStatement({ runId, session, nonce, fingerprint }));
  const { publicKey } = key;
  return { type: 'challenged', protocol: PROTOCOL_VERSION, runId, session, publicKey, signature };
}

export function federationView(overrides: Partial<FederationView> = {}): FederationView {
  return {
    name: 'shapes',
    runId: 'run-1',
    configDigest: 'c0'.repeat(32),
    seed: 7,
    rounds: 2,
    classes: ['cross', 'ring'],
    input: { height: 8, width: 8, channels: 3, interpolation: 'nearest', keepAspectRatio: false },
    augmentation: {
      variant: 'keras3',
      featurewiseCenter: false,
      samplewiseCenter: false,
      featurewiseStdNormalization: false,
      samplewiseStdNormalization: false,
      zcaWhitening: false,
      zcaEpsilon: 1e-6,
      rotationRange: 0,
      widthShiftRange: 0,
      heightShiftRange: 0,
      brightnessRange: null,
      shearRange: 0,
      zoomRange: 0,
      channelShiftRange: 0,
      fillMode: 'nearest',
      cval: 0,
      horizontalFlip: false,
      verticalFlip: false,
      rescale: 1 / 255,
      interpolationOrder: 1,
      path: 'exact',
    },
    training: {
      optimizer: { name: 'sgd', learningRate: 0.1, momentum: 0, nesterov: false },
      loss: 'categoricalCrossentropy',
      metrics: ['accuracy'],
      batchSize: 8,
      epochs: 1,
      weightDecay: 0,
      classWeights: {},
      frozenLayers: [],
      learningRateSchedule: { kind: 'constant' },
    },
    maxUnreadableShare: 0.1,
    topology: '{}',
    frozenWeights: [],
    ...overrides,
  };
}
