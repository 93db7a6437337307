/**
 * What a run can say of its privacy, from its signed log and its configuration alone: the numbers by both accountants, what
 * they assume, who sees what, and what left the sites in the clear. For a data protection officer, and beside the model.
 */
import { releasedRounds, verifyRun } from '@tributary/coordinator';
import { epsilonOf, poissonSampling, recordLevelHistory } from '@tributary/privacy';
import { differentialPrivacyOf, type SecureAggregationPlan } from '@tributary/shared-protocol';
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
  readonly mechanism:
    | {
        readonly unit: 'record';
        readonly adjacency: 'one record added or removed';
        readonly clippingNorm: number;
        readonly noiseMultiplier: number;
        readonly budget: { readonly epsilon: number; readonly delta: number };
      }
    | undefined;
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
  readonly observers: readonly { readonly who: string; readonly sees: string; readonly bound: string }[];
  readonly inTheClear: readonly string[];
  readonly assumptions: readonly string[];
}

interface SiteAccount {
  readonly name: string;
  /** That left it, accepted or not. */
  readonly updates: number;
  /** As it said with its last one. */
  readonly records: number;
  readonly samplingRate?: number;
  readonly steps?: number;
  readonly epsilon?: { readonly pld: number; readonly rdp: number };
}

/** Reads no file but the run's. */
export function privacyReport(run: Run): PrivacyReport {
  const { dir, federation, state } = run;
  const privacy = differentialPrivacyOf(federation.privacy);
  const masking = federation.privacy?.secureAggregation;
  const sites = [...state.released]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, released]): SiteAccount => {
      const records = [...released.values()];
      const base = { name, updates: records.length, records: records.at(-1) ?? 0 };
      const rounds = releasedRounds(run, name);
      const last = rounds.at(-1);
      if (privacy === undefined || last === undefined) return base;
      const history = recordLevelHistory(rounds);
      const { delta } = privacy.budget;
      return {
        ...base,
        samplingRate: poissonSampling(last).samplingRate,
        steps: history.reduce((sum, { steps }) => sum + steps, 0),
        epsilon: { pld: epsilonOf(history, delta, 'pld'), rdp: epsilonOf(history, delta, 'rdp') },
      };
    });
  const bound =
    privacy === undefined
      ? 'none'
      : 'epsilon of the site, for each record, whatever else is known about the others';
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
        : {
            unit: 'record',
            adjacency: 'one record added or removed',
            clippingNorm: privacy.differentialPrivacy.clippingNorm,
            noiseMultiplier: privacy.differentialPrivacy.noiseMultiplier,
            budget: privacy.budget,
          },
    sites,
    observers: [
      { who: 'whoever has a model of the run', sees: 'the global models', bound },
      { who: 'the other sites, all together', sees: 'the global models between the rounds', bound },
      ...(masking === undefined
        ? [{ who: 'the coordinator, alone or with other sites', sees: 'each update of each site', bound }]
        : [
            { who: 'the coordinator alone', sees: 'the sum of the updates of each round', bound },
            {
              who: `the coordinator together with ${collusion(masking)} of a round’s sites`,
              sees: 'the sum of the updates of the others',
              bound,
            },
            { who: 'the coordinator together with more of them', sees: 'each update of each site', bound },
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
            clippingRange: masking.clippingRange,
            clippedFraction: Math.max(0, ...state.commits.map((commit) => commit.clippedFraction ?? 0)),
          },
    assumptions: [
      ...(masking === undefined
        ? []
        : [
            'the sites know each other’s keys: from their policies, or as they first met them',
            'of two rounds whose sites differ by one, the difference of the sums tells of that one, nearly; what the sum itself tells is not hidden',
          ]),
      ...(privacy === undefined
        ? []
        : [
            'each site ran this program unchanged: each record in a batch with the sampling rate, by itself; gradients clipped; noise from node:crypto',
            'the number of a site’s images is known, and no secret',
            'a record is one image: what several of one person tell together is not bounded by this epsilon',
            'every update counts that the log knows of; what a site trained and never offered is in its own ledger only',
          ]),
    ],
  };
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
      `Each **record** is protected by DP-SGD: gradients clipped to ${mechanism.clippingNorm}, noise multiplier ${mechanism.noiseMultiplier}, Poisson sampling; for ${mechanism.adjacency}.`,
      `The budget of each site is epsilon ${budget.epsilon} at delta ${budget.delta}. Both accountants are upper bounds; the smaller one holds.`,
      '',
      '| site | updates | records | sampling rate | steps | epsilon (pld) | epsilon (rdp) |',
      '| --- | --- | --- | --- | --- | --- | --- |',
      ...report.sites.map(
        ({ name, updates, records, samplingRate, steps, epsilon }) =>
          `| ${name} | ${updates} | ${records} | ${samplingRate?.toPrecision(4) ?? '–'} | ${steps ?? '–'} | ${epsilon?.pld.toFixed(4) ?? '–'} | ${epsilon?.rdp.toFixed(4) ?? '–'} |`,
      ),
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
