/**
 * The front desk: every link that comes in, who is behind it, and where each of its messages goes. A site is nobody
 * until its hello is accepted; what it sends afterwards can only concern itself.
 */
import {
  type BlobShelf,
  type Channel,
  coordinatorStatement,
  crashPoint,
  createChannel,
  errorCode,
  isSignedMessage,
  type Link,
  type Message,
  type MessageOf,
  type MessageWithBody,
  negotiate,
  newNonce,
  ProtocolError,
  type RunStatus,
  type SiteReport,
} from '@tributary/shared-protocol';
import { federationView } from './config/resolve.ts';
import { CoordinatorError } from './errors.ts';
import { admit, checkHello, revokedError } from './members/admission.ts';
import type { Chronicle } from './members/chronicle.ts';
import { createCourier } from './members/courier.ts';
import { createProofCheck } from './members/proof-check.ts';
import { rekeyingOf } from './members/rekeying.ts';
import { type Revocation, revocationOf } from './members/revocation.ts';
import type { Member } from './members/roster.ts';
import { hashSecret, matchesHash } from './members/secrets.ts';
import type { RunContext } from './round/context.ts';
import type { Evaluation } from './round/evaluation.ts';
import { checkRound } from './round/offer-checks.ts';
import { noteRefusal, type TrainRound } from './round/train-round.ts';

/** A link that has not said an accepted hello by then is closed. */
const HELLO_TIMEOUT_MS = 30_000;
/** A site that missed so many heartbeats is taken for lost. */
const MISSED_HEARTBEATS = 3;
/** A site that says goodbye or is told it gets this long to answer. */
const GOODBYE_TIMEOUT_MS = 2000;

/** What the run is at; the desk reads it, the rounds write it. */
export interface Phase {
  /** Resolves once a round that was open before a restart has taken its spooled updates back in. */
  readonly begun: Promise<void>;
  begin(): void;
  training: TrainRound | undefined;
  /** The round that is to be started once more with other sites, while they are waited for. */
  regathering: number | undefined;
  evaluation: Evaluation | undefined;
  /** Set once the run is over: what every site is told. */
  goodbye: { readonly code: string; readonly reason: string } | undefined;
}

export interface DeskOptions {
  readonly context: RunContext;
  readonly shelf: BlobShelf;
  readonly phase: Phase;
  readonly chronicle: Chronicle;
  /** Resolves, once this coordinator listens, with the certificate's that it shows now; null without TLS. */
  readonly fingerprint: () => Promise<string | null>;
  readonly modelBytes: () => number;
  readonly status: () => RunStatus;
  readonly invite: (options: { uses: number; expiresMs: number }) => string;
  /** Shows another certificate from now on; resolves with its fingerprint. */
  readonly rotate: () => Promise<string>;
  readonly stop: (reason: string) => void;
}

export interface Desk {
  onLink(link: Link): void;
  /** The chunk size that all links so far can carry, in bytes. */
  chunkBytes(): number;
  /**
   * Expels a site for good and at once; harmless when it was expelled before.
   *
   * @throws CoordinatorError FED_MEMBER_UNKNOWN, FED_RUN_STORAGE
   */
  revoke(revocation: Revocation): void;
  /** Tells a site that the run is over. */
  sayGoodbye(member: Member): Promise<void>;
  close(): Promise<void>;
}

export function createPhase(): Phase {
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  return {
    begun,
    begin,
    training: undefined,
    regathering: undefined,
    evaluation: undefined,
    goodbye: undefined,
  };
}

