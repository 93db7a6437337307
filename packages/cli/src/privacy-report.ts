/**
 * What a run can say of its privacy, from its signed log and its configuration alone: the numbers by both accountants, what
 * they assume, who sees what, and what left the sites in the clear. For a data protection officer, and beside the model.
 */
import { releasedRounds, verifyRun } from '@tributary/coordinator';
import {
  epsilonOf,
  type Mechanism,
  type PrivateRound,
  poissonSampling,
  spendingHistory,
  sumGrid,
} from '@tributary/privacy';
import {
  type DifferentialPrivacyPlan,
  differentialPrivacyOf,
  type SecureAggregationPlan,
  sharedNoiseOf,
} from '@tributary/shared-protocol';
import type { Run } from './runs.ts';
import { VERSION } from './version.ts';

export interface PrivacyReport {
  readonly run: string;
  readonly name: string;
  /** SHA-256 of the resolved configuration. */
  readonly configDigest: string;
  /** SHA-256 of the last committed model's frame. */
  readonly modelDigest: string | undefined;
  readonly software: string;
  /** Whether the log's chain, signatures and checkpoints hold. */
  readonly logHolds: boolean;
  readonly rounds: number;
  /** Undefined: the run trained without. */
  readonly mechanism: (DifferentialPrivacyPlan['differentialPrivacy'] & Promised) | undefined;
  /** Undefined: the coordinator saw each update. */
  readonly secureAggregation:
    | {
        /** Share of a round's sites that must be there to its end, or the rule for it. */
        readonly threshold: number | string;
        /** Updates in the smallest sum that was unmasked. */
        readonly fewestInASum: number;
        readonly clippingRange: number;
        /** The largest share of values that a round clipped. */
        readonly clippedFraction: number;
      }
    | undefined;
  readonly sites: readonly SiteAccount[];
  readonly observers: readonly Observer[];
  readonly inTheClear: readonly string[];
  readonly assumptions: readonly string[];
}

interface Promised {
  readonly adjacency: string;
  readonly budget: DifferentialPrivacyPlan['budget'];
}

interface Observer {
  readonly who: string;
  readonly sees: string;
  readonly bound: string;
}

interface Epsilon {
  /** Absent for noise that this accountant has no bound for. */
  readonly pld?: number;
  readonly rdp: number;
}

interface SiteAccount {
  readonly name: string;
  /** That left it, accepted or not. */
  readonly updates: number;
  /** As it said with its last one. */
  readonly records: number;
  /** Of records. */
  readonly samplingRate?: number;
  /** Of records: noised steps of training. Of the site as a whole: noised sums, or updates, that count. */
  readonly steps?: number;
  readonly epsilon?: Epsilon;
  /** Of the site as a whole: of all its images replaced by others, which moves its update twice as far. */
  readonly replaced?: Epsilon;
}

/** Reads no file but the run's. */
export function privacyReport(run: Run): PrivacyReport {
  const { dir, federation, state } = run;
  const privacy = differentialPrivacyOf(federation.privacy);
  const masking = federation.privacy?.secureAggregation;
  const shares = sharedNoiseOf(federation.privacy);
  const sites = [...state.released]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, released]): SiteAccount => {
      const records = [...released.values()];
      const base = { name, updates: records.length, records: records.at(-1) ?? 0 };
      const rounds = releasedRounds(run, name);
      const last = rounds.at(-1);
      if (privacy === undefined || last === undefined) return base;
      const { delta } = privacy.budget;
      const history = spendingHistory(rounds);
      const steps = history.reduce((sum, one) => sum + one.steps, 0);
      const account = { ...base, steps, epsilon: byBoth(history, delta) };
      return 'unit' in last
        ? { ...account, replaced: byBoth(spendingHistory(rounds.map(replacing)), delta) }
        : { ...account, samplingRate: poissonSampling(last).samplingRate };
    });
  const said = statementOf(privacy);
  return {
    run: state.runId,
    name: federation.name,
    configDigest: federation.digest,
    modelDigest: state.commits.at(-1)?.model,
    software: `tributary ${VERSION}`,
    logHolds: verifyRun(dir).ok,
    rounds: state.commits.length,
    mechanism:
      privacy === undefined
        ? undefined
        : { ...privacy.differentialPrivacy, adjacency: said.adjacency, budget: privacy.budget },
    sites,
    observers: [
      { who: 'whoever has a model of the run', sees: 'the global models', bound: said.models },
      {
        who: 'the other sites, all together',
        sees: 'the global models between the rounds',
        bound: said.models,
      },
      ...(masking === undefined
        ? [{ who: 'the coordinator, alone or with other sites', ...said.coordinator }]
        : [
            {
              who: 'the coordinator alone',
              sees: 'the sum of the updates of each round',
              bound: said.models,
            },
            {
              who: `the coordinator together with ${collusion(masking)} of a round’s sites`,
              sees: 'the sum of the updates of the others',
              bound: said.models,
            },
            { who: 'the coordinator together with more of them', ...said.coordinator },
          ]),
      { who: 'the site itself', sees: 'its images, and what it trained', bound: 'none: they are its own' },
    ],
    inTheClear: [
      masking !== undefined && privacy === undefined
        ? 'how many test and unreadable images a site has'
        : 'how many training images a site has, with each update; and how many test and unreadable ones',
      ...(federation.privacy === undefined
        ? ['how its training images divide into classes', 'metrics of training']
        : []),
      ...(federation.evaluation.sites ? ['metrics of its test images'] : []),
      'when it is there, how long its work takes, which engine it uses',
    ],
    secureAggregation:
      masking === undefined
        ? undefined
        : {
            threshold: masking.threshold ?? 'floor(2n / 3) + 1 of n sites',
            fewestInASum: Math.min(...state.commits.map(({ updates }) => updates.length)),
            clippingRange: shares ? sumGrid(shares).clippingRange : (masking.clippingRange ?? 1),
            clippedFraction: Math.max(0, ...state.commits.map((commit) => commit.clippedFraction ?? 0)),
          },
    assumptions: [
      ...(masking === undefined
        ? []
        : [
            'the sites know each other’s keys: from their policies, or as they first met them',
            'of two rounds whose sites differ by one, the difference of the sums tells of that one, nearly; what the sum itself tells is not hidden',
          ]),
      ...said.assumptions,
    ],
  };
}

