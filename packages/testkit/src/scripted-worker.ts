/**
 * A site played by a few lines of script: it speaks the whole protocol (hello, ready, plans, offers, evaluations) but
 * its training is a function of the test. What it sends can be bent in every way that a broken site might.
 */
import { createHash, createPrivateKey, randomBytes } from 'node:crypto';
import {
  type BlobRef,
  type BlobShelf,
  type Channel,
  challengeCoordinator,
  createBlobShelf,
  createChannel,
  decodeFrame,
  decodeInvite,
  encodeFrame,
  type FederationView,
  fetchBlob,
  type Message,
  type MessageOf,
  openMemorySink,
  readSigningKey,
  type SigningKey,
  type SiteReport,
  sayHello,
  type Tensor,
  type Transport,
} from '@tributary/shared-protocol';

export type SecaggStage = MessageOf<'advertise' | 'share' | 'mask' | 'agree' | 'unmask'>;

export interface ScriptedJob {
  readonly round: number;
  readonly global: readonly Tensor[];
  readonly plan: MessageOf<'plan'>;
  readonly federation: FederationView;
}

/** What the script sends for a plan; fields left out are what an honest site would say. */
export interface ScriptedUpdate {
  readonly tensors?: readonly Tensor[];
  /** The frame's bytes as they are, instead of `tensors`. */
  readonly frame?: Uint8Array;
  readonly numExamples: number;
  readonly metrics?: Record<string, number>;
  readonly round?: number;
  readonly base?: string;
  /** Lies about the blob: laid over its true reference. */
  readonly ref?: Partial<BlobRef>;
}

export interface ScriptedWorkerOptions {
  readonly transport: Transport;
  readonly name: string;
  /** The invite's text; or `url` and what else is needed. */
  readonly invite?: string;
  readonly url?: string;
  readonly fingerprint?: string;
  readonly secret?: string;
  /** The site's key is made from this text: the same text is the same site. @default random */
  readonly credential?: string;
  readonly clockMs?: number;
  readonly protocol?: { major: number; minor: number };
  readonly site?: Partial<SiteReport>;
  /** Says `ready` after `welcome`. @default true */
  readonly ready?: boolean;
  /** Asks for the log's lines that concern it, after that number, and keeps them in `records`. */
  readonly recordsUpTo?: number;
  /** Undefined: this site never answers the plan. Thrown errors become a `failure`. */
  readonly train?: (job: ScriptedJob) => ScriptedUpdate | undefined | Promise<ScriptedUpdate | undefined>;
  readonly evaluate?: (
    job: ScriptedJob,
  ) => { numExamples: number; metrics: Record<string, number> } | undefined;
  /** Answers the stages of a secure sum. */
  readonly onStage?: (message: SecaggStage) => Message | Promise<Message>;
  /** Looks at chunk requests before they are answered; may replace the answer. */
  readonly onChunk?: (
    message: MessageOf<'chunk'>,
    body: Uint8Array,
  ) => { message: Message; body: Uint8Array } | Promise<{ message: Message; body: Uint8Array }>;
}

export interface ScriptedWorker {
  readonly name: string;
  readonly credential: string;
  readonly key: SigningKey;
  /** Of its link. */
  readonly session: string;
  readonly welcome: MessageOf<'welcome'>;
  readonly channel: Channel;
  /** What it serves. */
  readonly shelf: BlobShelf;
  readonly plans: readonly MessageOf<'plan'>[];
  readonly receipts: readonly MessageOf<'receipt'>[];
  readonly verdicts: readonly MessageOf<'verdict'>[];
  /** Lines of the log that it was brought. */
  readonly records: readonly string[];
  readonly goodbye: Promise<MessageOf<'goodbye'>>;
  /** Resolves with the first message of that kind, past or to come, that fits. */
  until<T extends 'plan' | 'receipt' | 'verdict' | 'records'>(
    type: T,
    fits?: (message: MessageOf<T>) => boolean,
  ): Promise<MessageOf<T>>;
  offer(round: number, base: string, update: ScriptedUpdate): Promise<MessageOf<'receipt'>>;
  sayReady(): Promise<void>;
  close(): Promise<void>;
}

