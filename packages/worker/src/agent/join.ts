/**
 * A site's part in a run: dial, say hello, be ready, do what is planned, hand it over, and dial again whenever the
 * link is lost. The trainer process does the heavy work, so that this one always has time for its heartbeats.
 */
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import {
  createBlobShelf,
  decodeInvite,
  keyFingerprint,
  RemoteError,
  type Transport,
} from '@tributary/shared-protocol';
import { isPolicyError, WorkerError } from '../errors.ts';
import { createGuard, type Guard, isEnd, isPause } from '../policy/guard.ts';
import { openLedger } from '../policy/ledger.ts';
import { loadPolicy } from '../policy/load.ts';
import { openPrivacyLedger } from '../policy/privacy-ledger.ts';
import { canWatchMemory } from '../policy/resources.ts';
import { startTrainer } from '../trainer/handle.ts';
import { type BackoffOptions, createBackoff } from './backoff.ts';
import { createDelivery } from './delivery.ts';
import { createDesk } from './desk.ts';
import type { EmitWorkerEvent, WorkerEvent, WorkerSummary } from './events.ts';
import { isFinal, openLink, type Site } from './link.ts';
import { createMasking, openSignedSums } from './masking.ts';
import { openPeers } from './peers.ts';
import { openRecords, type SiteRecords } from './records.ts';
import { openSpool } from './spool.ts';
import {
  type Credential,
  describeKey,
  findStateDir,
  openStateDir,
  type StateDir,
  siteStateDir,
  stateHome,
} from './state-dir.ts';
import {
  createTrainerKeeper,
  type StartTrainer,
  type TrainerKeeper,
  type TrainerSetup,
} from './trainer-keeper.ts';
import { createUplink } from './uplink.ts';

export interface JoinOptions {
  /** What the coordinator printed. Absent: the run that was joined from the state folder before. */
  readonly invite?: string;
  /** Holds `train/<class>/` and `test/<class>/`, or `<class>/`. */
  readonly dataDir: string;
  /** Unique in the run; part of this site's random seed. @default the name used before, else the host's name */
  readonly name?: string;
  /** Key, models and spool of this run and name. @default a folder under TRIBUTARY_HOME or the user's state folder */
  readonly stateDir?: string;
  /** The site's policy. @default `site-policy.yaml` in `dataDir`, where there is one */
  readonly policyFile?: string;
  /** @default 'auto' */
  readonly engine?: TrainerSetup['engine'];
  /** Of the engine, where it has any. */
  readonly threads?: number;
  /** Threads that decode and augment images. @default one a core but one, from 1 to 8 */
  readonly imageThreads?: number;
  /** Decoded images kept in memory, in bytes. @default 512 MiB, at most an eighth of the machine's memory */
  readonly maxCacheBytes?: number;
  readonly transport: Transport;
  /** @default the trainer process of this package */
  readonly startTrainer?: StartTrainer;
  readonly onEvent?: (event: WorkerEvent) => void;
  /** Aborting it means leaving: the coordinator is told, and the promise resolves. */
  readonly signal?: AbortSignal;
  readonly backoff?: BackoffOptions;
  /** Without a coordinator for this long, FED_WORKER_COORDINATOR_GONE. @default 6 hours in millis */
  readonly giveUpAfterMs?: number;
  /** A link is given up when a heartbeat has no answer for this long and nothing else was heard. @default 15_000 millis */
  readonly heartbeatPatienceMs?: number;
  /** Sent in `hello`. */
  readonly software?: string;
  /** @default Date.now */
  readonly now?: () => number;
}

/** A goodbye that is no end of the run but of this site's part in it. */
const EXPELLED = 'FED_JOIN_REVOKED';
const SIX_HOURS_MS = 6 * 60 * 60 * 1000;

/**
 * Takes part in a run until the coordinator says goodbye or `signal` is aborted, and returns what was done. Survives
 * lost links, a restarted coordinator and a crashing trainer; being killed and started again continues the work.
 *
 * Rejects with what can't be mended by waiting: FED_INVITE_MALFORMED, FED_TRANSPORT_FINGERPRINT, FED_PROTOCOL_VERSION,
 * the coordinator's own refusal (a RemoteError: invite used, name taken …), FED_WORKER_CLOCK, FED_WORKER_PREFLIGHT,
 * FED_WORKER_STATE_LOCKED, FED_WORKER_STATE_UNUSABLE, FED_WORKER_NO_CREDENTIAL, FED_WORKER_KEY, FED_WORKER_WRONG_RUN,
 * FED_PROTOCOL_IDENTITY and FED_WORKER_COORDINATOR_GONE; and FED_POLICY_… where the site's policy can't be read, or
 * refuses the federation.
 */
