/**
 * Where plans become work: at most one at a time, the newest. A plan that is being worked on or is already spooled is
 * no new work; any other plan takes the place of the present one. Work goes on while links come and go.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import {
  type Channel,
  crashPoint,
  errorCode,
  fetchBlob,
  type MessageOf,
  openFileSink,
  RemoteError,
} from '@tributary/shared-protocol';
import { isPolicyError, type PolicyError } from '../errors.ts';
import type { Guard } from '../policy/guard.ts';
import type { Delivery } from './delivery.ts';
import type { EmitWorkerEvent } from './events.ts';
import { withRoom } from './room.ts';
import type { Spool, WorkKey, WorkResult } from './spool.ts';
import { pruneModels } from './state-dir.ts';
import { type Trainer, type TrainerKeeper, withAttempts } from './trainer-keeper.ts';
import type { Uplink } from './uplink.ts';

type Plan = MessageOf<'plan'>;
type State = MessageOf<'heartbeat'>['state'];

/** How long the coordinator has to hear that work was stopped. */
const HALT_TIMEOUT_MS = 2000;
/** How often a model that arrives damaged is fetched again. */
const MAX_FETCHES = 3;
/** Before a failure that the coordinator can't take just now is told again. */
const RETRY_MS = 2000;

export interface Desk {
  /** What this site does now, for the heartbeat. */
  readonly activity: { readonly state: State; readonly round: number; readonly progress: number };
  /** Takes on a plan that came over `channel`. */
  take(plan: Plan, channel: Channel): void;
  /** The trainer's progress on the present job, in [0, 1]. */
  onProgress(progress: number): void;
  /** The site's policy stops the present work: waits until it has let go, and tells the coordinator why. */
  halt(reason: PolicyError, channel: Channel): Promise<void>;
  /** Stops the present work and waits until it has let go. */
  close(): Promise<void>;
}

interface Job {
  readonly key: WorkKey;
  /** The latest of its repetitions: a coordinator that came back may cut the model into other chunks. */
  plan: Plan;
  /** Where that came from. */
  plannedOn: Channel;
  readonly controller: AbortController;
  state: State;
  progress: number;
  /** It has given up, and is telling the coordinator so: the same plan from now on asks for another attempt. */
  failed: boolean;
  done: Promise<void>;
  /** Called when the plan is repeated. */
  onRepeat(): void;
}

export interface DeskOptions {
  readonly spool: Spool;
  readonly modelsDir: string;
  readonly uplink: Uplink;
  readonly keeper: TrainerKeeper;
  readonly delivery: Delivery;
  readonly guard: Guard;
  readonly emit: EmitWorkerEvent;
}

