/**
 * `tributary privacy plan`: how much noise an epsilon needs, what epsilon a noise costs, or how many steps both allow; and
 * `privacy report`: what a run can say of its privacy.
 */
import type { Accountant, Mechanism } from '@tributary/privacy';
import { Command, Option } from 'commander';
import { positiveNumber, wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { formatCount } from '../terminal/numbers.ts';
import { createTable } from '../terminal/table.ts';

interface Flags {
  readonly unit: 'record' | 'site';
  readonly targetEpsilon?: number;
  readonly noiseMultiplier?: number;
  readonly delta: number;
  readonly samplingRate?: number;
  readonly records?: number;
  readonly batchSize?: number;
  readonly steps?: number;
  readonly epochs?: number;
  readonly rounds?: number;
  readonly sites?: number;
  readonly json?: boolean;
}

interface Costs {
  /** Epsilon by each accountant. */
  readonly epsilon: Readonly<Record<Accountant, number>>;
  /** Rényi's best order where that is an end of the list: then another list could give less. */
  readonly rdpOrderAtEnd: number | undefined;
  /** The same when every batch has exactly so many records: by `rdp`, for replacing one record. */
  readonly fixedSizeEpsilon: number | undefined;
  /** Of sites: of all images of one replaced, which moves its update twice as far; by `pld`. */
  readonly replacedEpsilon: number | undefined;
}

interface Plan extends Costs {
  readonly unit: 'record' | 'site';
  readonly targetEpsilon: number | undefined;
  readonly delta: number;
  readonly samplingRate: number;
  /** Of sites: rounds. */
  readonly steps: number;
  readonly noiseMultiplier: number;
  /** Of sites, where their number is given: the noise in each number of the mean, in clipping norms. */
  readonly noiseInMean: { readonly coordinator: number; readonly site: number } | undefined;
  /** What each accountant would ask for, when the noise or the steps are what was looked for. */
  readonly found:
    | { readonly what: 'noise' | 'steps'; readonly by: Readonly<Record<Accountant, number>> }
    | undefined;
}

const MOST_STEPS = 1e9;
const ACCOUNTANTS = ['pld', 'rdp'] as const satisfies readonly Accountant[];

export function privacyCommand(context: CliContext): Command {
  const plan = new Command('plan')
    .description('how much noise an epsilon needs, what epsilon a noise costs, or how many steps both allow')
    .addOption(
      new Option('--unit <unit>', 'whom it protects: each record of a site, or each site as a whole')
        .choices(['record', 'site'])
        .default('record'),
    )
    .option('--target-epsilon <number>', 'the epsilon that may be spent', positiveNumber(1e6))
    .option('--noise-multiplier <number>', 'stdDev of the noise / clipping norm', positiveNumber(1e6))
    .requiredOption(
      '--delta <number>',
      'the probability with which epsilon may be exceeded',
      positiveNumber(1, 'less than'),
    )
    .option('--records <number>', 'records at the site', wholeNumber(1, 1e12))
    .option('--batch-size <number>', 'records in a batch, on average', wholeNumber(1, 1e12))
    .option(
      '--sampling-rate <number>',
      'in place of both: how likely a record is in a batch',
      positiveNumber(1),
    )
    .option('--epochs <number>', 'passes over the records in a round (default: 1)', wholeNumber(1, 1e6))
    .option('--rounds <number>', 'rounds (default: 1)', wholeNumber(1, 1e6))
    .option('--sites <number>', 'of sites: how many are asked in a round', wholeNumber(1, 4096))
    .option('--steps <number>', 'in place of both: batches in all', wholeNumber(1, MOST_STEPS))
    .action(async (_options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const made = await makePlan(flags);
      const sampling = flags.unit === 'record' ? 'poisson' : 'everyone';
      if (flags.json) return printJson(context, { type: 'privacy-plan', sampling, ...made });
      await show(context, flags, made);
    });
  const report = new Command('report')
    .description('what a run can say of its privacy: numbers, assumptions, who sees what')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const { openRun } = await import('../runs.ts');
      const { privacyMarkdown, privacyReport } = await import('../privacy-report.ts');
      const made = privacyReport(openRun(context.cwd, argument));
      if (command.optsWithGlobals<{ json?: boolean }>().json)
        return printJson(context, { type: 'privacy-report', ...made });
      context.stdout.write(privacyMarkdown(made));
    });
  return new Command('privacy')
    .description('what privacy costs, and what a run has spent')
    .addCommand(plan)
    .addCommand(report);
}