interface Statement {
  readonly adjacency: string;
  /** Of whoever has the models. */
  readonly models: string;
  readonly coordinator: Omit<Observer, 'who'>;
  readonly assumptions: readonly string[];
}

/** What the switch that is on promises, to whom, and on what conditions. */
function statementOf(privacy: DifferentialPrivacyPlan | undefined): Statement {
  if (privacy === undefined)
    return {
      adjacency: '',
      models: 'none',
      coordinator: { sees: 'each update of each site', bound: 'none' },
      assumptions: [],
    };
  const { differentialPrivacy } = privacy;
  const counted =
    'every update counts that the log knows of; what a site trained and never offered is in its own ledger only';
  if (differentialPrivacy.unit === 'record') {
    const bound = 'epsilon of the site, for each record, whatever else is known about the others';
    return {
      adjacency: 'one record added or removed',
      models: bound,
      coordinator: { sees: 'each update of each site', bound },
      assumptions: [
        'each site ran this program unchanged: each record in a batch with the sampling rate, by itself; gradients clipped; noise from node:crypto',
        'the number of a site’s images is known, and no secret',
        'a record is one image: what several of one person tell together is not bounded by this epsilon',
        counted,
      ],
    };
  }
  const bound =
    'epsilon of the site, for all of its images together, whatever else is known about the others';
  const adjacency = 'one site’s update added or removed';
  const known = 'which sites took part in which round, and how many images each has, is known and no secret';
  if (differentialPrivacy.noise === 'site')
    return {
      adjacency,
      models: bound,
      coordinator: { sees: 'each update of each site, with that site’s noise', bound },
      assumptions: [
        'each site ran this program unchanged: its update clipped, and noise from node:crypto added before it left',
        known,
        counted,
      ],
    };
  if (differentialPrivacy.noise === 'distributed')
    return {
      adjacency,
      models: bound,
      coordinator: {
        sees: 'each update of each site, with no more than that site’s share of the noise',
        bound: 'none: a share alone bounds little',
      },
      assumptions: [
        'each site ran this program unchanged: its update clipped and rounded, and its share of the noise from node:crypto added before it was masked',
        'less than a third of the sites of a round told the coordinator their share of the noise',
        known,
        counted,
      ],
    };
  return {
    adjacency,
    models: bound,
    coordinator: {
      sees: 'each update of each site, clipped and **without noise**',
      bound: 'none: the coordinator is trusted with them',
    },
    assumptions: [
      'the coordinator ran this program unchanged: updates clipped, all of one weight, noise from node:crypto added to their sum, which was divided by the number of sites asked',
      'nobody has read the coordinator’s spool, memory or disk, where updates lie without noise until their round is over',
      known,
      'noise that was drawn for a round a second time, after a crash or without a site that was expelled, counts a second time; an update that was refused counts as if it had been used',
    ],
  };
}

function byBoth(history: readonly Mechanism[], delta: number): Epsilon {
  const rdp = epsilonOf(history, delta, 'rdp');
  // Of Skellam noise the other accountant knows nothing.
  return history.some(({ kind }) => kind === 'skellam')
    ? { rdp }
    : { pld: epsilonOf(history, delta, 'pld'), rdp };
}