export async function joinFederation(options: JoinOptions): Promise<WorkerSummary> {
  const now = options.now ?? Date.now;
  const emit: EmitWorkerEvent = (event) => options.onEvent?.({ ...event, at: now() } as WorkerEvent);
  const invite = options.invite === undefined ? undefined : decodeInvite(options.invite);
  const wantedName = options.name ?? hostname();
  const { dataDir, policyFile } = options;
  const loaded = await loadPolicy({ file: policyFile, dataDir });
  const path =
    options.stateDir ??
    (invite !== undefined
      ? siteStateDir(stateHome(), invite.runId, wantedName)
      : await findStateDir(stateHome(), options.name));
  const state = await openStateDir(path);
  let keeper: TrainerKeeper | undefined;
  let guard: Guard | undefined;
  let records: SiteRecords | undefined;
  const over = new AbortController();
  try {
    emit({ type: 'preflight', step: { name: 'state', state: 'ok', detail: path, advice: undefined } });
    const stored = await state.readCredential();
    // The key first: once a credential is there, so is the key that goes with it.
    const nodeKey = await state.openKey({ create: !(stored?.confirmed ?? false) });
    emit({
      type: 'preflight',
      step: { name: 'identity', state: 'ok', detail: describeKey(nodeKey), advice: undefined },
    });
    const spool = await openSpool(state.spoolDir);
    guard = createGuard({
      loaded,
      ledger: () => openLedger({ path: state.ledgerFile, now }),
      privacyLedger: () => openPrivacyLedger(state.privacyLedgerFile),
      noised: () => records?.noised ?? new Map(),
      now,
      emit,
      engine: options.engine ?? 'auto',
      canWatchMemory: await canWatchMemory(),
      hasSpooled: () => spool.entries.length > 0,
    });
    const { step } = guard;
    emit({ type: 'preflight', step });
    const credential = await settleCredential(state, stored, options, invite, wantedName);
    records = await openRecords(state.recordsFile, credential.name);
    const peers = await openPeers(state.peersFile, credential.runId, ({ name, publicKey }) =>
      emit({ type: 'log', message: `pinned the key ${keyFingerprint(publicKey)} of site "${name}"` }),
    );
    const uplink = createUplink();
    const delivery = createDelivery(spool, createBlobShelf(), guard, emit);
    const signal = options.signal ?? new AbortController().signal;

    const site: Site = {
      options: { ...options, transport: guard.meter(options.transport) },
      state,
      key: nodeKey.key,
      credential,
      secret: credential.confirmed ? undefined : invite?.secret,
      emit,
      now,
      signal,
      over: over.signal,
      uplink,
      delivery,
      records,
      guard,
      prepare(federation) {
        const { engine = 'auto', threads, imageThreads, maxCacheBytes } = options;
        keeper ??= createTrainerKeeper(
          options.startTrainer ?? startTrainer,
          site.guard.bound({
            federation,
            dataDir,
            workDir: state.workDir,
            siteName: credential.name,
            engine,
            ...(threads === undefined ? {} : { threads }),
            ...(imageThreads === undefined ? {} : { imageThreads }),
            ...(maxCacheBytes === undefined ? {} : { maxCacheBytes }),
          }),
          {
            onProgress: (progress) => site.desk?.onProgress(progress),
            onLog: (message) => emit({ type: 'log', message }),
          },
        );
        const { modelsDir } = state;
        site.desk ??= createDesk({ spool, modelsDir, uplink, keeper, delivery, guard: site.guard, emit });
        const secure = federation.privacy?.secureAggregation;
        if (secure !== undefined)
          site.masking ??= createMasking({
            federation,
            secure,
            name: credential.name,
            key: nodeKey.key,
            spool,
            delivery,
            guard: site.guard,
            peers,
            sums: openSignedSums(state.signedSumsFile),
            directory: state.workDir,
            now,
            emit,
          });
        return keeper;
      },
      async rest() {
        // What the trainer holds of the machine, its GPU's memory above all, is others' meanwhile.
        await keeper?.close();
        site.ready = undefined;
      },
      desk: undefined,
      masking: undefined,
      ready: undefined,
      clientId: '',
      configDigest: undefined,
      links: 0,
    };
    checkCoordinator(site);
    const end = await keepLinked(site);
    emit({ type: 'finished', ...end });
    return {
      clientId: site.clientId,
      name: credential.name,
      runId: credential.runId,
      ...end,
      updatesAccepted: delivery.accepted,
      updatesRefused: delivery.refused,
      evaluations: delivery.evaluations,
      stateDir: path,
    };
  } finally {
    // First: checks that are still under way must not start a trainer behind our back.
    over.abort(new Error('this site’s part is over'));
    await keeper?.close();
    guard?.close();
    await state.release();
  }
}