async function makePlan(flags: Flags): Promise<Plan> {
  const { noiseMultiplierFor, stepsWithin } = await import('@tributary/privacy');
  const { unit, targetEpsilon, noiseMultiplier, delta, sites } = flags;
  demandFlagsOf(unit, flags);
  const samplingRate = unit === 'site' ? 1 : samplingRateOf(flags);
  const steps = unit === 'site' ? flags.rounds : stepsOf(flags, samplingRate);
  const length = unit === 'site' ? '--rounds' : '--epochs, --steps';
  const inMean = (z: number) =>
    sites === undefined ? undefined : { coordinator: z / sites, site: z / Math.sqrt(sites) };
  const byEach = (find: (accountant: Accountant) => number) => ({ pld: find('pld'), rdp: find('rdp') });
  const base = { unit, targetEpsilon, delta, samplingRate };

  if (noiseMultiplier === undefined) {
    if (targetEpsilon === undefined)
      throw mistaken(
        '--target-epsilon, --noise-multiplier',
        'Neither an epsilon nor a noise multiplier is given',
        'Give one of them, or both to learn how many steps they allow.',
      );
    if (steps === undefined)
      throw mistaken(
        length,
        'It is not said how long training is',
        unit === 'site' ? 'Give --rounds.' : 'Give --epochs (and --rounds), or --steps.',
      );
    const by = byEach((accountant) =>
      noiseMultiplierFor({ targetEpsilon, delta, samplingRate, steps, accountant }),
    );
    if (by.pld === Infinity)
      throw mistaken(
        '--target-epsilon',
        `No noise brings epsilon down to ${targetEpsilon}`,
        'Allow more, or train less.',
      );
    // What is printed has to keep the promise: upwards, to four digits.
    const chosen = roundUp(by.pld);
    const costs = await costsOf(flags, { samplingRate, steps, noiseMultiplier: chosen });
    const noiseInMean = inMean(chosen);
    return { ...base, steps, noiseMultiplier: chosen, noiseInMean, ...costs, found: { what: 'noise', by } };
  }
  if (steps !== undefined) {
    if (targetEpsilon !== undefined)
      throw mistaken(
        '--target-epsilon',
        'With the noise multiplier and the steps both given, nothing is left to plan',
        'Leave one of the three out.',
      );
    const costs = await costsOf(flags, { samplingRate, steps, noiseMultiplier });
    const noiseInMean = inMean(noiseMultiplier);
    return { ...base, steps, noiseMultiplier, noiseInMean, ...costs, found: undefined };
  }
  if (targetEpsilon === undefined)
    throw mistaken(
      length,
      'It is not said how long training is',
      unit === 'site'
        ? 'Give --rounds, or --target-epsilon to learn how many rounds it allows.'
        : 'Give --epochs (and --rounds) or --steps, or --target-epsilon to learn how many steps it allows.',
    );
  const by = byEach((accountant) =>
    Math.min(MOST_STEPS, stepsWithin({ targetEpsilon, delta, samplingRate, noiseMultiplier, accountant })),
  );
  const costs = await costsOf(flags, { samplingRate, steps: by.pld, noiseMultiplier });
  const noiseInMean = inMean(noiseMultiplier);
  return { ...base, steps: by.pld, noiseMultiplier, noiseInMean, ...costs, found: { what: 'steps', by } };
}