/** The same round for whoever compares two data sets of a site: from one update to the other it is two clipping norms. */
function replacing(round: PrivateRound): PrivateRound {
  const noiseMultiplier = round.noiseMultiplier / 2;
  if (!('unit' in round) || round.normInSteps === undefined) return { ...round, noiseMultiplier };
  return { ...round, noiseMultiplier, normInSteps: 2 * round.normInSteps };
}

/** How many colluding sites learn nothing more, in words. */
function collusion({ threshold }: SecureAggregationPlan): string {
  return threshold === undefined
    ? 'less than a third'
    : `less than ${Math.round(100 * (2 * threshold - 1))} %`;
}

/** The report for people. */
export function privacyMarkdown(report: PrivacyReport): string {
  const { mechanism } = report;
  const lines = [
    `# Privacy of ${report.name}`,
    '',
    `Run ${report.run}, ${report.rounds} rounds, ${report.software}. The signed log ${report.logHolds ? 'holds' : '**does not hold**: `tributary verify` says where'}.`,
    '',
    `- configuration ${report.configDigest}`,
    ...(report.modelDigest === undefined ? [] : [`- model of the last round ${report.modelDigest}`]),
    '',
  ];
  if (mechanism === undefined) {
    lines.push('**No differential privacy.** Updates have no noise.', '');
  } else {
    const { budget } = mechanism;
    lines.push(
      mechanismText(mechanism),
      `The budget of each site is epsilon ${budget.epsilon} at delta ${budget.delta}. Both accountants are upper bounds; the smaller one holds.`,
      '',
      ...(mechanism.unit === 'record' ? recordRows(report.sites) : siteRows(report.sites)),
      '',
    );
  }
  const { secureAggregation } = report;
  lines.push(
    ...(secureAggregation === undefined
      ? ['**No secure aggregation.** The coordinator saw each update.']
      : [
          `The coordinator saw **sums of updates only** (secure aggregation, Bonawitz et al. 2017): none of fewer than ${secureAggregation.fewestInASum} sites, and only while ${secureAggregation.threshold} were there.`,
          `Values beyond ±${secureAggregation.clippingRange} were clipped: at most ${(100 * secureAggregation.clippedFraction).toFixed(3)} % of them in a round.`,
        ]),
    '',
  );
  lines.push('| who | sees | bounded by |', '| --- | --- | --- |');
  for (const { who, sees, bound } of report.observers) lines.push(`| ${who} | ${sees} | ${bound} |`);
  lines.push('', 'In the clear left the sites:', '', ...report.inTheClear.map((one) => `- ${one}`));
  if (report.assumptions.length > 0)
    lines.push('', 'This holds if:', '', ...report.assumptions.map((one) => `- ${one}`));
  return `${lines.join('\n')}\n`;
}

function mechanismText(mechanism: NonNullable<PrivacyReport['mechanism']>): string {
  const { clippingNorm, noiseMultiplier, adjacency } = mechanism;
  if (mechanism.unit === 'record')
    return `Each **record** is protected by DP-SGD: gradients clipped to ${clippingNorm}, noise multiplier ${noiseMultiplier}, Poisson sampling; for ${adjacency}.`;
  const norm =
    typeof clippingNorm === 'number' ? clippingNorm : `a norm that adapts from ${clippingNorm.initial} on`;
  const noise =
    mechanism.noise === 'site'
      ? 'noise is added by **each site**, to its update, before it leaves'
      : mechanism.noise === 'distributed'
        ? 'noise is added by **the sites together**, each a share of it under its mask, so that no sum is without'
        : 'noise is added by **the coordinator**, to the sum of the updates';
  return `Each **site** is protected as a whole: its update clipped to ${norm}; ${noise}; noise multiplier ${noiseMultiplier}, all that are asked take part; for ${adjacency}.`;
}

function recordRows(sites: readonly SiteAccount[]): string[] {
  return [
    '| site | updates | records | sampling rate | steps | epsilon (pld) | epsilon (rdp) |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    ...sites.map(
      ({ name, updates, records, samplingRate, steps, epsilon }) =>
        `| ${name} | ${updates} | ${records} | ${samplingRate?.toPrecision(4) ?? '–'} | ${steps ?? '–'} | ${digits(epsilon?.pld)} | ${digits(epsilon?.rdp)} |`,
    ),
  ];
}

function siteRows(sites: readonly SiteAccount[]): string[] {
  return [
    '| site | updates | releases | epsilon (pld) | epsilon (rdp) | with all its images replaced |',
    '| --- | --- | --- | --- | --- | --- |',
    ...sites.map(
      ({ name, updates, steps, epsilon, replaced }) =>
        `| ${name} | ${updates} | ${steps ?? '–'} | ${digits(epsilon?.pld)} | ${digits(epsilon?.rdp)} | ${digits(replaced?.pld ?? replaced?.rdp)} |`,
    ),
  ];
}

function digits(epsilon: number | undefined): string {
  return epsilon?.toFixed(4) ?? '–';
}