/** Returns an idle desk. */
export function createDesk(options: DeskOptions): Desk {
  const { spool, modelsDir, uplink, keeper, delivery, guard, emit } = options;
  let current: Job | undefined;
  let lastRound = 0;
  /** The last two global models: a round trains on the one it was evaluated on before. */
  let recentModels: string[] = [];

  function take(plan: Plan, channel: Channel): void {
    const { task, round } = plan;
    const key = { task, round, base: plan.model.digest };
    if (current !== undefined && sameKey(current.key, key) && isAtWork(current)) {
      current.plan = plan;
      current.plannedOn = channel;
      current.onRepeat();
      return;
    }
    lastRound = round;
    const spooled = spool.find(key);
    if (spooled !== undefined) {
      void delivery.offer(spooled, channel);
      return;
    }
    // What is left of earlier rounds gets its last answer now.
    for (const entry of spool.entries) {
      if (entry.round < round) void delivery.offer(entry, channel);
    }
    const former = current;
    if (former !== undefined) {
      const reason = `round ${round} (${task}) was planned meanwhile`;
      if (isAtWork(former))
        emit({ type: 'abandoned', task: former.key.task, round: former.key.round, reason });
      former.controller.abort(new Error(reason));
    }
    const deadlineAt = plan.deadlineMs === null ? null : Date.now() + plan.deadlineMs;
    emit({ type: 'planned', task, round, deadlineAt });
    const controller = new AbortController();
    const job: Job = {
      key,
      plan,
      plannedOn: channel,
      controller,
      state: 'fetching',
      progress: 0,
      failed: false,
      done: Promise.resolve(),
      onRepeat: () => undefined,
    };
    current = job;
    job.done = (former?.done ?? Promise.resolve())
      .then(() => work(job))
      .catch((error: unknown) => giveUp(job, error))
      .finally(() => {
        if (current === job) current = undefined;
      });
  }

  async function work(job: Job): Promise<void> {
    const { key, plan, controller } = job;
    const { signal } = controller;
    signal.throwIfAborted();
    recentModels = [plan.model.digest, ...recentModels.filter((digest) => digest !== plan.model.digest)];
    recentModels = recentModels.slice(0, 2);
    await pruneModels(modelsDir, new Set(recentModels));
    const room = (what: string) => ({
      what,
      signal,
      onLog: (message: string) => emit({ type: 'log', message }),
    });
    guard.admitPlan(plan, { modelIsHere: await modelIsHere(plan) });
    const globalFile = await withRoom(() => fetchGlobal(job), room(`the model of round ${plan.round}`));
    crashPoint('agent:after-fetch');
    job.progress = 0;
    const { round, learningRate, clippingNorm, cohortSize, minUpdates } = plan;
    if (key.task === 'train') {
      const { site } = await keeper.get();
      signal.throwIfAborted();
      guard.admitTraining(plan, site.trainExamples);
      job.state = 'training';
      const told = { clippingNorm, cohortSize, minUpdates };
      const work = { round, globalFile, outFile: spool.updatePath(key), learningRate, told };
      const result = await withRoom(
        () => attempt(job, (trainer) => trainer.train(work, { signal })),
        room(`the update of round ${round}`),
      );
      signal.throwIfAborted();
      crashPoint('agent:after-train');
      guard.spend(job.plan, result.numExamples);
      const { bytes, numExamples, metrics } = await withRoom(
        () => spool.addUpdate(key, finite(result), job.plan),
        room(`the update of round ${round}`),
      );
      crashPoint('agent:after-spool');
      emit({ type: 'spooled', round, bytes, numExamples, metrics });
    } else {
      job.state = 'evaluating';
      const result = await attempt(job, (trainer) => trainer.evaluate({ round, globalFile }, { signal }));
      signal.throwIfAborted();
      await withRoom(
        () => spool.addEvaluation(key, finite(result)),
        room(`the evaluation of round ${round}`),
      );
    }
    const entry = spool.find(key);
    // Without a link now, the next one begins with what is spooled.
    if (entry !== undefined && uplink.channel !== undefined) void delivery.offer(entry, uplink.channel);
  }

  const modelPath = ({ model }: Plan) => join(modelsDir, `${model.digest}.frame`);

  /** Files get their name once their digest was checked. */
  async function modelIsHere(plan: Plan): Promise<boolean> {
    const found = await stat(modelPath(plan)).catch(() => undefined);
    return found?.size === plan.model.bytes;
  }

  async function fetchGlobal(job: Job): Promise<string> {
    const { signal } = job.controller;
    const path = modelPath(job.plan);
    for (let damaged = 0; ; ) {
      if (await modelIsHere(job.plan)) return path;
      const channel = await uplink.whenUp(signal);
      if (job.plannedOn !== channel) {
        // The plan is repeated on every new link, and says how to fetch from this one.
        await repeated(job);
        continue;
      }
      const { model, round } = job.plan;
      try {
        const sink = await openFileSink(path, model, { fsync: true });
        await fetchBlob(channel, model, sink, {
          signal,
          onProgress(bytes) {
            crashPoint('agent:mid-fetch');
            job.progress = model.bytes === 0 ? 1 : bytes / model.bytes;
            emit({ type: 'fetching', round, bytes, totalBytes: model.bytes });
          },
        });
      } catch (error) {
        signal.throwIfAborted();
        const code = errorCode(error);
        if (code === 'FED_TRANSPORT_CLOSED') await channel.closed;
        else if (code === 'FED_PROTOCOL_BLOB_DIGEST' && ++damaged < MAX_FETCHES) continue;
        else if (code === 'FED_PROTOCOL_BLOB_UNKNOWN') {
          // A coordinator that came back has not put the model out yet, or has gone on: a plan will say which.
          emit({ type: 'log', message: `round ${round}: the model is not on offer; waiting for a plan` });
          if (job.plan.model === model) await repeated(job);
        } else if (code !== 'FED_TRANSPORT_TIMEOUT') throw error;
      }
    }
  }

  function attempt(job: Job, run: (trainer: Trainer) => Promise<WorkResult>): Promise<WorkResult> {
    const { signal } = job.controller;
    return withAttempts(async () => {
      job.progress = 0;
      const trainer = await keeper.get();
      signal.throwIfAborted();
      try {
        return await run(trainer);
      } catch (error) {
        signal.throwIfAborted(); // a crash of work that nobody wants any more is no crash
        throw error;
      }
    }, emit);
  }

  /** Tells the coordinator that this plan won't be fulfilled here, as soon as there is a link to say it on. */
  async function giveUp(job: Job, error: unknown): Promise<void> {
    const { signal } = job.controller;
    if (signal.aborted) return;
    job.failed = true;
    const { task, round } = job.key;
    const code = errorCode(error) ?? 'FED_TRAINER_FAILED';
    const reason = error instanceof Error ? error.message : String(error);
    emit({ type: isPolicyError(error) ? 'declined' : 'failed', task, round, code, reason });
    while (!signal.aborted) {
      try {
        const channel = await uplink.whenUp(signal);
        await channel.call({ type: 'failure', task, round, code, reason }, 'ok');
        if (isPolicyError(error)) guard.told(error);
        return;
      } catch (callError) {
        const lost = errorCode(callError);
        if (callError instanceof RemoteError && callError.retryable) {
          await pause(RETRY_MS, undefined, { signal }).catch(() => undefined);
        } else if (lost !== 'FED_TRANSPORT_CLOSED' && lost !== 'FED_TRANSPORT_TIMEOUT') return;
      }
    }
  }

  return {
    get activity(): Desk['activity'] {
      if (current !== undefined) {
        return { state: current.state, round: current.key.round, progress: current.progress };
      }
      return { state: delivery.sending > 0 ? 'sending' : 'idle', round: lastRound, progress: 0 };
    },
    take,
    onProgress(progress) {
      if (current === undefined || current.state === 'fetching') return;
      current.progress = Math.min(1, Math.max(0, progress));
      const type = current.state === 'training' ? 'training' : 'evaluating';
      emit({ type, round: current.key.round, progress: current.progress });
    },
    async halt(error, channel) {
      const job = current;
      if (job === undefined) return;
      const { task, round } = job.key;
      const { code, message: reason } = error;
      job.controller.abort(error);
      await job.done;
      emit({ type: 'declined', task, round, code, reason });
      await channel
        .call({ type: 'failure', task, round, code, reason }, 'ok', { timeoutMs: HALT_TIMEOUT_MS })
        .catch(() => undefined); // the link is about to end either way; `leave` has the reason too
    },
    async close() {
      current?.controller.abort(new Error('the agent is stopping'));
      await current?.done;
    },
  };
}

/** Resolves when the coordinator repeats the job's plan; rejects with the reason when the job is abandoned. */
function repeated(job: Job): Promise<void> {
  const { signal } = job.controller;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    job.onRepeat = () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    };
  });
}

function isAtWork({ controller, failed }: Job): boolean {
  return !controller.signal.aborted && !failed;
}

function sameKey(a: WorkKey, b: WorkKey): boolean {
  return a.task === b.task && a.round === b.round && a.base === b.base;
}

/** NaN and Infinity can't be said on the wire; a loss that is one of them is left out. */
function finite({ numExamples, metrics }: WorkResult): WorkResult {
  return {
    numExamples,
    metrics: Object.fromEntries(Object.entries(metrics).filter(([, v]) => Number.isFinite(v))),
  };
}