/** A flag that says nothing about the unit would be a number that somebody relies on, and nobody has looked at. */
function demandFlagsOf(unit: Flags['unit'], flags: Flags): void {
  const { records, batchSize, samplingRate, epochs, steps, sites } = flags;
  const others = unit === 'record' ? [sites] : [records, batchSize, samplingRate, epochs, steps];
  if (others.every((value) => value === undefined)) return;
  throw unit === 'record'
    ? mistaken(
        '--sites',
        'How many sites there are says nothing about records',
        'Leave it out, or give --unit site.',
      )
    : mistaken(
        '--records, --batch-size, --sampling-rate, --epochs, --steps',
        'These are about records, and the unit is the site',
        'Give --rounds, and --sites to learn the noise in the mean; or --unit record.',
      );
}

async function costsOf(
  { unit, delta, records, batchSize }: Flags,
  trained: { readonly samplingRate: number; readonly steps: number; readonly noiseMultiplier: number },
): Promise<Costs> {
  const { epsilonOf, rdpEpsilon, rdpOf } = await import('@tributary/privacy');
  const poisson: Mechanism[] = [{ kind: 'poisson-gaussian', ...trained }];
  const { steps, noiseMultiplier } = trained;
  const fixedSize: Mechanism[] | undefined =
    records === undefined || batchSize === undefined
      ? undefined
      : [{ kind: 'fixed-size-gaussian', noiseMultiplier, population: records, sample: batchSize, steps }];
  const rdp = rdpEpsilon(rdpOf(poisson), delta);
  return {
    epsilon: { pld: epsilonOf(poisson, delta, 'pld'), rdp: rdp.epsilon },
    rdpOrderAtEnd: rdp.orderAtEnd ? rdp.order : undefined,
    fixedSizeEpsilon: fixedSize && epsilonOf(fixedSize, delta, 'rdp'),
    replacedEpsilon:
      unit === 'site'
        ? epsilonOf(
            [{ kind: 'poisson-gaussian', ...trained, noiseMultiplier: noiseMultiplier / 2 }],
            delta,
            'pld',
          )
        : undefined,
  };
}

function samplingRateOf({ samplingRate, records, batchSize }: Flags): number {
  if (samplingRate !== undefined) {
    if (records !== undefined || batchSize !== undefined)
      throw mistaken(
        '--sampling-rate',
        'The sampling rate is given twice: --batch-size / --records is one too',
        'Leave the one or the others out.',
      );
    return samplingRate;
  }
  if (records === undefined || batchSize === undefined)
    throw mistaken(
      '--records, --batch-size',
      'It is not said how records are sampled',
      'Give both of these, or --sampling-rate.',
    );
  if (batchSize > records)
    throw mistaken(
      '--batch-size',
      `A batch of ${batchSize} is more than the ${records} records`,
      `It is at most ${records}.`,
    );
  return batchSize / records;
}

/** A round's passes are counted up to whole batches. */
function stepsOf({ steps, epochs, rounds }: Flags, samplingRate: number): number | undefined {
  if (steps !== undefined) {
    if (epochs !== undefined || rounds !== undefined)
      throw mistaken(
        '--steps',
        'The steps are given twice: --epochs and --rounds make them too',
        'Leave the one or the others out.',
      );
    return steps;
  }
  if (epochs === undefined && rounds === undefined) return undefined;
  // 3 / (256 / 60000) is 703.125; a quotient that is whole but for rounding stays whole.
  const counted = (rounds ?? 1) * Math.ceil((epochs ?? 1) / samplingRate - 1e-9);
  if (counted > MOST_STEPS)
    throw mistaken(
      '--epochs, --rounds',
      `These make ${counted} steps`,
      `At most ${MOST_STEPS} can be planned.`,
    );
  return counted;
}

