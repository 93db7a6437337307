/** `tributary predict`: what a model sees in images. */
import { Command } from 'commander';
import { ENGINE_CHOICES, existingFile, oneOf, wholeNumber } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import type { Which } from '../models.ts';
import { bar } from '../terminal/live.ts';
import { formatMetric } from '../terminal/numbers.ts';
import { parseRound } from './export.ts';

interface Flags {
  readonly round: Which;
  readonly engine: (typeof ENGINE_CHOICES)[number];
  readonly top: number;
  readonly json?: boolean;
}

export function predictCommand(context: CliContext): Command {
  return new Command('predict')
    .description('tell what a model sees in images')
    .argument('<model>', 'a run directory or an exported folder')
    .argument('<image...>', 'image files')
    .option('--round <which>', 'of a run: best, last, or the number of a round', parseRound, 'best')
    .option('--engine <name>', `one of ${ENGINE_CHOICES.join(', ')}`, oneOf(ENGINE_CHOICES), 'auto')
    .option('--top <number>', 'classes to show for each image', wholeNumber(1, 1000), 3)
    .action(async (argument: string, images: string[], _options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const files = images.map((image) => existingFile(context.cwd, image, 'image'));
      const { openModel } = await import('../models.ts');
      const { openPredictor } = await import('../prediction.ts');
      const predictor = await openPredictor(
        await openModel(context.cwd, argument, flags.round),
        flags.engine,
      );
      try {
        for (const [i, file] of files.entries()) {
          const [all] = await predictor.predict([file]);
          const classes = all!.slice(0, flags.top);
          if (flags.json) printJson(context, { type: 'prediction', file: images[i], classes });
          else printPrediction(context, images[i]!, classes);
        }
      } finally {
        predictor.close();
      }
    });
}

function printPrediction(
  context: CliContext,
  image: string,
  classes: readonly { name: string; probability: number }[],
): void {
  const { bold, cyan } = context.colours;
  const width = Math.max(...classes.map(({ name }) => name.length));
  print(context, image);
  for (const [i, { name, probability }] of classes.entries()) {
    const label = name.padEnd(width);
    print(
      context,
      `  ${i === 0 ? bold(label) : label}  ${cyan(bar(probability, 20))}  ${formatMetric(probability)}`,
    );
  }
}
