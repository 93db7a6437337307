/** One link from dialling to its end: hello, checks, ready, heartbeats, and the coordinator's requests. */
import {
  type Channel,
  challengeCoordinator,
  crashPoint,
  createChannel,
  errorCode,
  type FederationView,
  type Message,
  type MessageOf,
  PROTOCOL_VERSION,
  ProtocolError,
  RemoteError,
  type SigningKey,
  type SiteReport,
  sayHello,
} from '@tributary/shared-protocol';
import { isPolicyError, WorkerError } from '../errors.ts';
import type { Guard } from '../policy/guard.ts';
import type { Delivery } from './delivery.ts';
import type { Desk } from './desk.ts';
import { dialCoordinator } from './dial.ts';
import type { EmitWorkerEvent, PreflightStep } from './events.ts';
import type { JoinOptions } from './join.ts';
import type { Masking } from './masking.ts';
import { clockStep, ok, preflight } from './preflight.ts';
import type { SiteRecords } from './records.ts';
import type { Credential, StateDir } from './state-dir.ts';
import { type Trainer, type TrainerKeeper, withAttempts } from './trainer-keeper.ts';
import type { Uplink } from './uplink.ts';

/** What outlives a link. */
export interface Site {
  readonly options: JoinOptions;
  readonly state: StateDir;
  readonly key: SigningKey;
  credential: Credential;
  /** The invite's secret, shown until a `welcome` has been read. */
  secret: string | undefined;
  readonly emit: EmitWorkerEvent;
  readonly now: () => number;
  readonly signal: AbortSignal;
  /** Aborted when this site's part is over, however that came: nothing is started from then on. */
  readonly over: AbortSignal;
  readonly uplink: Uplink;
  readonly delivery: Delivery;
  readonly records: SiteRecords;
  readonly guard: Guard;
  /** Makes keeper and desk for the federation, once. */
  prepare(federation: FederationView): TrainerKeeper;
  /** Gives the machine back until the policy lets this site work again. */
  rest(): Promise<void>;
  desk: Desk | undefined;
  /** There where updates are summed under masks. */
  masking: Masking | undefined;
  /** The checks and the trainer's start, under way or done: they go on when the link is lost. */
  ready: Promise<Trainer> | undefined;
  clientId: string;
  /** Of the federation that the trainer was started for. */
  configDigest: string | undefined;
  /** Links that got as far as `ready`. */
  links: number;
}

interface Farewell {
  readonly code: string;
  readonly reason: string;
}

export interface LinkEnd {
  readonly goodbye: Farewell | undefined;
  readonly reason: string;
}

/** Which check a refused `hello` belongs to; all others are shown as the address's. */
const STEP_OF_REFUSAL: Readonly<Record<string, PreflightStep['name']>> = {
  FED_PROTOCOL_VERSION: 'protocol',
  FED_PROTOCOL_IDENTITY: 'identity',
  FED_JOIN_SIGNATURE: 'identity',
  FED_JOIN_KEY_TAKEN: 'identity',
  FED_JOIN_CLOCK: 'clock',
};
/** What dialling again can't mend. */
const FINAL_CODES = [
  'FED_TRANSPORT_FINGERPRINT',
  'FED_TRANSPORT_FORBIDDEN',
  'FED_TRANSPORT_UNSUPPORTED',
  'FED_PROTOCOL_VERSION',
  'FED_PROTOCOL_IDENTITY',
  'FED_PROTOCOL_MESSAGE_MALFORMED',
];
const LEAVE_TIMEOUT_MS = 2000;
const HEARTBEAT_PATIENCE_MS = 15_000;

