/**
 * The site's last word, as the agent asks for it: before it dials, before it is ready, before each plan is worked on
 * and before each update is sent. What a coordinator says can make an answer stricter and never looser.
 */
import { setTimeout as delay } from 'node:timers/promises';
import {
  epsilonSpent,
  FEWEST_SITES,
  isWithinBudget,
  type PrivateRound,
  poissonSampling,
  siteLevelRound,
} from '@tributary/privacy';
import {
  differentialPrivacyOf,
  type FederationView,
  type MessageOf,
  type SharedNoisePlan,
  sharedNoiseOf,
  type Transport,
} from '@tributary/shared-protocol';
import type { EmitWorkerEvent, PreflightStep } from '../agent/events.ts';
import type { Peer } from '../agent/peers.ts';
import type { CohortTold, SpooledUpdate } from '../agent/spool.ts';
import type { TrainerSetup } from '../agent/trainer-keeper.ts';
import { isPolicyError, PolicyError, type PolicyErrorCode } from '../errors.ts';
import { updateNorm } from '../site-level.ts';
import { closesAt, describeHours, opensAt } from './hours.ts';
import { dayOf, type Ledger, nextDay } from './ledger.ts';
import { type LoadedPolicy, nameOf, POLICY_FILE } from './load.ts';
import { meteredTransport } from './metered.ts';
import type { PrivacyEntry, PrivacyLedger } from './privacy-ledger.ts';
import { boundSetup } from './resources.ts';
import {
  bytesText,
  cohortRefusal,
  engineRefusal,
  type FederationFacts,
  judge,
  moment,
  normRefusal,
  strangersIn,
  summarise,
} from './rules.ts';

/** How often the clock is looked at: a machine may sleep, and its clock may be set. */
const LOOK_MS = 1000;

/** What makes a site go away for a while or for good, rather than refuse one plan after the other. */
const LEAVING: readonly PolicyErrorCode[] = [
  'FED_POLICY_HOURS',
  'FED_POLICY_BYTES',
  'FED_POLICY_ROUNDS',
  'FED_POLICY_BUDGET',
];
/** Reasons that no time mends. */
const ENDING: readonly PolicyErrorCode[] = ['FED_POLICY_ROUNDS', 'FED_POLICY_BUDGET'];

export interface Guard {
  /** What applies, or that nothing does. */
  readonly step: PreflightStep;
  /** Throws FED_POLICY_COORDINATOR; comes before anything is sent. */
  checkCoordinator(coordinator: { readonly url: string; readonly fingerprint?: string | undefined }): void;
  /** Throws what speaks against the whole federation; with several reasons, all in one message. */
  checkFederation(federation: FederationView, protocol: { readonly minor: number }): void;
  /** Whether updates leave this site under masks only. */
  readonly masks: boolean;
  /** Whether each update spends of the records' privacy. */
  readonly spends: boolean;
  /**
   * Throws FED_POLICY_PRIVACY or FED_POLICY_COHORT when this update may not be masked with those other sites; returns how
   * many must be in the sum at least.
   */
  checkMaskingCohort(cohort: readonly Peer[], update: CohortTold): number;
  /** Throws what speaks against working at this moment: FED_POLICY_HOURS, _BYTES or _ROUNDS. */
  checkNow(): void;
  /** Throws FED_POLICY_ENGINE unless a trainer's engine ("wasm: WebAssembly …") is allowed. */
  checkEngine(description: string): void;
  /** Throws what speaks against a plan, and counts the round when nothing does. */
  admitPlan(plan: MessageOf<'plan'>, facts: { readonly modelIsHere: boolean }): void;
  /**
   * Throws FED_POLICY_BUDGET when an update from so many examples would spend more of their privacy than the federation
   * or the policy allows for the run.
   */
  admitTraining(plan: MessageOf<'plan'>, trainExamples: number): void;
  /** Writes down what a finished update spends, before it can leave. */
  spend(plan: MessageOf<'plan'>, trainExamples: number): void;
  /** Throws what speaks against sending a finished update. */
  admitUpdate(update: SpooledUpdate): void;
  /** The coordinator has heard of a refusal: if it is one to leave for, those who watch are told now. */
  told(refusal: PolicyError): void;
  /** Rejects with the reason as soon as this site has to stop; `forget` ends the watch. */
  watch(): { readonly promise: Promise<never>; forget(): void };
  /** Resolves when nothing speaks against working any more, or the signal is aborted. */
  rest(reason: PolicyError, signal: AbortSignal): Promise<void>;
  /** The setup within the policy's bounds. */
  bound(setup: TrainerSetup): TrainerSetup;
  meter(transport: Transport): Transport;
  close(): void;
}

