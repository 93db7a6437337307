/** `tributary audit`: attacks on what a run would publish or send. They can refute a claim, and never prove one. */
import { basename, dirname, resolve } from 'node:path';
import { Command } from 'commander';
import { ENGINE_CHOICES, existingFile, oneOf, positiveNumber, wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { exitCode } from '../exit-codes.ts';
import type { Inversion } from '../inversion.ts';
import type { Which } from '../models.ts';
import { formatCount, formatMetric } from '../terminal/numbers.ts';
import { parseRound } from './export.ts';

interface MechanismFlags {
  readonly noiseMultiplier: number;
  readonly clippingNorm: number;
  readonly delta: number;
  readonly epsilon?: number;
  readonly trials: number;
  readonly json?: boolean;
}

interface InversionFlags {
  readonly round: Which;
  readonly image?: string[];
  readonly engine: (typeof ENGINE_CHOICES)[number];
  readonly json?: boolean;
}

/** Numbers of an update in the mechanism's audit; the noise on each is drawn by itself. */
const DIMENSION = 4;
/** The canary's norm over the clipping norm: clipping that fails would show. */
const EXCESS = 100;

export function auditCommand(context: CliContext, setExit: (code: number) => void): Command {
  const mechanism = new Command('mechanism')
    .description('try to refute the epsilon of clipping and Gaussian noise, with a canary')
    .option(
      '--noise-multiplier <number>',
      'standard deviation of the noise over the norm',
      positiveNumber(1e6),
      1,
    )
    .option('--clipping-norm <number>', 'L2 norm that updates are clipped to', positiveNumber(1e9), 1)
    .option('--delta <number>', 'the delta of the claim', positiveNumber(1, 'less than'), 1e-5)
    .option('--epsilon <number>', 'another claim than the mechanism’s own epsilon', positiveNumber(1e6))
    .option('--trials <number>', 'releases with the canary, and as many without', evenTrials, 100_000)
    .action(async (_options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<MechanismFlags>();
      const refuted = await auditOfMechanism(context, flags);
      if (refuted) setExit(exitCode('audit'));
    });
  const inversion = new Command('inversion')
    .description('show what a plain update of a model gives away of its image and label')
    .argument('[model]', 'a run directory or an exported folder (default: the newest run in runs/)')
    .option('--round <which>', 'of a run: best, last, or the number of a round', parseRound, 'best')
    .option('--image <file...>', 'images to take in place of random pixels')
    .option('--engine <name>', `one of ${ENGINE_CHOICES.join(', ')}`, oneOf(ENGINE_CHOICES), 'auto')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const read = await auditOfUpdate(context, argument, command.optsWithGlobals<InversionFlags>());
      if (read) setExit(exitCode('audit'));
    });
  return new Command('audit')
    .description('attack a privacy mechanism, or a plain update')
    .addCommand(mechanism)
    .addCommand(inversion);
}

/** Prints what the canary shows and returns whether the claim is refuted. */
async function auditOfMechanism(context: CliContext, flags: MechanismFlags): Promise<boolean> {
  const { auditMechanism, gaussianEpsilon } = await import('@tributary/privacy');
  const { gaussianRelease } = await import('../gaussian-release.ts');
  const { noiseMultiplier, clippingNorm, delta, trials } = flags;
  const canary = new Float64Array(DIMENSION);
  canary[0] = EXCESS * clippingNorm;
  const report = auditMechanism<readonly Float64Array[]>({
    release: gaussianRelease({ noiseMultiplier, clippingNorm, dimension: DIMENSION }),
    without: [],
    with: [canary],
    coordinate: 0,
    trials,
    claimedEpsilon: flags.epsilon ?? gaussianEpsilon(noiseMultiplier, delta),
    delta,
  });
  const refuted = report.verdict === 'refuted';
  if (flags.json) {
    printJson(context, { type: 'mechanism-audit', noiseMultiplier, clippingNorm, delta, trials, ...report });
    return refuted;
  }
  const { bold, dim, green, red } = context.colours;
  const { claimedEpsilon, epsilonLowerBound, truePositives, positives, falsePositives, negatives } = report;
  const of = (count: number, all: number) => `${formatCount(count)} of ${formatCount(all)}`;
  print(
    context,
    `\n  mechanism   one release, noise multiplier ${noiseMultiplier}, clipping norm ${clippingNorm}`,
  );
  print(
    context,
    `  canary      an update of norm ${EXCESS * clippingNorm}, there in half of ${formatCount(2 * trials)} releases`,
  );
  print(
    context,
    `  told        ${of(truePositives, positives)} with it, ${of(falsePositives, negatives)} without it were taken for it`,
  );
  print(context, `  claimed     epsilon ${formatMetric(claimedEpsilon)}  ${dim(`at delta ${delta}`)}`);
  print(
    context,
    `  found       epsilon ${formatMetric(epsilonLowerBound)} or more  ${dim('with 95% confidence')}\n`,
  );
  print(
    context,
    refuted
      ? `  ${red('✗')} ${bold('the claim is refuted')}`
      : `  ${green('✓')} ${bold('the claim is not refuted')}; that is no proof of it`,
  );
  print(context);
  return refuted;
}

