/**
 * The coordinator: holds the global model, lets sites in, plays the rounds, and keeps all of it in a run directory
 * from which the same call goes on after any crash.
 */
import { randomBytes } from 'node:crypto';
import {
  crashPoint,
  createBlobShelf,
  encodeInvite,
  type Listener,
  type RunEvent,
  type RunStatus,
  type Transport,
} from '@tributary/shared-protocol';
import { globalModel, writeCheckpoint } from './checkpoint.ts';
import type { ModelArtifact, ResolvedFederation } from './config/resolve.ts';
import { createDesk, createPhase, examplesOf } from './desk.ts';
import { CoordinatorError } from './errors.ts';
import { createChronicle } from './members/chronicle.ts';
import { createRoster } from './members/roster.ts';
import { hashSecret, newSecret } from './members/secrets.ts';
import { privacyStatus } from './privacy-books.ts';
import type { NewEvent, RunContext } from './round/context.ts';
import { RoundFailed } from './round/gathering.ts';
import { lastRound, loadCurrent, playRounds } from './rounds.ts';
import { openRunDirectory, type RunDirectory } from './run/directory.ts';
import { openRunLog, type RunLog } from './run/log.ts';
import { openMetricsFile } from './run/metrics-file.ts';
import { apply, bestRound, type LogEntry, memberViews, replay } from './run/records.ts';
import { heldBack } from './store/output-commit.ts';
import type { Leadership } from './store/store.ts';
import { createStrategy } from './strategies/create.ts';

export interface CoordinatorOptions {
  readonly federation: ResolvedFederation;
  /** The initial model; only a fresh run needs it. */
  readonly artifact?: ModelArtifact;
  /** Made when absent; see docs/architecture.md for what lies in it. */
  readonly runDir: string;
  readonly transport: Transport;
  /** Measures the model in a tensor frame file on images of the coordinator's own, after each evaluated round. */
  readonly evaluateCentrally?: (checkpointFrameFile: string) => Promise<Record<string, number>>;
  /** Makes and keeps another certificate, PEM texts, for `transport` to show. Without it, none can be rotated. */
  readonly renewCertificate?: () => Promise<{ readonly key: string; readonly cert: string }>;
  /** That this coordinator leads, where a store lets another one take over; `run` rejects once it does not any more. */
  readonly leadership?: Leadership;
  /** Called for each event, in order; must not throw. */
  readonly onEvent?: (event: RunEvent) => void;
  /** Pauses the run: `run` resolves with reason 'stopped', sites keep their places, the same call goes on later. */
  readonly signal?: AbortSignal;
  /** Unix millis. @default Date.now */
  readonly now?: () => number;
}

export interface RunSummary {
  readonly runId: string;
  readonly reason: Extract<RunEvent, { type: 'finished' }>['reason'];
  /** In a sentence, for a person. */
  readonly message: string;
  /** Rounds committed. */
  readonly rounds: number;
  readonly bestRound: number;
  /** Paths of checkpoint files. */
  readonly lastCheckpoint: string;
  readonly bestCheckpoint: string;
  /** Metrics of the last evaluated round: central where there are any, else the sites' weighted ones. */
  readonly metrics: Readonly<Record<string, number>>;
}

export interface Coordinator {
  /** What sites dial. */
  readonly url: string;
  readonly runId: string;
  /** Lets `tributary status`, `invite` and `stop` in; also in admin.key in the run directory. */
  readonly adminCredential: string;
  /** Base64url of the Ed25519 key that the log is signed with; give it to whoever is to verify the log. */
  readonly logPublicKey: string;
  /** A new invite, as text to paste: for `uses` sites, for `expiresMs` millis. Defaults are the configuration's. */
  invite(options?: { readonly uses?: number; readonly expiresMs?: number }): string;
  status(): RunStatus;
  /**
   * Expels a site for good and at once: its link is closed with the reason, its key, its name and the invite that it
   * came with let nobody in any more, and its update of the open round does not count.
   *
   * @throws CoordinatorError FED_MEMBER_UNKNOWN, FED_RUN_STORAGE
   */
  revoke(name: string, reason: string): void;
  /**
   * Shows a new certificate to whoever dials from now on, and resolves with its fingerprint. Links stay; sites learn of
   * it when they dial again, by the run's key.
   *
   * @throws CoordinatorError FED_RUN_CERTIFICATE when the transport has none of its own
   */
  rotateCertificate(): Promise<string>;
  /**
   * Plays all rounds that are left and says goodbye to the sites. Call it once.
   *
   * @throws CoordinatorError FED_RUN_STORAGE when the disk refuses; the run directory can then be gone on with
   */
  run(): Promise<RunSummary>;
  /** Closes every link, frees the address and the run directory. Harmless when called twice. */
  close(): Promise<void>;
}