/** Dials once and stays until the link ends; resolves with how, rejects when it never came to work. */
export async function openLink(site: Site): Promise<LinkEnd> {
  const { signal, emit } = site;
  const link = await dialCoordinator(site).catch((error: unknown) => {
    reportUnreachable(site, error);
    throw error;
  });
  const { url, fingerprint } = site.credential;
  const channel = createChannel(link);
  const gone = goneOn(signal);
  const halt = site.guard.watch();
  let farewell: Farewell | undefined;
  let heardAt = 0;
  /** Resolves with the reason when the link is over: closed, or the coordinator has said goodbye. */
  const over = new Promise<string>((resolve) => {
    void channel.closed.then((reason) => resolve(`the link to ${url} closed: ${reason}`));
    channel.handle((message) => {
      heardAt = performance.now();
      return answer(site, channel, message, (words) => {
        farewell = words;
        // After the answer is on its way: closing at once would take it back.
        setImmediate(() => resolve(words.reason));
      });
    });
  });
  const brokenOff = over.then((reason): never => {
    throw new ProtocolError('FED_TRANSPORT_CLOSED', reason);
  });
  brokenOff.catch(() => undefined);
  let heartbeat: NodeJS.Timeout | undefined;
  try {
    const pinned = fingerprint === undefined ? 'without TLS' : 'certificate as in the invite';
    firstTime(site, ok('address', `${url} answers, ${pinned}`));
    const welcome = await hello(site, channel);
    heartbeat = setInterval(() => void beat(site, channel, () => heardAt), welcome.heartbeatMs);
    await site.state.writeFederation(welcome.federation, welcome.protocol);
    refuseByPolicy(site, welcome);
    const ready = readyFor(site, welcome.federation);
    const trainer = await Promise.race([ready, brokenOff, gone.promise, halt.promise]);
    const recordsUpTo = site.records.upTo;
    await channel.call({ type: 'ready', site: toldOf(trainer, site.guard), recordsUpTo }, 'ok', { signal });
    crashPoint('agent:after-ready');
    site.links++;
    site.uplink.up(channel);
    emit({ type: 'waiting', next: 'the coordinator’s next plan' });
    void site.delivery.offerAll(channel);
    const reason = await Promise.race([over, gone.promise, halt.promise]);
    // A goodbye may overtake the receipt of the last evaluation.
    if (farewell !== undefined) await Promise.race([site.delivery.idle(), channel.closed]);
    return { goodbye: farewell, reason };
  } catch (error) {
    if (farewell !== undefined) return { goodbye: farewell, reason: (farewell as Farewell).reason };
    // Said on the way out, so that the coordinator's log has the reason too.
    const reason = signal.aborted ? 'stopped at the site' : (error as Error).message;
    if (isPolicyError(error)) await site.desk?.halt(error, channel);
    if (signal.aborted || isFinal(error)) await leave(channel, reason);
    throw error;
  } finally {
    clearInterval(heartbeat);
    gone.forget();
    halt.forget();
    await channel.close(signal.aborted ? 'left' : 'done');
    await site.delivery.idle();
  }
}

/** True for errors that dialling again can't mend. */
export function isFinal(error: unknown): boolean {
  if (error instanceof RemoteError) return !error.retryable;
  const code = errorCode(error) ?? '';
  return error instanceof ProtocolError ? FINAL_CODES.includes(code) : true;
}