/** Joins and resolves with the welcome read; rejects with RemoteError when the coordinator refuses. */
export async function startScriptedWorker(options: ScriptedWorkerOptions): Promise<ScriptedWorker> {
  const invite = options.invite === undefined ? undefined : decodeInvite(options.invite);
  const fingerprint = options.fingerprint ?? invite?.fingerprint;
  const link = await options.transport.connect(
    options.url ?? invite?.url ?? '',
    fingerprint === undefined ? {} : { fingerprint },
  );
  const channel = createChannel(link);
  const shelf = createBlobShelf();
  const credential = options.credential ?? randomBytes(16).toString('hex');
  const key = keyFrom(credential);
  const plans: MessageOf<'plan'>[] = [];
  const receipts: MessageOf<'receipt'>[] = [];
  const verdicts: MessageOf<'verdict'>[] = [];
  const brought: MessageOf<'records'>[] = [];
  const seen = { plan: plans, receipt: receipts, verdict: verdicts, records: brought } as const;
  const waiters = new Set<() => void>();
  let resolveGoodbye: (message: MessageOf<'goodbye'>) => void;
  const goodbye = new Promise<MessageOf<'goodbye'>>((resolve) => {
    resolveGoodbye = resolve;
  });
  let welcome: MessageOf<'welcome'>;
  let session: string;

  const note = <M extends Message>(list: M[], message: M) => {
    list.push(message);
    for (const look of [...waiters]) look();
  };

  channel.handle(async (message) => {
    switch (message.type) {
      case 'plan':
        note(plans, message);
        void follow(message);
        return { type: 'ok' };
      case 'verdict':
        note(verdicts, message);
        return { type: 'ok' };
      case 'chunk': {
        if (!options.onChunk) return await shelf.answer(message);
        // A script may serve what was never on the shelf.
        const { body } = await shelf.answer(message).catch(() => ({ body: new Uint8Array(0) }));
        return await options.onChunk(message, body);
      }
      case 'advertise':
      case 'share':
      case 'mask':
      case 'agree':
      case 'unmask':
        if (!options.onStage) throw new Error(`${message.type} without a script`);
        return await options.onStage(message);
      case 'records':
        note(brought, message);
        return { type: 'ok' };
      case 'goodbye':
        resolveGoodbye(message);
        return { type: 'ok' };
      default:
        throw new Error(`unexpected ${message.type}`);
    }
  });

  async function follow(plan: MessageOf<'plan'>): Promise<void> {
    try {
      const script = plan.task === 'train' ? options.train : options.evaluate;
      if (!script) return;
      const sink = openMemorySink(plan.model);
      await fetchBlob(channel, plan.model, sink);
      const job = {
        round: plan.round,
        global: decodeFrame(sink.bytes).tensors,
        plan,
        federation: welcome.federation,
      };
      if (plan.task === 'train') {
        const update = await options.train?.(job);
        if (update) await offer(plan.round, plan.model.digest, update);
      } else {
        const result = options.evaluate?.(job);
        if (result) {
          await channel.call(
            { type: 'evaluation', round: plan.round, model: plan.model.digest, ...result },
            'receipt',
          );
        }
      }
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      // On a closed link there is nobody to tell.
      await channel
        .call({ type: 'failure', task: plan.task, round: plan.round, code: 'FED_SCRIPT', reason }, 'ok')
        .catch(() => undefined);
    }
  }

  async function offer(round: number, base: string, update: ScriptedUpdate): Promise<MessageOf<'receipt'>> {
    const frame = update.frame ?? encodeFrame(update.tensors ?? []);
    const ref = { ...(await shelf.addBytes(frame, link.preferredChunkBytes)), ...update.ref };
    const receipt = await channel.call(
      {
        type: 'offer',
        round: update.round ?? round,
        base: update.base ?? base,
        numExamples: update.numExamples,
        metrics: update.metrics ?? {},
        update: ref,
      },
      'receipt',
    );
    note(receipts, receipt);
    return receipt;
  }

  async function sayReady(): Promise<void> {
    const site: SiteReport = {
      trainExamples: 10,
      testExamples: options.evaluate ? 10 : 0,
      trainExamplesByClass: [],
      unreadable: 0,
      engine: 'script',
      ...options.site,
    };
    const { recordsUpTo } = options;
    await channel.call({ type: 'ready', site, ...(recordsUpTo === undefined ? {} : { recordsUpTo }) }, 'ok');
  }

  const secret = options.secret ?? invite?.secret;
  const now = () => options.clockMs ?? Date.now();
  const version = options.protocol === undefined ? {} : { protocol: options.protocol };
  try {
    const counterpart = await challengeCoordinator(channel, { fingerprint, ...version });
    session = counterpart.session;
    const hello = { key, name: options.name, software: 'scripted-worker', secret, now, ...version };
    welcome = await sayHello(channel, counterpart, hello);
    if (options.ready ?? true) await sayReady();
  } catch (error) {
    await channel.close('refused');
    throw error;
  }

  return {
    name: options.name,
    credential,
    key,
    session,
    welcome,
    channel,
    shelf,
    plans,
    receipts,
    verdicts,
    get records() {
      return brought.flatMap(({ lines }) => lines);
    },
    goodbye,
    until<T extends 'plan' | 'receipt' | 'verdict' | 'records'>(
      type: T,
      fits: (message: MessageOf<T>) => boolean = () => true,
    ) {
      return new Promise<MessageOf<T>>((resolve) => {
        const look = () => {
          const found = (seen[type] as readonly Message[] as readonly MessageOf<T>[]).find(fits);
          if (!found) return;
          waiters.delete(look);
          resolve(found);
        };
        waiters.add(look);
        look();
      });
    },
    offer,
    sayReady,
    close: () => channel.close('the script ended'),
  };
}

/** The Ed25519 key whose seed is the SHA-256 of `text`. */
export function keyFrom(text: string): SigningKey {
  // PKCS #8 around the 32 bytes of a seed (RFC 8410).
  const der = Buffer.concat([
    Buffer.from('302e020100300506032b657004220420', 'hex'),
    createHash('sha256').update(text).digest(),
  ]);
  const pem = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({
    type: 'pkcs8',
    format: 'pem',
  });
  return readSigningKey(String(pem));
}