/** How long, in all, sites that are away for a moment are waited for with a goodbye. */
const FAREWELL_MS = 10_000;

/**
 * Opens or goes on with the run in `runDir` and listens. Rounds begin with `run()`.
 *
 * @throws CoordinatorError FED_RUN_LOCKED, FED_RUN_CONFIG_CHANGED, FED_RUN_LOG_BROKEN, FED_RUN_CHECKPOINT,
 *   FED_RUN_MODEL_MISSING, FED_RUN_STORAGE, and of a store FED_STORE_LEASE_LOST, FED_STORE_OTHER_RUN,
 *   FED_STORE_DAMAGED; ProtocolError FED_TRANSPORT_ADDRESS_IN_USE
 */
export async function createCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  // The initial model must not live on in what is kept of the options.
  const { artifact, ...kept } = options;
  const directory = await openRunDirectory(options.runDir, options.federation);
  let log: RunLog | undefined;
  try {
    const { paths } = directory;
    const told = (await options.leadership?.restore(paths, options.federation)) ?? [];
    log = await openRunLog({
      path: paths.log,
      keyPath: paths.key,
      headPath: paths.head,
      config: options.federation.digest,
      ...(options.now ? { now: options.now } : {}),
    });
    await options.leadership?.begin(log);
    return await start(kept, directory, log, artifact, told);
  } catch (error) {
    log?.close();
    directory.close();
    // Another may do better.
    await options.leadership?.release();
    throw error;
  }
}