async function hello(site: Site, channel: Channel): Promise<MessageOf<'welcome'>> {
  const { credential, secret, now, emit, options, signal, key } = site;
  const { url, fingerprint } = credential;
  let sentAt = 0;
  let shownKey = '';
  const welcome = await (async () => {
    const pinned = { publicKey: credential.publicKey, fingerprint, signal };
    const coordinator = await challengeCoordinator(channel, pinned);
    if (coordinator.runId !== credential.runId) throw wrongRun(url, coordinator.runId, credential.runId);
    shownKey = coordinator.publicKey;
    sentAt = now();
    const software = options.software ?? 'tributary';
    return await sayHello(channel, coordinator, {
      key,
      name: credential.name,
      software,
      secret,
      now,
      signal,
    });
  })().catch((error: unknown) => {
    const state = isFinal(error) ? 'fail' : 'warn';
    const step: PreflightStep = {
      name: STEP_OF_REFUSAL[errorCode(error) ?? ''] ?? 'address',
      state,
      detail: `the coordinator did not take this site: ${(error as Error).message}`,
      advice: state === 'fail' ? 'ask the lead for a new invite, or correct what it says' : undefined,
    };
    firstTime(site, step);
    throw error;
  });
  crashPoint('agent:after-hello');
  const { federation, protocol, clientId } = welcome;
  if (protocol.major !== PROTOCOL_VERSION.major) {
    throw new ProtocolError(
      'FED_PROTOCOL_VERSION',
      `the coordinator speaks protocol ${protocol.major}.${protocol.minor}, this site ${PROTOCOL_VERSION.major}.${PROTOCOL_VERSION.minor}; bring both to one version`,
    );
  }
  if (federation.runId !== credential.runId) {
    throw wrongRun(url, federation.runId, credential.runId);
  }
  site.configDigest ??= federation.configDigest;
  if (site.configDigest !== federation.configDigest) {
    throw new WorkerError(
      'FED_WORKER_WRONG_RUN',
      `the coordinator came back with another configuration of run ${federation.runId}; join again to take it on`,
    );
  }
  firstTime(site, ok('protocol', `version ${protocol.major}.${protocol.minor}`));
  const clock = clockStep(welcome.clockMs - (sentAt + now()) / 2);
  firstTime(site, clock);
  if (clock.state === 'fail') {
    throw new WorkerError('FED_WORKER_CLOCK', `this clock is ${clock.detail}: ${clock.advice}`);
  }
  if (!credential.confirmed) {
    site.credential = { ...credential, publicKey: shownKey, confirmed: true };
    await site.state.writeCredential(site.credential);
    crashPoint('agent:after-credential');
    site.secret = undefined;
  }
  site.clientId = clientId;
  const { name, runId, rounds } = federation;
  const rejoined = site.links > 0 || credential.confirmed;
  emit({ type: 'joined', clientId, name: credential.name, federation: name, runId, rounds, rejoined });
  return welcome;
}

function wrongRun(url: string, theirs: string, ours: string): WorkerError {
  return new WorkerError(
    'FED_WORKER_WRONG_RUN',
    `${url} runs ${theirs}, the invite is for ${ours}; ask for a new invite`,
  );
}

/** The policy's answer to the federation as a whole, shown as a check when it is no. */
function refuseByPolicy(site: Site, { federation, protocol }: MessageOf<'welcome'>): void {
  try {
    site.guard.checkFederation(federation, protocol);
  } catch (error) {
    const detail = (error as Error).message;
    const advice = 'nothing was trained and nothing was sent; the coordinator hears the reason';
    site.emit({ type: 'preflight', step: { name: 'policy', state: 'fail', detail, advice } });
    throw error;
  }
}

/** The checks and the trainer's start, made once and shared by all links. */
function readyFor(site: Site, federation: FederationView): Promise<Trainer> {
  site.ready ??= makeReady(site, federation);
  return site.ready;
}

async function makeReady(site: Site, federation: FederationView): Promise<Trainer> {
  const { emit, options, state, over } = site;
  const keeper = site.prepare(federation);
  for await (const step of preflight({ federation, dataDir: options.dataDir, stateDir: state.path })) {
    over.throwIfAborted();
    emit({ type: 'preflight', step });
    if (step.state === 'fail') {
      throw new WorkerError('FED_WORKER_PREFLIGHT', `${step.name}: ${step.detail}; ${step.advice}`);
    }
  }
  over.throwIfAborted();
  site.guard.checkNow();
  emit({ type: 'preparing', message: 'starting the trainer and reading the images' });
  let trainer: Trainer;
  try {
    trainer = await withAttempts(() => keeper.get(), emit);
    site.guard.checkEngine(trainer.site.engine);
  } catch (error) {
    over.throwIfAborted();
    const name = errorCode(error)?.startsWith('FED_DATA') ? 'data' : 'engine';
    const detail = (error as Error).message;
    const advice = name === 'engine' ? '`tributary doctor` shows which engines work here' : undefined;
    emit({ type: 'preflight', step: { name, state: 'fail', detail, advice } });
    throw error;
  }
  emit({ type: 'preflight', step: ok('engine', `${trainer.site.engine}: ${trainer.engineReason}`) });
  const { trainExamples, testExamples, unreadable, engine } = trainer.site;
  const { engineReason } = trainer;
  emit({ type: 'ready', trainExamples, testExamples, unreadable, engine, engineReason });
  return trainer;
}