type End = Pick<WorkerSummary, 'ended' | 'code' | 'reason'>;

/** Links follow links until one ends the run. */
async function keepLinked(site: Site): Promise<End> {
  const { signal, emit, options } = site;
  const backoff = createBackoff(options.backoff);
  const giveUpAfterMs = options.giveUpAfterMs ?? SIX_HOURS_MS;
  let lastSeen = performance.now();
  try {
    for (;;) {
      let reason: string;
      const linksBefore = site.links;
      try {
        const end = await openLink(site);
        if (end.goodbye?.code === EXPELLED) throw new RemoteError(EXPELLED, end.goodbye.reason, false);
        if (end.goodbye !== undefined) return { ended: 'goodbye', ...end.goodbye };
        reason = end.reason;
      } catch (error) {
        if (signal.aborted) break;
        if (isPause(error)) {
          await site.rest();
          await site.guard.rest(error, signal);
          if (signal.aborted) break;
          backoff.reset();
          lastSeen = performance.now();
          continue;
        }
        if (isPolicyError(error) && isEnd(error) && site.links > 0) {
          return { ended: 'left', code: error.code, reason: error.message };
        }
        if (isFinal(error)) throw error;
        reason = (error as Error).message;
      }
      if (signal.aborted) break;
      if (site.links > linksBefore) {
        backoff.reset();
        lastSeen = performance.now();
      }
      const goneForMs = performance.now() - lastSeen;
      if (goneForMs > giveUpAfterMs) {
        throw new WorkerError(
          'FED_WORKER_COORDINATOR_GONE',
          `no coordinator at ${site.credential.url} for ${Math.round(goneForMs / 1000)} s (${reason}); finished work is kept in ${site.state.path}: join again once it is back`,
        );
      }
      const delayMs = backoff.next();
      emit({ type: 'reconnecting', attempt: backoff.attempt, delayMs, reason });
      await delay(delayMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) break;
    }
    return { ended: 'left', code: 'FED_WORKER_LEFT', reason: 'this site left' };
  } finally {
    await site.desk?.close();
    await site.masking?.close();
  }
}

/** Before a coordinator hears anything of this site. */
function checkCoordinator({ guard, credential, emit }: Site): void {
  try {
    guard.checkCoordinator(credential);
  } catch (error) {
    const detail = (error as Error).message;
    emit({ type: 'preflight', step: { name: 'policy', state: 'fail', detail, advice: undefined } });
    throw error;
  }
}

/** Where to dial and under which name, written down before it is done for the first time. */
async function settleCredential(
  state: StateDir,
  stored: Credential | undefined,
  options: JoinOptions,
  invite: ReturnType<typeof decodeInvite> | undefined,
  name: string,
): Promise<Credential> {
  if (invite === undefined) {
    if (stored !== undefined) return stored;
    throw new WorkerError(
      'FED_WORKER_NO_CREDENTIAL',
      `no run was joined from ${state.path}; join with an invite from the coordinator`,
    );
  }
  if (stored !== undefined && stored.runId !== invite.runId) {
    throw new WorkerError(
      'FED_WORKER_WRONG_RUN',
      `${state.path} belongs to run ${stored.runId}, the invite is for ${invite.runId}; use another state folder`,
    );
  }
  // The coordinator may have moved: the invite's address is the newer one.
  const { url, fingerprint, runId } = invite;
  // The run's key is not: it can't change, and what was pinned first stays.
  const publicKey = stored?.publicKey ?? invite.publicKey;
  const credential: Credential = {
    version: 2,
    url,
    ...(fingerprint === undefined ? {} : { fingerprint }),
    runId,
    name: options.name ?? stored?.name ?? name,
    ...(publicKey === undefined ? {} : { publicKey }),
    confirmed: stored?.confirmed ?? false,
  };
  await state.writeCredential(credential);
  return credential;
}