async function start(
  options: Omit<CoordinatorOptions, 'artifact'>,
  directory: RunDirectory,
  log: RunLog,
  artifact: ModelArtifact | undefined,
  told: readonly string[],
): Promise<Coordinator> {
  const { federation, leadership, now = Date.now } = options;
  const strategy = createStrategy(federation);
  const state = replay(log.records);
  const chronicle = createChronicle(log.records);
  const roster = createRoster(now);
  const stopper = new AbortController();
  const signal = AbortSignal.any(
    [options.signal, stopper.signal, leadership?.signal].filter((one) => one !== undefined),
  );
  const frozen = new Set(federation.frozenWeights);
  const metrics = openMetricsFile(directory.paths.metrics, (message) =>
    options.onEvent?.({ at: now(), type: 'warning', message }),
  );
  let wait: string | undefined;
  /** Events that wait for the store. */
  let untold = 0;

  const context: RunContext = {
    federation,
    directory,
    key: log.key,
    roster,
    state,
    manifest: federation.tensors.filter((t) => !frozen.has(t.name)),
    signal,
    now,
    record(entry: LogEntry, durability) {
      leadership?.signal.throwIfAborted();
      const record = log.append(entry, durability);
      leadership?.append(record);
      apply(state, record);
      chronicle.add(record, durability?.durable ?? false);
    },
    emit(event: NewEvent) {
      if (event.type === 'waiting') wait = event.next;
      else if (event.type === 'round-started' || event.type === 'finished') wait = undefined;
      const stamped = { at: now(), ...event } as RunEvent;
      const tell = () => {
        metrics.write(stamped);
        options.onEvent?.(stamped);
      };
      if (leadership === undefined || (!leadership.busy && untold === 0)) return tell();
      untold++;
      leadership
        .settled()
        // What the store did not take has not happened; the run ends with why.
        .then(tell, () => undefined)
        .finally(() => untold--);
    },
    async keepCheckpoint(round, model) {
      await leadership?.keepCheckpoint(round, model);
    },
  };
  for (const message of told) context.emit({ type: 'warning', message });
  leadership?.onDoubt((inDoubt) => {
    const message = inDoubt
      ? 'the NATS server does not answer, or does not take anything into the run’s store: this coordinator keeps silent until it knows whether it still leads; sites wait'
      : 'the NATS server answers again, and this coordinator still leads: the run goes on';
    // Not by `emit`, which may be waiting for that very server.
    options.onEvent?.({ at: now(), type: 'warning', message });
  });

  if (state.runId === '') await beginRun(context, artifact, log.key.publicKey, strategy.init);
  const resumed = log.records.some((r) => r.type === 'run-started');
  for (const record of state.members.values()) if (!record.revoked) roster.enlist(record);
  const current = loadCurrent(context);

  const phase = createPhase();
  const shelf = createBlobShelf();
  let adminStop: string | undefined;
  let listens: (listener: Listener) => void = () => {};
  const listening = new Promise<Listener>((resolve) => {
    listens = resolve;
  });
  const desk = createDesk({
    context,
    shelf,
    phase,
    chronicle,
    fingerprint: async () => (await listening).fingerprint ?? null,
    modelBytes: () => current.model.frame.byteLength,
    status,
    invite: (asked) => invite(asked),
    rotate: () => rotate(),
    stop(reason) {
      adminStop = reason;
      stopper.abort(new Error(reason));
    },
  });
  const transport = leadership ? heldBack(options.transport, leadership) : options.transport;
  const listener = await transport.listen(desk.onLink).catch(async (error: unknown) => {
    // Its clock would keep the process alive.
    await desk.close();
    throw error;
  });
  listens(listener);
  const url = federation.server.publicUrl ?? listener.url;
  sayListening();
  if (resumed) {
    const round = state.open?.round ?? lastRound(context) + 1;
    if (log.repairedBytes > 0) {
      context.emit({
        type: 'warning',
        message: `the last line of the log was torn by a crash; its ${log.repairedBytes} bytes were cut off`,
      });
    }
    if (!isOver()) {
      context.record({ type: 'run-resumed', round, repairedBytes: log.repairedBytes });
      context.emit({ type: 'resumed', round });
    }
  }
  let closing: Promise<void> | undefined;

  /** Tells where this coordinator listens and with which certificate; the log too, when that is another than before. */
  function sayListening(): void {
    const { fingerprint } = listener;
    const shown = fingerprint ?? null;
    if (shown !== (state.certificate ?? null))
      context.record({ type: 'certificate', fingerprint: shown }, { durable: true });
    context.emit({ type: 'listening', url, fingerprint, logPublicKey: log.key.publicKey });
  }

  async function rotate(): Promise<string> {
    if (!options.renewCertificate || !listener.renew)
      throw new CoordinatorError(
        'FED_RUN_CERTIFICATE',
        'this coordinator shows no certificate of its own: over NATS it is the server’s, and without TLS there is none',
      );
    listener.renew(await options.renewCertificate());
    sayListening();
    return listener.fingerprint ?? '';
  }

  /** Whether the log says that the run came to a good end. */
  function isOver(): boolean {
    const ends: readonly (string | undefined)[] = ['rounds', 'early-stopping', 'privacy-budget'];
    return ends.includes(state.finished?.reason);
  }

  function invite({ uses, expiresMs }: { readonly uses?: number; readonly expiresMs?: number } = {}): string {
    const secret = newSecret();
    const terms = {
      uses: uses ?? federation.invites.uses,
      expiresAt: Math.round(now() + (expiresMs ?? federation.invites.expiresMinutes * 60_000)),
    };
    context.record({ type: 'invited', invite: hashSecret(secret), ...terms }, { durable: true });
    crashPoint('coordinator:after-invite-record');
    const text = encodeInvite({
      url,
      ...(listener.fingerprint === undefined ? {} : { fingerprint: listener.fingerprint }),
      secret,
      runId: state.runId,
      publicKey: log.key.publicKey,
      expiresAt: terms.expiresAt,
    });
    context.emit({ type: 'invite', invite: text, ...terms });
    return text;
  }

  function status(): RunStatus {
    const working = phase.training ? 'training' : phase.evaluation ? 'evaluating' : 'waiting';
    return {
      runId: state.runId,
      name: federation.name,
      state: phase.goodbye ? 'finished' : working,
      round: state.open?.round ?? lastRound(context),
      rounds: federation.rounds,
      clients: [...roster.members.values()].map((member) => ({
        clientId: member.clientId,
        name: member.name,
        connected: member.channel !== undefined,
        state: member.state,
        progress: member.progress,
        ...examplesOf(member.site),
        testExamples: member.site?.testExamples ?? 0,
        lastSeenAt: member.lastSeenAt,
      })),
      members: memberViews(state),
      waitingFor: wait,
      metrics: lastMetrics(),
      bestRound: bestRound(state),
      ...privacyStatus(context),
    };
  }

  function lastMetrics(): Readonly<Record<string, number>> {
    const commit = state.commits.findLast((c) => c.centralMetrics || Object.keys(c.siteMetrics).length > 0);
    return commit?.centralMetrics ?? commit?.siteMetrics ?? {};
  }

  function summary(reason: RunSummary['reason'], message: string): RunSummary {
    const last = lastRound(context);
    const best = bestRound(state);
    return {
      runId: state.runId,
      reason,
      message,
      rounds: last,
      bestRound: best,
      lastCheckpoint: directory.paths.checkpoint(last),
      bestCheckpoint: directory.paths.checkpoint(best),
      metrics: lastMetrics(),
    };
  }

  async function finish(reason: RunSummary['reason'], message: string): Promise<RunSummary> {
    if (!isOver()) {
      context.record({ type: 'finished', round: lastRound(context), reason, message }, { durable: true });
      crashPoint('coordinator:after-finish-record');
    }
    // Also when the record was written by a former process, which may have been killed right after it.
    await directory.clearSpool(state.open?.round);
    context.emit({
      type: 'finished',
      round: lastRound(context),
      reason,
      bestRound: bestRound(state),
      message,
    });
    phase.goodbye = { code: reason, reason: message };
    phase.begin();
    await farewell();
    return summary(reason, message);
  }

  /** Tells every site; those that were at work and are away for a moment are given a moment to come back. */
  async function farewell(): Promise<void> {
    const linked = [...roster.members.values()].filter((m) => m.channel);
    await Promise.all(linked.map((member) => desk.sayGoodbye(member)));
    const expected = new Set(state.commits.at(-1)?.updates.map((u) => u.name) ?? []);
    const away = () =>
      [...roster.members.values()].some((m) => expected.has(m.name) && m.lostAt !== Number.NEGATIVE_INFINITY);
    if (!away() || options.signal?.aborted) return;
    await new Promise<void>((resolve) => {
      const poll = setInterval(() => {
        if (!away()) done();
      }, 50);
      const timer = setTimeout(done, Math.min(FAREWELL_MS, federation.deadlines.rejoinSeconds * 1000));
      options.signal?.addEventListener('abort', done, { once: true });
      function done() {
        clearInterval(poll);
        clearTimeout(timer);
        resolve();
      }
    });
  }

  async function play(): Promise<RunSummary> {
    if (isOver() && state.finished) return await finish(state.finished.reason, state.finished.message);
    try {
      const reason = await playRounds({
        context,
        strategy,
        shelf,
        desk,
        phase,
        start: current,
        evaluateCentrally: options.evaluateCentrally,
      });
      const last = lastRound(context);
      const why = {
        rounds: `all ${last} rounds are done`,
        'early-stopping': `no improvement in ${federation.earlyStopping?.patience} evaluations`,
        'privacy-budget': `the privacy budget has no room for round ${last + 1}`,
      }[reason];
      return await finish(reason, `${why}; the best model is that of round ${bestRound(state)}`);
    } catch (error) {
      if (error instanceof RoundFailed) return await finish('failed', error.message);
      if (adminStop !== undefined) return await finish('stopped', `stopped: ${adminStop}`);
      if (options.signal?.aborted) {
        const message = `paused after round ${lastRound(context)}; the same command goes on`;
        context.emit({
          type: 'finished',
          round: lastRound(context),
          reason: 'stopped',
          bestRound: bestRound(state),
          message,
        });
        return summary('stopped', message);
      }
      throw error;
    }
  }

  /** Why those that stand by need not go on; undefined when they should. */
  function endedFor(): string | undefined {
    const { finished } = state;
    return finished?.reason === 'stopped' || finished?.reason === 'failed' ? finished.message : undefined;
  }

  return {
    url,
    runId: state.runId,
    adminCredential: directory.adminCredential,
    logPublicKey: log.key.publicKey,
    invite,
    status,
    rotateCertificate: rotate,
    revoke: (name, reason) => desk.revoke({ name, reason }),
    async run() {
      const outcome = await play();
      await leadership?.settled();
      return outcome;
    },
    close() {
      closing ??= (async () => {
        stopper.abort(new CoordinatorError('FED_RUN_STOPPED', 'the coordinator was closed'));
        await desk.close();
        await listener.close();
        // What was written last; a store that is lost has told why already.
        await leadership?.settled().catch(() => undefined);
        await leadership?.release(endedFor());
        log.close();
        directory.close();
      })();
      return closing;
    },
  };
}

