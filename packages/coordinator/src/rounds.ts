/** The run itself: round after round from wherever the log says it stands, each committed before the next begins. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BlobRef, type BlobShelf, crashPoint, resealFrame } from '@tributary/shared-protocol';
import { createFold } from './aggregate/fold.ts';
import { type GlobalModel, globalModel, readCheckpoint, writeCheckpoint } from './checkpoint.ts';
import type { Desk, Phase } from './desk.ts';
import { CoordinatorError } from './errors.ts';
import { improves, weightedMetrics } from './metrics.ts';
import { affordable, BudgetSpent, epsilonOfAll, mostSpent } from './privacy-books.ts';
import type { RunContext } from './round/context.ts';
import { createEvaluation } from './round/evaluation.ts';
import { fewestUpdates, SiteExpelled } from './round/gathering.ts';
import { waitForQuorum } from './round/quorum.ts';
import { createSecureRound } from './round/secure-round.ts';
import { createTrainRound } from './round/train-round.ts';
import type { CommittedRound } from './run/records.ts';
import { releaseMean, roundNorm } from './site-level.ts';
import type { MeanUpdate, StrategyState, StreamingStrategy, UpdateFacts } from './strategy.ts';

type Metrics = Readonly<Record<string, number>>;

export interface RoundsOptions {
  readonly context: RunContext;
  readonly strategy: StreamingStrategy;
  readonly shelf: BlobShelf;
  readonly desk: Desk;
  readonly phase: Phase;
  /** The committed model and what the strategy keeps. */
  readonly start: { readonly model: GlobalModel; readonly state: StrategyState };
  readonly evaluateCentrally: ((checkpointFrameFile: string) => Promise<Record<string, number>>) | undefined;
}