export function createDesk(options: DeskOptions): Desk {
  const { context, shelf, phase } = options;
  const { roster, now, federation, state } = context;
  const heartbeatMs = Math.round(federation.deadlines.heartbeatSeconds * 1000);
  const channels = new Set<Channel>();
  const courier = createCourier(options.chronicle);
  let chunkBytes: number | undefined;
  const watch = setInterval(() => {
    for (const member of roster.members.values()) {
      const silence = now() - member.lastSeenAt;
      if (member.channel && silence > MISSED_HEARTBEATS * heartbeatMs) {
        void member.channel.close(`no heartbeat for ${Math.round(silence / 1000)} s`);
      }
    }
  }, heartbeatMs);

  function onLink(link: Link): void {
    const channel = createChannel(link);
    channels.add(channel);
    chunkBytes = Math.min(chunkBytes ?? link.preferredChunkBytes, link.preferredChunkBytes);
    let member: Member | undefined;
    let isAdmin = false;
    const session = newNonce();
    // The one that the site has just seen; another may be shown to those who dial later.
    const shown = options.fingerprint();
    let challenged = false;
    const proofs = createProofCheck(state.runId, session, now);
    const noHello = setTimeout(() => void channel.close('no accepted hello in 30 s'), HELLO_TIMEOUT_MS);

    channel.handle(async (message) => {
      if (message.type === 'challenge') {
        if (member || isAdmin) throw unexpected('a challenge after an accepted hello');
        challenged = true;
        return await answerChallenge(message);
      }
      if (message.type === 'hello') {
        if (member || isAdmin) throw unexpected('a second hello on one link');
        if (message.role === 'admin') {
          admitAdmin(message);
          isAdmin = true;
        } else {
          if (!challenged) throw unexpected('a hello before the challenge');
          return await welcome(message, (m) => {
            member = m;
            clearTimeout(noHello);
          });
        }
        clearTimeout(noHello);
        return welcomeMessage(message, 'admin');
      }
      if (isAdmin) return await answerAdmin(message);
      if (!member) throw unexpected(`"${message.type}" before an accepted hello`);
      const { revoked } = state.members.get(member.name) ?? {};
      if (revoked) throw revokedError(member.name, revoked.reason);
      if (member.channel !== channel)
        throw unexpected(`"${message.type}" on a link that another one has replaced`);
      if (isSignedMessage(message)) {
        try {
          proofs.check(message, state.members.get(member.name)?.key ?? '');
        } catch (error) {
          // Whoever sits on this link is not the site, or not its present self: it must say hello anew.
          setImmediate(() => void channel.close('a message was not signed as it should be'));
          throw error;
        }
      }
      member.lastSeenAt = now();
      return await answerMember(member, message);
    });

    void channel.closed.then((reason) => {
      clearTimeout(noHello);
      channels.delete(channel);
      if (member?.channel === channel) lose(member, reason);
    });

    async function answerChallenge({
      protocol,
      nonce,
    }: MessageOf<'challenge'>): Promise<MessageOf<'challenged'>> {
      const fingerprint = await shown;
      const { runId } = state;
      const signature = context.key.sign(coordinatorStatement({ runId, session, nonce, fingerprint }));
      const { publicKey } = context.key;
      return { type: 'challenged', protocol: negotiate(protocol), runId, session, publicKey, signature };
    }

    async function welcome(hello: MessageOf<'hello'>, set: (member: Member) => void): Promise<Message> {
      const scope = { session, fingerprint: await shown };
      const { member: record, rejoined } = admit(
        hello,
        scope,
        state,
        (entry) => context.record(entry, { durable: true }),
        now,
      );
      const joined = roster.enlist(record);
      const former = joined.channel;
      const { minor } = negotiate(hello.protocol);
      const fresh = { channel, session, minor, ready: false, state: 'preparing', progress: 0 };
      Object.assign(joined, fresh, { lastSeenAt: now() });
      set(joined);
      if (former) void former.close('the same site has a new link');
      context.emit({ type: 'joined', clientId: joined.clientId, name: joined.name, rejoined });
      roster.changed(joined);
      if (phase.goodbye) setImmediate(() => void sayGoodbye(joined));
      crashPoint('coordinator:before-welcome');
      return welcomeMessage(hello, joined.clientId);
    }
  }

  function welcomeMessage(hello: MessageOf<'hello'>, clientId: string): Message {
    return {
      type: 'welcome',
      protocol: negotiate(hello.protocol),
      clientId,
      clockMs: now(),
      heartbeatMs,
      federation: federationView(federation, state.runId, options.modelBytes()),
    };
  }

  function admitAdmin(hello: MessageOf<'hello'>): void {
    checkHello(hello, now());
    if (!matchesHash(hello.credential ?? '', hashSecret(context.directory.adminCredential))) {
      throw new CoordinatorError(
        'FED_JOIN_FORBIDDEN',
        'that is not the credential of this run; it is in admin.key in the run directory',
      );
    }
  }

  async function answerMember(member: Member, message: Message): Promise<Message | MessageWithBody> {
    switch (message.type) {
      case 'ready':
        Object.assign(member, { ready: true, site: message.site, state: 'idle', progress: 0 });
        context.emit({
          type: 'ready',
          clientId: member.clientId,
          name: member.name,
          ...examplesOf(message.site),
          testExamples: message.site.testExamples,
          engine: message.site.engine,
        });
        // After the answer, so that a plan never overtakes it.
        setImmediate(() => {
          const { channel } = member;
          if (channel && message.recordsUpTo !== undefined)
            courier.begin(channel, member.name, message.recordsUpTo);
          roster.changed(member);
        });
        return { type: 'ok' };
      case 'heartbeat':
        member.state = message.state;
        member.progress = message.progress;
        context.emit({
          type: 'progress',
          round: message.round,
          name: member.name,
          state: message.state,
          progress: message.progress,
        });
        return { type: 'ok' };
      case 'chunk':
        crashPoint('coordinator:serve-chunk');
        return await shelf.answer(message);
      case 'offer':
      case 'trained':
        await phase.begun;
        return answerUpdate(member, message);
      case 'evaluation':
        crashPoint('coordinator:evaluation-received');
        if (!phase.evaluation) {
          throw new CoordinatorError('FED_EVALUATION_UNEXPECTED', 'nothing is being evaluated now');
        }
        return phase.evaluation.answer(member, message);
      case 'failure':
        context.record({
          type: 'client-failed',
          round: message.round,
          name: member.name,
          task: message.task,
          code: message.code,
          reason: message.reason,
        });
        if (message.task === 'train' && phase.training?.plan.round === message.round)
          phase.training.failed(member, message);
        if (message.task === 'evaluate' && phase.evaluation?.plan.round === message.round)
          phase.evaluation.failed(member, message);
        return { type: 'ok' };
      case 'rekey':
        rekey(member, message);
        return { type: 'ok' };
      case 'leave':
        member.lostAt = Number.NEGATIVE_INFINITY;
        member.ready = false;
        context.record({
          type: 'left',
          clientId: member.clientId,
          name: member.name,
          reason: message.reason,
        });
        setImmediate(() => void member.channel?.close(`left: ${message.reason}`));
        return { type: 'ok' };
      default:
        throw unexpected(`"${message.type}" is not a site's to send`);
    }
  }

  function rekey({ name, session }: Member, message: MessageOf<'rekey'>): void {
    const entry = rekeyingOf(state, name, session, message);
    if (!entry) return;
    context.record(entry, { durable: true });
  }

  /** Of an update that is offered, or that waits to be masked. */
  function answerUpdate(
    member: Member,
    offer: MessageOf<'offer'> | MessageOf<'trained'>,
  ): MessageOf<'receipt'> {
    crashPoint('coordinator:offer-received');
    try {
      if (phase.training?.plan.round === offer.round)
        return offer.type === 'offer'
          ? phase.training.offer(member, offer)
          : phase.training.trained(member, offer);
      const lastCommit = state.commits.at(-1);
      const isIt = ({ name, digest }: { readonly name: string; readonly digest: string }) =>
        offer.type === 'offer' ? digest === offer.update.digest : name === member.name;
      if (lastCommit?.round === offer.round && lastCommit.updates.some(isIt))
        return { type: 'receipt', decision: 'have' };
      if (phase.regathering === offer.round)
        throw new CoordinatorError(
          'FED_UPDATE_ROUND',
          `round ${offer.round} is about to be started once more; its plan will ask for the update`,
        );
      const last = state.open?.round ?? lastCommit?.round ?? 0;
      checkRound(offer, member.name, phase.training && openRound(phase.training), last);
      throw new CoordinatorError('FED_UPDATE_LATE', `round ${offer.round} is closed`);
    } catch (error) {
      if (!errorCode(error)?.startsWith('FED_UPDATE_')) throw error;
      if (offer.type === 'offer') noteRefusal(context, member.name, offer, error);
      return {
        type: 'receipt',
        decision: 'refused',
        code: errorCode(error),
        reason: error instanceof Error ? error.message : String(error),
      };
    }
  }

  async function answerAdmin(message: Message): Promise<Message> {
    switch (message.type) {
      case 'get-status':
        return { type: 'status', status: options.status() };
      case 'invite':
        return { type: 'invited', invite: options.invite(message) };
      case 'revoke':
        revoke(message);
        return { type: 'ok' };
      case 'rotate':
        return { type: 'rotated', fingerprint: await options.rotate() };
      case 'stop':
        setImmediate(() => options.stop(message.reason));
        return { type: 'ok' };
      case 'heartbeat':
        return { type: 'ok' };
      default:
        throw unexpected(`"${message.type}" is not an admin's to send`);
    }
  }

  function lose(member: Member, reason: string): void {
    const left = member.lostAt === Number.NEGATIVE_INFINITY;
    Object.assign(member, { channel: undefined, ready: false, state: 'away', progress: 0 });
    if (!left) member.lostAt = now();
    context.emit({ type: 'left', clientId: member.clientId, name: member.name, reason });
    roster.changed(member);
  }

  function revoke(revocation: Revocation): void {
    const entry = revocationOf(state, revocation);
    if (!entry) return;
    context.record(entry, { durable: true });
    const { name, reason } = revocation;
    const member = roster.members.get(name);
    context.emit({ type: 'revoked', clientId: state.members.get(name)?.clientId ?? '', name, reason });
    if (!member) return;
    const { channel } = member;
    member.lostAt = Number.NEGATIVE_INFINITY;
    phase.evaluation?.expel(name);
    phase.training?.expel(name);
    if (!channel) return;
    lose(member, `expelled: ${reason}`);
    void sendAway(channel, revokedError(name, reason));
  }

  /** Tells an expelled site why, and closes its link; a site that does not answer is not waited for. */
  async function sendAway(channel: Channel, { code, message }: CoordinatorError): Promise<void> {
    try {
      await Promise.race([courier.idle(channel), pause(GOODBYE_TIMEOUT_MS)]);
      await channel.call({ type: 'goodbye', code, reason: message }, 'ok', { timeoutMs: GOODBYE_TIMEOUT_MS });
    } catch {
      // It hears the same when it says hello again.
    }
    await channel.close(message);
  }

  async function sayGoodbye(member: Member): Promise<void> {
    const { channel } = member;
    if (!channel || !phase.goodbye) return;
    try {
      await Promise.race([courier.idle(channel), pause(GOODBYE_TIMEOUT_MS)]);
      await channel.call({ type: 'goodbye', ...phase.goodbye }, 'ok', { timeoutMs: GOODBYE_TIMEOUT_MS });
      member.lostAt = Number.NEGATIVE_INFINITY;
    } catch {
      // It hears it when it comes back, or finds nobody there.
    }
  }

  return {
    onLink,
    chunkBytes: () => chunkBytes ?? 256 * 1024,
    revoke,
    sayGoodbye,
    async close() {
      clearInterval(watch);
      await Promise.all([...channels].map((channel) => channel.close('the coordinator is closing')));
    },
  };
}

/** Where the site tells it. */
export function examplesOf(site: Pick<SiteReport, 'trainExamples'> | undefined) {
  return site?.trainExamples === undefined ? {} : { trainExamples: site.trainExamples };
}

function openRound({ plan }: TrainRound) {
  return { round: plan.round, cohort: plan.cohort, base: plan.model.digest };
}

/** Keeps no process alive. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}

function unexpected(what: string): ProtocolError {
  return new ProtocolError('FED_PROTOCOL_MESSAGE_UNEXPECTED', what);
}