async function show(context: CliContext, flags: Flags, plan: Plan): Promise<void> {
  const { bold, dim, yellow } = context.colours;
  const { delta, samplingRate, steps, noiseMultiplier, epsilon, fixedSizeEpsilon, found } = plan;
  const fact = (name: string, value: string, why: string) =>
    print(context, `  ${name.padEnd(18)}${bold(value.padEnd(10))}${dim(why)}`);
  print(context);
  if (plan.unit === 'record') {
    fact('noise multiplier', String(noiseMultiplier), 'stdDev of the noise on a batch’s sum / clipping norm');
    fact('steps', formatCount(steps), 'batches in all');
    fact(
      'sampling rate',
      samplingRate.toPrecision(4),
      'Poisson: each record is in each batch by a draw of its own',
    );
    fact('delta', String(delta), 'of one record added or removed');
  } else {
    fact(
      'noise multiplier',
      String(noiseMultiplier),
      'stdDev of the noise on a sum, or an update / clipping norm',
    );
    fact('rounds', formatCount(steps), 'all that are asked take part: nothing is saved by sampling');
    fact('delta', String(delta), 'of one site’s update added or removed');
    const { noiseInMean } = plan;
    if (noiseInMean !== undefined) {
      const { coordinator, site } = noiseInMean;
      const number = (value: number) => String(Number(value.toPrecision(4)));
      fact(
        'noise in the mean',
        number(coordinator),
        'of each number / clipping norm, with noise: coordinator',
      );
      fact('', number(site), 'with noise: site');
    }
  }
  const table = createTable([
    { title: 'accountant', width: 24, align: 'left' },
    { title: 'epsilon', width: 9 },
    ...(found === undefined
      ? []
      : [
          {
            title:
              found.what === 'noise'
                ? 'noise needed'
                : `${plan.unit === 'site' ? 'rounds' : 'steps'} allowed`,
          },
        ]),
  ]);
  print(context, `\n${dim(table.header)}`);
  const names = { pld: 'loss distribution (pld)', rdp: 'Rényi (rdp)' };
  for (const accountant of ACCOUNTANTS) {
    const asked = found?.by[accountant];
    const shown =
      asked === undefined ? [] : [found?.what === 'noise' ? asked.toFixed(4) : formatCount(asked)];
    print(context, table.row([names[accountant], formatEpsilon(epsilon[accountant]), ...shown]));
  }
  if (fixedSizeEpsilon !== undefined) {
    print(
      context,
      dim(
        `\n  If every batch had exactly ${formatCount(flags.batchSize!)} records, drawn anew each time: epsilon ${formatEpsilon(fixedSizeEpsilon)}\n  of one record replaced (rdp).`,
      ),
    );
  }
  if (plan.replacedEpsilon !== undefined)
    print(
      context,
      dim(
        `\n  With all images of a site replaced by others: epsilon ${formatEpsilon(plan.replacedEpsilon)} (pld). Its update\n  moves by two clipping norms then.`,
      ),
    );
  if (plan.rdpOrderAtEnd !== undefined)
    print(
      context,
      `\n  ${yellow('!')} Rényi’s best order is ${plan.rdpOrderAtEnd}, an end of its list: read the other accountant.`,
    );
  if (flags.records !== undefined && delta >= 1 / flags.records)
    print(
      context,
      `\n  ${yellow('!')} delta is not below 1 / records: it would let whole records out. Take less than ${(1 / flags.records).toPrecision(2)}.`,
    );
  print(context);
}

function formatEpsilon(epsilon: number): string {
  return epsilon < 100 ? epsilon.toFixed(4) : epsilon.toPrecision(4);
}

/** To four digits, upwards. */
function roundUp(value: number): number {
  if (value === 0) return 0;
  const digit = 10 ** (Math.floor(Math.log10(value)) - 3);
  return Number((Math.ceil(value / digit - 1e-9) * digit).toPrecision(4));
}

function mistaken(where: string, problem: string, todo: string): CliError {
  return new CliError('FED_CLI_USAGE', `${problem}.`, { where, todo });
}