/** Prints what the attacks read from one update for each image, and returns whether an image was among it. */
async function auditOfUpdate(
  context: CliContext,
  argument: string | undefined,
  flags: InversionFlags,
): Promise<boolean> {
  const files = flags.image?.map((image) => existingFile(context.cwd, image, '--image'));
  const { openModel } = await import('../models.ts');
  const { imageWasRead, openInverter } = await import('../inversion.ts');
  const model = await openModel(context.cwd, argument, flags.round);
  const { input, classes } = model.federation;
  const images = new Map<string, Float32Array>();
  if (files === undefined) {
    const { cryptoWords } = await import('@tributary/privacy');
    const words = cryptoWords();
    const length = input.height * input.width * input.channels;
    images.set(
      'random pixels',
      Float32Array.from({ length }, () => words() / 2 ** 32),
    );
  } else {
    const { modelImageReader } = await import('../model-images.ts');
    const read = modelImageReader(model.federation);
    for (const [i, file] of files.entries()) images.set(flags.image![i]!, await read(file));
  }
  const inverter = await openInverter(model, flags.engine);
  let read = false;
  try {
    if (!flags.json) {
      print(
        context,
        `\n  ${context.colours.dim(`One gradient of one example, model of round ${model.round}`)}\n`,
      );
    }
    for (const [i, [name, image]] of [...images].entries()) {
      // As in a data folder; else the classes in turn.
      const own = classes.indexOf(basename(dirname(resolve(context.cwd, name))));
      const inversion = await inverter.invert(image, own >= 0 ? own : i % classes.length);
      read ||= imageWasRead(inversion);
      if (flags.json) printJson(context, { type: 'inversion', image: name, ...inversion });
      else printInversion(context, name, inversion, classes, imageWasRead(inversion));
    }
  } finally {
    inverter.close();
  }
  return read;
}

function printInversion(
  context: CliContext,
  name: string,
  { layer, reads, inputs, mse, psnr, label, leakedLabels }: Inversion,
  classes: readonly string[],
  wasRead: boolean,
): void {
  const { bold, dim, green, red, yellow } = context.colours;
  const className = (index: number) => classes[index] ?? String(index);
  print(context, `  image       ${name}  ${dim(`class ${className(label)}`)}`);
  if (layer === undefined) {
    print(context, `  ${green('✓')} no dense layer with a bias: nothing is read without a search\n`);
    return;
  }
  const what = reads === 'image' ? 'the image itself' : `${formatCount(inputs!)} features of it`;
  const error =
    mse === undefined
      ? 'nothing, its gradient is zero'
      : `MSE ${mse.toExponential(1)}, PSNR ${psnr!.toFixed(1)} dB`;
  print(context, `  read        ${what}, the input of layer ${layer}: ${error}`);
  if (leakedLabels !== undefined)
    print(context, `  label       ${leakedLabels.map(className).join(', ') || 'none'}`);
  print(context, `  ${conclusion()}\n`);

  function conclusion(): string {
    if (wasRead) return `${red('✗')} ${bold('the update gives the image away')}`;
    return psnr === undefined
      ? `${green('✓')} nothing of the image is read without a search`
      : `${yellow('!')} the image is not read without a search; what the layers before made of it is`;
  }
}

/** An even number, of which half chooses the threshold. */
function evenTrials(text: string): number {
  const value = wholeNumber(1000, 10_000_000)(text);
  return value + (value % 2);
}
