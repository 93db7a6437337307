/**
 * A policy held against what is known of a federation: the one place that decides, for the agent before it takes part
 * and for `tributary policy check` before anyone is dialled. Pure: facts in, one verdict a rule out.
 */
import { type FederationView, sha256 } from '@tributary/shared-protocol';
import type { Peer } from '../agent/peers.ts';
import type { PolicyErrorCode } from '../errors.ts';
import { matchesAddress } from './addresses.ts';
import { closesAt, describeHours, opensAt } from './hours.ts';
import type { PolicyKey, SitePolicy } from './schema.ts';

/** What is known; what is left out is not judged. */
export interface FederationFacts {
  readonly coordinator?: { readonly url: string; readonly fingerprint: string | undefined };
  readonly federation?: Pick<
    FederationView,
    'topology' | 'rounds' | 'modelBytes' | 'frozenWeights' | 'privacy'
  >;
  /** Whether the coordinator's plans tell the cohort. */
  readonly tellsCohort?: boolean;
  /** The fewest updates that a round may close with. */
  readonly minUpdates?: number;
  /** Asked for by the operator; `auto` fits any. */
  readonly engine?: string;
  /** Whether the memory of a process can be watched here. */
  readonly canWatchMemory?: boolean;
  /** Unix millis. */
  readonly at: number;
}

export interface Verdict {
  readonly key: PolicyKey;
  /** `later`: not now, but by itself; `unknown`: it will be known once the site takes part. */
  readonly state: 'ok' | 'refused' | 'later' | 'unknown';
  /** There when it is refused. */
  readonly code: PolicyErrorCode | undefined;
  /** For people; of a refusal, with what to do. */
  readonly detail: string;
}

/** One verdict for each rule that the policy has, in the order of its keys. */
export function judge(policy: SitePolicy, facts: FederationFacts): Verdict[] {
  const verdicts: Verdict[] = [];
  for (const key of Object.keys(RULES) as PolicyKey[]) {
    if (policy[key] === undefined) continue;
    verdicts.push({ key, code: undefined, ...RULES[key](policy, facts) });
  }
  return verdicts;
}

/** Each rule in a few words, for the line of the preflight. */
export function summarise(policy: SitePolicy): string {
  const words: Record<PolicyKey, () => string> = {
    coordinators: () => `${count(policy.coordinators!.length, 'coordinator')} allowed`,
    models: () => `${count(policy.models!.length, 'model')} allowed`,
    minCohort: () => `averaged with ${policy.minCohort} updates or more`,
    privacy: () => `privacy settings required`,
    maxRounds: () => `${count(policy.maxRounds!, 'round')} at most`,
    hours: () => `trains ${describeHours(policy.hours!)}`,
    maxBytesPerDay: () => `${bytesText(policy.maxBytesPerDay!)} a day`,
    engines: () => `engines ${policy.engines!.join(', ')}`,
    maxMemory: () => `trainer within ${bytesText(policy.maxMemory!)}`,
    threads: () => count(policy.threads!, 'thread'),
  };
  const said = (Object.keys(words) as PolicyKey[]).filter((key) => policy[key] !== undefined);
  return said.map((key) => words[key]()).join('; ');
}

/** Why an update averaged from at least so many may not be this site's, or undefined. */
export function cohortRefusal(
  policy: SitePolicy,
  told: { readonly cohortSize?: number | undefined; readonly minUpdates?: number | undefined },
): string | undefined {
  const { minCohort } = policy;
  if (minCohort === undefined) return undefined;
  const { cohortSize, minUpdates } = told;
  if (cohortSize === undefined || minUpdates === undefined) {
    return `minCohort is ${minCohort}, and the coordinator does not tell how many updates are averaged`;
  }
  const fewest = Math.min(cohortSize, minUpdates);
  if (fewest >= minCohort) return undefined;
  return (
    `minCohort is ${minCohort}, and this round may be averaged from ${count(fewest, 'update')} ` +
    `(${count(cohortSize, 'site')} asked); the lead can raise cohort.quorum to ${minCohort}`
  );
}

/** Why an update may not be clipped to what a plan tells, where the federation's norm adapts; or undefined. */
export function normRefusal(
  policy: SitePolicy,
  privacy:
    | { readonly differentialPrivacy?: NonNullable<FederationView['privacy']>['differentialPrivacy'] }
    | undefined,
  { round, clippingNorm }: { readonly round: number; readonly clippingNorm: number | undefined },
): string | undefined {
  if (typeof privacy?.differentialPrivacy?.clippingNorm !== 'object') return undefined;
  if (clippingNorm === undefined)
    return `the federation’s clipping norm adapts, and the plan of round ${round} does not tell it; the coordinator has to`;
  const demanded = policy.privacy?.differentialPrivacy;
  const { maxClippingNorm = Number.POSITIVE_INFINITY } = typeof demanded === 'object' ? demanded : {};
  if (clippingNorm <= maxClippingNorm) return undefined;
  return `updates of round ${round} are clipped to ${clippingNorm}, and ${maxClippingNorm} or less is required; the norm adapts and may come down again`;
}