async function answer(
  site: Site,
  channel: Channel,
  message: Message,
  onGoodbye: (words: Farewell) => void,
): Promise<Message | { message: Message; body: Uint8Array }> {
  switch (message.type) {
    case 'plan':
      crashPoint('agent:on-plan');
      if (site.desk === undefined) break;
      site.desk.take(message, channel);
      return { type: 'ok' };
    case 'advertise':
    case 'share':
    case 'mask':
    case 'agree':
    case 'unmask':
      if (site.masking === undefined) break;
      return await site.masking.answer(message, channel);
    case 'verdict':
      await site.delivery.onVerdict(message);
      return { type: 'ok' };
    case 'chunk':
      return site.delivery.onChunk(message);
    case 'records':
      await keepRecords(site, message.lines);
      return { type: 'ok' };
    case 'goodbye': {
      const { code, reason } = message;
      onGoodbye({ code, reason });
      return { type: 'ok' };
    }
    default:
  }
  throw new ProtocolError(
    'FED_PROTOCOL_MESSAGE_UNEXPECTED',
    `this site has no answer to "${message.type}" now`,
  );
}

/** What the coordinator is told of this site's images; not how many there are where that travels under masks only. */
function toldOf({ site }: Trainer, guard: Guard): SiteReport {
  if (!guard.masks || guard.spends) return site;
  const { trainExamples: _, ...told } = site;
  return told;
}

/** Lines that can't be kept now are brought again on the next link: nothing else of this site waits for them. */
async function keepRecords({ records, credential, emit }: Site, lines: readonly string[]): Promise<void> {
  try {
    await records.take(lines, credential.publicKey ?? '');
    crashPoint('agent:after-records');
  } catch (error) {
    emit({ type: 'log', message: `this site’s copy of the log: ${(error as Error).message}` });
    throw error;
  }
}

/**
 * A heartbeat that nobody answers means that the link is dead, whatever the operating system thinks of it; unless
 * something has come over it meanwhile: on a slow line the heartbeat waits behind the chunks that are asked for.
 */
async function beat(site: Site, channel: Channel, heardAt: () => number): Promise<void> {
  const sentAt = performance.now();
  const activity = site.desk?.activity ?? { state: 'idle' as const, round: 0, progress: 0 };
  try {
    const timeoutMs = site.options.heartbeatPatienceMs ?? HEARTBEAT_PATIENCE_MS;
    await channel.call({ type: 'heartbeat', ...activity }, 'ok', { timeoutMs });
  } catch (error) {
    const alive = errorCode(error) === 'FED_TRANSPORT_TIMEOUT' && heardAt() > sentAt;
    if (!alive && errorCode(error) !== 'FED_TRANSPORT_CLOSED') {
      await channel.close(`no answer to a heartbeat: ${(error as Error).message}`);
    }
  }
}

async function leave(channel: Channel, reason: string): Promise<void> {
  await channel.call({ type: 'leave', reason }, 'ok', { timeoutMs: LEAVE_TIMEOUT_MS }).catch(() => undefined);
}

/** A promise that rejects with the signal's reason once it is aborted, until it is forgotten. */
function goneOn(signal: AbortSignal): { readonly promise: Promise<never>; forget(): void } {
  let onAbort: () => void = () => undefined;
  const promise = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
  });
  promise.catch(() => undefined);
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  return { promise, forget: () => signal.removeEventListener('abort', onAbort) };
}

function reportUnreachable(site: Site, error: unknown): void {
  if (site.signal.aborted) return;
  const final = isFinal(error);
  const advice = final
    ? 'ask the lead for a new invite: this certificate is not the one the invite names'
    : 'check the address and that nothing blocks the port; this site keeps trying';
  firstTime(site, {
    name: 'address',
    state: final ? 'fail' : 'warn',
    detail: (error as Error).message,
    advice,
  });
}

/** The connection's checks are shown until a first link worked; later, `reconnecting` says it. */
function firstTime(site: Site, step: PreflightStep): void {
  if (site.links === 0) site.emit({ type: 'preflight', step });
}