export interface GuardOptions {
  readonly loaded: LoadedPolicy;
  /** Opened on the first count only: a site without such rules has none. */
  readonly ledger: () => Ledger;
  /** Likewise, for a federation with privacy. */
  readonly privacyLedger: () => PrivacyLedger;
  /** By round: how often noise was drawn for a sum with this site's update, by the lines of the log that it was brought. */
  readonly noised: () => ReadonlyMap<number, number>;
  readonly now: () => number;
  readonly emit: EmitWorkerEvent;
  readonly engine: string;
  readonly canWatchMemory: boolean;
  /** Whether finished work still waits for the coordinator's answer. */
  readonly hasSpooled: () => boolean;
}

/** Returns the guard of a policy; one without rules lets everything pass. */
export function createGuard(options: GuardOptions): Guard {
  const { loaded, now, emit, engine, canWatchMemory, hasSpooled } = options;
  const { rules } = loaded;
  const name = nameOf(loaded);
  const watchers = new Set<(reason: unknown) => void>();
  let ledgerOpened: Ledger | undefined;
  let ticker: NodeJS.Timeout | undefined;
  /** Set once all rounds of this site are trained and another one was asked for. */
  let ended: PolicyError | undefined;
  /** The day on which there is not enough left for what was asked. */
  let spentDay: string | undefined;
  /** The size of this site's last update: what the next will have. */
  let updateBytes: number | undefined;
  let hasFrozenWeights = false;
  let masks = false;
  let shares: SharedNoisePlan | undefined;
  let privacy: ReturnType<typeof differentialPrivacyOf>;
  let training: FederationView['training'] | undefined;
  let privacyLedgerOpened: PrivacyLedger | undefined;

  function privacyLedger(): PrivacyLedger {
    privacyLedgerOpened ??= options.privacyLedger();
    return privacyLedgerOpened;
  }

  /**
   * What was spent: by the ledger and, where the coordinator adds the noise for sites, by what it says it has drawn again
   * over an update that left once.
   */
  function spentRounds(): PrivateRound[] {
    const { entries } = privacyLedger();
    const site = privacy?.differentialPrivacy;
    if (site?.unit !== 'site') return [...entries];
    const again = [...options.noised()].flatMap(([round, drawn]) => {
      const own = entries.filter((entry) => entry.round === round).length;
      return Array.from({ length: Math.max(0, drawn - own) }, () => siteLevelRound(site, shares));
    });
    return [...entries, ...again];
  }

  /** What the site's privacy may be spent to: by the federation's word, and by the policy's. */
  function budgets(): { readonly epsilon: number; readonly delta: number; readonly of: string }[] {
    const own = rules.privacy?.budget;
    return [
      ...(privacy === undefined ? [] : [{ ...privacy.budget, of: 'the federation' }]),
      ...(privacy === undefined || own === undefined ? [] : [{ ...own, of: name }]),
    ];
  }

  /** The ledger's line for an update; undefined when the federation trains without privacy. */
  function entryFor(plan: MessageOf<'plan'>, trainExamples: number): PrivacyEntry | undefined {
    if (privacy === undefined || training === undefined || trainExamples < 1) return undefined;
    const { differentialPrivacy } = privacy;
    const { noiseMultiplier } = differentialPrivacy;
    const common = { at: now(), round: plan.round, base: plan.model.digest, noiseMultiplier };
    if (differentialPrivacy.unit === 'site') {
      const clippingNorm = updateNorm(differentialPrivacy, plan.clippingNorm);
      const { normInSteps } = siteLevelRound(differentialPrivacy, shares);
      return clippingNorm === undefined
        ? undefined
        : { ...common, clippingNorm, unit: 'site', ...(normInSteps === undefined ? {} : { normInSteps }) };
    }
    const { clippingNorm } = differentialPrivacy;
    const { batchSize } = training;
    const { steps } = poissonSampling({ noiseMultiplier, trainExamples, ...training });
    return { ...common, clippingNorm, trainExamples, batchSize, steps };
  }

  function ledger(): Ledger {
    ledgerOpened ??= options.ledger();
    return ledgerOpened;
  }

  function refusal(code: PolicyErrorCode, detail: string, retryAt?: number): PolicyError {
    const again = retryAt === undefined ? '' : `; again at ${moment(retryAt)}`;
    return new PolicyError(code, `this site's policy (${name}): ${detail}${again}`, {
      ...(retryAt === undefined ? {} : { retryAt }),
    });
  }

  function refuseAll(facts: Omit<FederationFacts, 'at'>): void {
    const refused = judge(rules, { ...facts, at: now() }).filter(({ state }) => state === 'refused');
    const [first] = refused;
    if (first?.code === undefined) return;
    throw refusal(first.code, refused.map(({ key, detail }) => `${key}: ${detail}`).join('; '));
  }

  /** What speaks against working now, or undefined. */
  function obstacle(): PolicyError | undefined {
    if (ended !== undefined) return ended;
    const at = now();
    const { hours, maxBytesPerDay } = rules;
    if (hours !== undefined && closesAt(hours, at) === undefined) {
      return refusal('FED_POLICY_HOURS', `it trains ${describeHours(hours)}`, opensAt(hours, at));
    }
    if (maxBytesPerDay !== undefined && (bytesLeft() <= 0 || spentDay === dayOf(at))) {
      return outOfBytes(`${bytesText(maxBytesPerDay)} a day are sent and received`);
    }
    return undefined;
  }

  function bytesLeft(): number {
    const { maxBytesPerDay } = rules;
    return maxBytesPerDay === undefined ? Number.POSITIVE_INFINITY : maxBytesPerDay - ledger().bytesToday();
  }

  function outOfBytes(detail: string): PolicyError {
    return refusal('FED_POLICY_BYTES', detail, nextDay(now()));
  }

  /** Throws FED_POLICY_BYTES when `needed` more bytes are more than are left today. */
  function affordBytes(needed: number, what: string): void {
    const { maxBytesPerDay } = rules;
    if (maxBytesPerDay === undefined) return;
    const left = Math.max(0, bytesLeft());
    if (needed <= left) return;
    const detail = `${what} takes ${bytesText(needed)}, and ${bytesText(left)} of ${bytesText(maxBytesPerDay)} a day are left`;
    if (needed > maxBytesPerDay) throw refusal('FED_POLICY_BYTES', detail);
    throw outOfBytes(detail);
  }

  function look(): void {
    if (watchers.size === 0) return;
    const reason = obstacle();
    if (reason !== undefined) tell(reason);
  }

  function leaveFor(reason: PolicyError): void {
    if (!LEAVING.includes(reason.code)) return;
    if (ENDING.includes(reason.code)) ended = reason;
    else if (reason.retryAt === undefined) return;
    if (reason.code === 'FED_POLICY_BYTES') spentDay = dayOf(now());
    tell(reason);
  }

  function tell(reason: unknown): void {
    for (const stop of [...watchers]) stop(reason);
  }

  return {
    step: stepOf(loaded),
    get masks() {
      return masks;
    },
    get spends() {
      return privacy !== undefined;
    },
    checkMaskingCohort(cohort, { cohortSize = 0, minUpdates = 0 }) {
      const strangers = strangersIn(rules, cohort);
      if (strangers !== undefined) throw refusal('FED_POLICY_PRIVACY', strangers);
      // The share of noise in the update was sized by what the plan told of those that it is summed with.
      if (shares && cohort.length + 1 > cohortSize)
        throw refusal(
          'FED_POLICY_COHORT',
          `the plan told of ${cohortSize} sites, by which the noise was shared, and ${cohort.length + 1} are to be summed`,
        );
      return Math.max(FEWEST_SITES, rules.minCohort ?? 0, shares ? minUpdates : 0);
    },
    checkCoordinator({ url, fingerprint }) {
      const { coordinators } = rules;
      if (coordinators === undefined) return;
      const [verdict] = judge({ coordinators }, { coordinator: { url, fingerprint }, at: now() });
      if (verdict?.code !== undefined) throw refusal(verdict.code, verdict.detail);
    },
    checkFederation(federation, { minor }) {
      privacy = differentialPrivacyOf(federation.privacy);
      masks = federation.privacy?.secureAggregation !== undefined;
      shares = sharedNoiseOf(federation.privacy);
      training = federation.training;
      hasFrozenWeights = federation.frozenWeights.length > 0;
      refuseAll({ federation, tellsCohort: minor >= 1, engine, canWatchMemory });
      const { maxRounds } = rules;
      if (maxRounds !== undefined && ledger().rounds.length >= maxRounds && !hasSpooled()) {
        throw refusal('FED_POLICY_ROUNDS', allRounds(maxRounds));
      }
    },
    checkNow() {
      const reason = obstacle();
      if (reason !== undefined) throw reason;
    },
    checkEngine(description) {
      const { engines } = rules;
      const [used = ''] = description.split(':');
      if (engines === undefined || (engines as readonly string[]).includes(used)) return;
      throw refusal('FED_POLICY_ENGINE', engineRefusal(used, engines));
    },
    admitPlan({ task, round, model, cohortSize, minUpdates, clippingNorm }, { modelIsHere }) {
      const reason = obstacle();
      if (reason !== undefined) throw reason;
      const isTraining = task === 'train';
      const cohort = isTraining ? cohortRefusal(rules, { cohortSize, minUpdates }) : undefined;
      if (cohort !== undefined) throw refusal('FED_POLICY_COHORT', cohort);
      const norm = isTraining ? normRefusal(rules, privacy, { round, clippingNorm }) : undefined;
      if (norm !== undefined) throw refusal('FED_POLICY_PRIVACY', norm);
      const back = updateBytes ?? (hasFrozenWeights ? 0 : model.bytes);
      affordBytes((modelIsHere ? 0 : model.bytes) + (isTraining ? back : 0), `round ${round} (${task})`);
      const { maxRounds } = rules;
      if (maxRounds === undefined || !isTraining) return;
      const key = `${round}-${model.digest.slice(0, 16)}`;
      if (ledger().rounds.includes(key)) return;
      if (ledger().rounds.length >= maxRounds) throw refusal('FED_POLICY_ROUNDS', allRounds(maxRounds));
      ledger().addRound(key);
    },
    admitTraining(plan, trainExamples) {
      const next = entryFor(plan, trainExamples);
      if (next === undefined) return;
      const before = spentRounds();
      const after = [...before, next];
      for (const { epsilon, delta, of } of budgets()) {
        if (isWithinBudget(after, { epsilon, delta })) continue;
        const [reached, spent] = [epsilonSpent(after, delta), epsilonSpent(before, delta)];
        throw refusal(
          'FED_POLICY_BUDGET',
          `round ${plan.round} would bring this site to epsilon ${reached.toFixed(2)} at delta ${delta}, and ${of} allows ${epsilon} (spent so far: ${spent.toFixed(2)})`,
        );
      }
    },
    spend(plan, trainExamples) {
      const entry = entryFor(plan, trainExamples);
      if (entry !== undefined) privacyLedger().add(entry);
    },
    admitUpdate({ round, bytes, cohortSize, minUpdates }) {
      updateBytes = bytes;
      const cohort = cohortRefusal(rules, { cohortSize, minUpdates });
      if (cohort !== undefined) throw refusal('FED_POLICY_COHORT', cohort);
      affordBytes(bytes, `sending the update of round ${round}`);
    },
    told: leaveFor,
    watch() {
      let stop: (reason: unknown) => void = () => undefined;
      const promise = new Promise<never>((_, reject) => {
        stop = reject;
      });
      promise.catch(() => undefined);
      watchers.add(stop);
      if (rules.hours !== undefined || rules.maxBytesPerDay !== undefined) {
        ticker ??= setInterval(look, LOOK_MS);
      }
      return {
        promise,
        forget() {
          watchers.delete(stop);
          if (watchers.size > 0) return;
          clearInterval(ticker);
          ticker = undefined;
        },
      };
    },
    async rest(reason, signal) {
      let { retryAt = now() } = reason;
      emit({ type: 'resting', code: reason.code, reason: reason.message, until: retryAt });
      for (;;) {
        const still = obstacle();
        if (still === undefined || signal.aborted) return;
        if (still.retryAt !== undefined && still.retryAt !== retryAt) {
          retryAt = still.retryAt;
          emit({ type: 'resting', code: still.code, reason: still.message, until: retryAt });
        }
        await delay(LOOK_MS, undefined, { signal }).catch(() => undefined);
      }
    },
    bound: (setup) => boundSetup(setup, rules),
    meter(transport) {
      const { maxBytesPerDay } = rules;
      if (maxBytesPerDay === undefined) return transport;
      return meteredTransport(transport, {
        count(bytes) {
          try {
            ledger().addBytes(bytes);
          } catch (error) {
            // Uncounted bytes are not allowed: the site stops with the reason.
            tell(error);
            throw error;
          }
          if (bytesLeft() <= 0) look();
        },
        admit(bytes) {
          try {
            affordBytes(bytes, 'one more chunk');
          } catch (error) {
            if (isPolicyError(error)) leaveFor(error);
            throw error;
          }
        },
      });
    },
    close() {
      clearInterval(ticker);
      ledgerOpened?.close();
    },
  };
}

/** Whether a site that stops for this reason comes back by itself. */
export function isPause(error: unknown): error is PolicyError & { readonly retryAt: number } {
  return isPolicyError(error) && error.retryAt !== undefined;
}

/** Whether a site that stops for this reason has done all that it may. */
export function isEnd({ code }: PolicyError): boolean {
  return ENDING.includes(code);
}

function allRounds(maxRounds: number): string {
  return `maxRounds is ${maxRounds}, and that many were trained in this run`;
}

function stepOf(loaded: LoadedPolicy): PreflightStep {
  if (loaded.file === undefined) {
    return {
      name: 'policy',
      state: 'ok',
      detail: `none (no ${POLICY_FILE} beside the images)`,
      advice: undefined,
    };
  }
  const rules = summarise(loaded.rules);
  if (rules !== '')
    return { name: 'policy', state: 'ok', detail: `${loaded.file}: ${rules}`, advice: undefined };
  const advice = 'it refuses nothing; set a key, or remove the file';
  return { name: 'policy', state: 'warn', detail: `${loaded.file} sets no rule`, advice };
}