/** Why an update may not be masked with those of this cohort, or undefined. */
export function strangersIn(policy: SitePolicy, cohort: readonly Peer[]): string | undefined {
  const { secureAggregation } = policy.privacy ?? {};
  if (typeof secureAggregation !== 'object') return undefined;
  const { peers } = secureAggregation;
  const strangers = cohort.filter(({ name, publicKey }) => peers[name] !== publicKey);
  if (strangers.length === 0) return undefined;
  const who = strangers.map(({ name, publicKey }) => `"${name}" (key ${publicKey})`).join(', ');
  return `updates are masked with the sites in privacy.secureAggregation.peers only, and ${who} is none of them, with that key; ask that site for its key, then add it`;
}

type Judgement = Pick<Verdict, 'state' | 'detail'> & { readonly code?: PolicyErrorCode };
type Rule = (policy: SitePolicy, facts: FederationFacts) => Judgement;

const RULES: Readonly<Record<PolicyKey, Rule>> = {
  coordinators({ coordinators = [] }, { coordinator }) {
    if (coordinator === undefined) return { state: 'unknown', detail: 'its address is not known yet' };
    const { url, fingerprint } = coordinator;
    const fits = coordinators.some(
      (one) =>
        ('url' in one && one.url !== undefined ? matchesAddress(one.url, url) : true) &&
        ('fingerprint' in one && one.fingerprint !== undefined ? one.fingerprint === fingerprint : true),
    );
    const certificate = fingerprint === undefined ? 'no pinned certificate' : `certificate ${fingerprint}`;
    if (fits) return { state: 'ok', detail: `${url} is allowed` };
    return refused(
      'FED_POLICY_COORDINATOR',
      `${url} (${certificate}) is none of the coordinators that are allowed; nothing was sent to it. If you trust it, add it to coordinators`,
    );
  },
  models({ models = [] }, { federation }) {
    if (federation === undefined) return { state: 'unknown', detail: 'its model is not known yet' };
    const digest = sha256(federation.topology);
    if (models.includes(digest)) return { state: 'ok', detail: `model ${digest} is allowed` };
    return refused(
      'FED_POLICY_MODEL',
      `model ${digest} is none of those that are allowed; once it was looked at, add its digest to models`,
    );
  },
  minCohort(policy, { tellsCohort, minUpdates }) {
    if (tellsCohort === false) {
      return refused('FED_POLICY_COHORT', `${cohortRefusal(policy, {})} (its protocol is older than 2.1)`);
    }
    if (minUpdates === undefined) {
      return {
        state: tellsCohort ? 'ok' : 'unknown',
        detail: `each plan is held against ${policy.minCohort}`,
      };
    }
    const refusal = cohortRefusal(policy, { cohortSize: minUpdates, minUpdates });
    if (refusal === undefined)
      return { state: 'ok', detail: `a round closes with ${minUpdates} updates or more` };
    return refused(
      'FED_POLICY_COHORT',
      `minCohort is ${policy.minCohort}, and a round may close with ${count(minUpdates, 'update')}; the lead can raise cohort.quorum (and cohort.size)`,
    );
  },
  privacy({ privacy: { secureAggregation, differentialPrivacy, budget } = {} }, { federation }) {
    const wanted = [
      secureAggregation ? 'secure aggregation' : '',
      differentialPrivacy ? 'differential privacy' : '',
      budget ? `a budget of epsilon ${budget.epsilon} at delta ${budget.delta}` : '',
    ].filter(Boolean);
    if (wanted.length === 0) return { state: 'ok', detail: 'nothing is required' };
    if (federation === undefined)
      return {
        state: 'unknown',
        detail: `${wanted.join(' and ')}: what the federation offers is not known yet`,
      };
    const masked = federation.privacy?.secureAggregation !== undefined;
    const offered = federation.privacy?.differentialPrivacy;
    const lacks = [
      secureAggregation && !masked ? 'secure aggregation' : '',
      (differentialPrivacy || budget) && offered === undefined
        ? wanted.slice(secureAggregation ? 1 : 0).join(' and ')
        : '',
    ].filter(Boolean);
    if (lacks.length > 0) {
      return refused(
        'FED_POLICY_PRIVACY',
        `${lacks.join(' and ')} is required, and the federation trains without; the lead can set privacy`,
      );
    }
    const sum = 'each update is masked, and the coordinator learns their sum';
    if (offered === undefined) return { state: 'ok', detail: sum };
    const demanded = typeof differentialPrivacy === 'object' ? differentialPrivacy : {};
    const demandsNoise = Boolean(differentialPrivacy || budget);
    if (
      demandsNoise &&
      offered.unit === 'site' &&
      offered.noise === 'coordinator' &&
      demanded.noise !== 'coordinator'
    ) {
      return refused(
        'FED_POLICY_PRIVACY',
        `the noise is added by the coordinator, which sees this site’s update without it; if you trust it with that, say so: differentialPrivacy: { noise: coordinator }; else the lead can set noise: 'site', or unit: 'record'`,
      );
    }
    const { minNoiseMultiplier = 0, maxClippingNorm = Number.POSITIVE_INFINITY } = demanded;
    const adapts = typeof offered.clippingNorm === 'object';
    const norm =
      typeof offered.clippingNorm === 'object' ? offered.clippingNorm.initial : offered.clippingNorm;
    if (offered.noiseMultiplier < minNoiseMultiplier || norm > maxClippingNorm) {
      return refused(
        'FED_POLICY_PRIVACY',
        `noise multiplier ${offered.noiseMultiplier} and clipping norm ${norm} are offered, and ` +
          `${minNoiseMultiplier} or more and ${maxClippingNorm} or less are required`,
      );
    }
    const limit = budget ? `; this site stops at epsilon ${budget.epsilon}, delta ${budget.delta}` : '';
    const whom = {
      record: 'each record is protected',
      site: 'this site is protected as a whole, by noise on its update before it leaves',
      distributed: 'this site is protected as a whole, by noise that the sites share in a sum under masks',
      coordinator: 'this site is protected as a whole, by noise that the coordinator adds',
    }[offered.unit === 'record' ? 'record' : offered.noise];
    return {
      state: 'ok',
      detail: `${secureAggregation ? `${sum}; ` : ''}${whom}: noise multiplier ${offered.noiseMultiplier}, clipping norm ${norm}${adapts ? ' at first' : ''}${limit}`,
    };
  },
  maxRounds({ maxRounds = 0 }, { federation }) {
    const planned = federation === undefined ? '' : ` of ${federation.rounds} planned`;
    return { state: 'ok', detail: `this site trains ${maxRounds}${planned} at most, then leaves` };
  },
  hours({ hours = [] }, { at }) {
    const until = closesAt(hours, at);
    if (until !== undefined) {
      return { state: 'ok', detail: `${describeHours(hours)}; open until ${moment(until)}` };
    }
    return { state: 'later', detail: `${describeHours(hours)}; closed until ${moment(opensAt(hours, at))}` };
  },
  maxBytesPerDay({ maxBytesPerDay = 0 }, { federation }) {
    const bytes = federation?.modelBytes;
    if (federation === undefined || bytes === undefined) {
      return {
        state: 'unknown',
        detail: `${bytesText(maxBytesPerDay)} a day; the model's size is not known yet`,
      };
    }
    // Of a model with frozen weights, how much comes back is known with the first update.
    const aRound = federation.frozenWeights.length > 0 ? bytes : 2 * bytes;
    if (aRound > maxBytesPerDay) {
      return refused(
        'FED_POLICY_BYTES',
        `one round moves ${bytesText(aRound)}, and ${bytesText(maxBytesPerDay)} a day are allowed; raise maxBytesPerDay or stay away`,
      );
    }
    const rounds = Math.floor(maxBytesPerDay / aRound);
    return { state: 'ok', detail: `${bytesText(maxBytesPerDay)}, about ${count(rounds, 'round')} a day` };
  },
  engines({ engines = [] }, { engine = 'auto' }) {
    if (engine === 'auto' || (engines as readonly string[]).includes(engine)) {
      return { state: 'ok', detail: `the engine is one of ${engines.join(', ')}` };
    }
    return refused('FED_POLICY_ENGINE', engineRefusal(engine, engines));
  },
  maxMemory({ maxMemory = 0 }, { canWatchMemory = true }) {
    if (canWatchMemory)
      return { state: 'ok', detail: `the trainer is stopped beyond ${bytesText(maxMemory)}` };
    return refused(
      'FED_POLICY_MEMORY',
      'this system does not say how much memory a process has, so maxMemory can not be kept; remove it and bound the site by other means',
    );
  },
  threads: ({ threads = 0 }) => ({
    state: 'ok',
    detail: `${count(threads, 'thread')} to train and to decode with`,
  }),
};

/** What to say of an engine that is not allowed. */
export function engineRefusal(engine: string, allowed: readonly string[]): string {
  return `the engine ${engine} is not allowed; choose one of ${allowed.join(', ')} with --engine, or add it to engines`;
}

/** A moment in local time, to the minute. */
export function moment(at: number): string {
  const date = new Date(at);
  const two = (part: number) => String(part).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${units[unit]}`;
}

function refused(code: PolicyErrorCode, detail: string): Judgement {
  return { state: 'refused', code, detail };
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