/** Writes the initial model and the first record of a fresh run. */
async function beginRun(
  context: RunContext,
  artifact: ModelArtifact | undefined,
  publicKey: string,
  init: ReturnType<typeof createStrategy>['init'],
): Promise<void> {
  const { federation, directory } = context;
  if (!artifact) {
    throw new CoordinatorError(
      'FED_RUN_MODEL_MISSING',
      `${directory.paths.root} holds no run yet, and a new one needs its initial model`,
    );
  }
  const wanted = federation.tensors.map((t) => `${t.name}[${t.shape.join()}]`).join();
  if (artifact.weights.map((t) => `${t.name}[${t.shape.join()}]`).join() !== wanted) {
    throw new CoordinatorError(
      'FED_RUN_MODEL_MISSING',
      `the model "${artifact.name}" has other tensors than the configuration was resolved with`,
    );
  }
  const model = globalModel(artifact.weights);
  const trained = model.tensors.filter((t) => !federation.frozenWeights.includes(t.name));
  await writeCheckpoint(directory.paths.checkpoint(0), {
    round: 0,
    tensors: model.tensors,
    state: init(trained),
    config: federation.digest,
  });
  const initial = (await createBlobShelf().addBytes(model.frame, 1024 * 1024)).digest;
  await context.keepCheckpoint(0, initial);
  context.record(
    {
      type: 'run-started',
      runId: `${federation.name}-${randomBytes(4).toString('hex')}`,
      name: federation.name,
      publicKey,
      initial,
      head: true,
    },
    { durable: true },
  );
}