/** Plays all rounds that are left and returns why there are no more. Rejects with RoundFailed or the signal's reason. */
export async function playRounds(
  options: RoundsOptions,
): Promise<'rounds' | 'early-stopping' | 'privacy-budget'> {
  const { context, strategy } = options;
  const { federation, state } = context;
  const fold = createFold(context.manifest, strategy);
  let current = options.start;
  let published: BlobRef | undefined;
  if (shouldStop(context)) return 'early-stopping';

  for (let round = lastRound(context) + 1; round <= federation.rounds; round++) {
    try {
      published = await playRound(round);
    } catch (error) {
      if (error instanceof BudgetSpent) return 'privacy-budget';
      throw error;
    }
    if (shouldStop(context)) return 'early-stopping';
  }
  return 'rounds';

  /** Plays a round, and plays what must be of it again whenever one of its sites is expelled meanwhile. */
  async function playRound(round: number): Promise<BlobRef> {
    const startedAt = performance.now();
    for (;;) {
      try {
        return await tryRound(round, startedAt);
      } catch (error) {
        if (!(error instanceof SiteExpelled)) throw error;
        context.emit({
          type: 'warning',
          message: `${error.message}; round ${round} is made without what it sent`,
        });
      }
    }
  }

  /** Rejects with SiteExpelled when the round has to be played once more; the model is then the one before it. */
  async function tryRound(round: number, startedAt: number): Promise<BlobRef> {
    const open = stillOpen(round) ?? (await openRound(round));
    const model = await publish();
    if (open.base !== model.digest) {
      throw new CoordinatorError(
        'FED_RUN_CHECKPOINT',
        `round ${round} started from model ${open.base.slice(0, 12)}..., and the checkpoint before it holds ${model.digest.slice(0, 12)}...; restore the checkpoint from a copy`,
      );
    }
    const { cohort, learningRate, asked } = open;
    const norm = roundNorm(context);
    const clippingNorm = norm?.adapts ? norm.clippingNorm : undefined;
    const plan = { round, cohort, learningRate, asked, model, clippingNorm };
    const { secureAggregation } = federation.privacy ?? {};
    const training = secureAggregation
      ? createSecureRound(context, secureAggregation, plan)
      : createTrainRound(context, fold, plan);
    const deadlineAt = context.now() + federation.deadlines.roundSeconds * 1000;
    context.emit({
      type: 'round-started',
      round,
      cohort,
      modelBytes: model.bytes,
      deadlineAt,
    });
    fold.clear(norm?.clippingNorm);
    await training.restore();
    if (open.cohort !== cohort) throw new SiteExpelled('a site of the cohort was expelled');
    options.phase.training = training;
    options.phase.begin();
    try {
      // The updates of the round before go while the new plans are at work.
      await Promise.all([training.run(), context.directory.clearSpool(round)]);
    } finally {
      options.phase.training = undefined;
    }
    crashPoint('coordinator:before-aggregate');

    const updates = [...training.accepted.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    const facts = updates.map((update) => ({ ...update, numExamples: update.numExamples ?? 0 }));
    const sites = updates.map(({ name }) => name);
    const { mean: plain, numExamples, clippedFraction } = training.sum();
    const { mean, committed } = releaseMean(context, fold, plain, { round, asked, sites });
    options.shelf.remove(model.digest);
    current = aggregate(options, current, mean);
    crashPoint('coordinator:after-aggregate');
    // The disk works while this thread hashes.
    const written = writeCheckpoint(context.directory.paths.checkpoint(round), {
      round,
      tensors: current.model.tensors,
      state: current.state,
      config: federation.digest,
    });
    const [next] = await Promise.all([putOnOffer(), written]);
    crashPoint('coordinator:after-checkpoint');

    // On its way while the model is measured.
    const keeping = context.keepCheckpoint(round, next.digest);
    keeping.catch(() => undefined);
    const evaluated = await evaluate(round, next, learningRate, facts);
    await keeping;
    const measured = { siteMetrics: evaluated.sites, centralMetrics: evaluated.central ?? null };
    const commit: CommittedRound = {
      type: 'committed',
      round,
      checkpoint: `checkpoints/round-${String(round).padStart(4, '0')}.safetensors`,
      model: next.digest,
      updates: updates.map(({ name, digest, numExamples: own }) => ({
        name,
        digest,
        ...(own === undefined ? {} : { numExamples: own }),
      })),
      ...(numExamples === undefined ? {} : { numExamples }),
      ...(clippedFraction === undefined ? {} : { clippedFraction }),
      trainMetrics: weightedMetrics(facts),
      ...measured,
      best: isBest(context, measured),
      seconds: (performance.now() - startedAt) / 1000,
      ...epsilonOfAll(context),
      ...committed,
    };
    const expelled = facts.find(({ name }) => state.members.get(name)?.revoked);
    if (expelled) {
      // What it sent is in this model already: back to the one before, and the other updates from the spool.
      options.shelf.remove(next.digest);
      published = undefined;
      current = loadCurrent(context);
      throw new SiteExpelled(`"${expelled.name}" was expelled`);
    }
    crashPoint('coordinator:before-commit');
    context.record(commit, { durable: true });
    crashPoint('coordinator:after-commit');
    training.committed();
    context.emit({
      type: 'committed',
      round,
      digest: commit.model,
      ...(numExamples === undefined ? {} : { numExamples }),
      ...(clippedFraction === undefined ? {} : { clippedFraction }),
      updates: facts.length,
      seconds: commit.seconds,
      best: commit.best,
      ...mostSpent(context, commit),
    });
    return next;
  }

  /** Puts the model that is committed on offer, once. */
  async function publish(): Promise<BlobRef> {
    published ??= await putOnOffer();
    return published;
  }

  /** Makes the digests of a model that was changed in place true again, and offers it. */
  async function putOnOffer(): Promise<BlobRef> {
    await resealFrame(current.model.frame);
    return await options.shelf.addBytes(current.model.frame, options.desk.chunkBytes());
  }

  /** The round when it is open with enough of its sites left. */
  function stillOpen(round: number) {
    const { open } = state;
    if (open?.round !== round) return undefined;
    const fewest = fewestUpdates(federation.cohort.quorum, open.asked);
    return open.cohort.length >= fewest ? open : undefined;
  }

  async function openRound(round: number) {
    const again = state.open?.round === round;
    options.phase.regathering = again ? round : undefined;
    options.phase.begin();
    const ready = affordable(context, round, await waitForQuorum(context, round));
    const { cohort, learningRate } = strategy.configureTrain(current.state, { round, ready });
    const model = await publish();
    crashPoint('coordinator:before-round-record');
    const entry = { type: 'round-started', round, cohort, base: model.digest, learningRate } as const;
    context.record(entry);
    options.phase.regathering = undefined;
    crashPoint('coordinator:after-round-record');
    return state.open!;
  }

  async function evaluate(
    round: number,
    model: BlobRef,
    learningRate: number,
    facts: readonly UpdateFacts[],
  ) {
    const { everyRounds, sites } = federation.evaluation;
    if (round % everyRounds !== 0 && round !== federation.rounds) return { sites: {}, central: undefined };
    const central = await evaluateCentrally(round);
    const results = sites ? await evaluateAtSites(round, model, learningRate, facts) : [];
    const { metrics } = strategy.aggregateEvaluate(current.state, results);
    if (results.length > 0 || central) {
      context.emit({
        type: 'evaluated',
        round,
        metrics,
        sites: results.map(({ name, numExamples, metrics: own }) => ({ name, numExamples, metrics: own })),
        central,
      });
    }
    return { sites: metrics, central };
  }

  async function evaluateAtSites(
    round: number,
    model: BlobRef,
    learningRate: number,
    facts: readonly UpdateFacts[],
  ) {
    // Sites of this round that are away for a moment are asked too, when they come back in time.
    const cohort = new Set([...context.roster.ready(), ...facts.map((f) => f.name)]);
    const able = [...cohort]
      .filter((name) => context.roster.members.get(name)?.site?.testExamples !== 0)
      .sort();
    const plan = strategy.configureEvaluate(current.state, { round, ready: able });
    const evaluation = createEvaluation(context, { round, cohort: plan.cohort, model, learningRate });
    options.phase.evaluation = evaluation;
    try {
      return await evaluation.run();
    } finally {
      options.phase.evaluation = undefined;
    }
  }

  async function evaluateCentrally(round: number): Promise<Metrics | undefined> {
    if (!options.evaluateCentrally) return undefined;
    const file = join(context.directory.paths.spool, `global-${round}.frame`);
    try {
      writeFileSync(file, current.model.frame);
      return await options.evaluateCentrally(file);
    } finally {
      rmSync(file, { force: true });
    }
  }
}

/** Writes the new weights over the old frame, which is on offer no longer. */
function aggregate(
  { context, strategy }: RoundsOptions,
  { model, state }: { readonly model: GlobalModel; readonly state: StrategyState },
  mean: MeanUpdate,
): { model: GlobalModel; state: StrategyState } {
  const trained = new Set(context.manifest.map((t) => t.name));
  const weights = model.tensors.filter((t) => trained.has(t.name)).map((t) => t.data as Float32Array);
  const next = strategy.aggregateTrain(state, weights, mean);
  return { model, state: next };
}

/** The model and strategy state after the last commit. */
export function loadCurrent(context: RunContext): RoundsOptions['start'] {
  const { tensors, state } = readCheckpoint(
    context.directory.paths.checkpoint(lastRound(context)),
    context.federation.tensors,
  );
  return { model: globalModel(tensors), state };
}

export function lastRound({ state }: RunContext): number {
  return state.commits.at(-1)?.round ?? 0;
}

interface Measured {
  readonly siteMetrics: Metrics;
  readonly centralMetrics: Metrics | null;
}

/** The central evaluation's number where there is one, else the sites'. */
export function measuredValue(measured: Measured, metric: string): number | undefined {
  return measured.centralMetrics?.[metric] ?? measured.siteMetrics[metric];
}

/** While nothing was ever measured, the latest model counts as the best. */
function isBest({ federation, state }: RunContext, measured: Measured): boolean {
  const { metric, mode } = federation.best;
  const former = state.commits.filter((c) => c.best).map((c) => measuredValue(c, metric));
  const best = former.findLast((value) => value !== undefined);
  const value = measuredValue(measured, metric);
  return value === undefined ? best === undefined : improves(value, best, mode);
}

function shouldStop({ federation, state }: RunContext): boolean {
  const rule = federation.earlyStopping;
  if (!rule) return false;
  let best: number | undefined;
  let without = 0;
  for (const commit of state.commits) {
    const value = measuredValue(commit, rule.metric);
    if (value === undefined) continue;
    if (improves(value, best, rule.mode, rule.minDelta)) {
      best = value;
      without = 0;
    } else without++;
  }
  return without >= rule.patience;
}
