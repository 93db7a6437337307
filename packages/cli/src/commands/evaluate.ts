/** `tributary evaluate`: loss and metrics of a model on a folder of labelled images. */
import { Command } from 'commander';
import { ENGINE_CHOICES, existingFolder, oneOf } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import type { Which } from '../models.ts';
import { formatCount, formatMetric } from '../terminal/numbers.ts';
import { parseRound } from './export.ts';

interface Flags {
  readonly data: string;
  readonly round: Which;
  readonly engine: (typeof ENGINE_CHOICES)[number];
  readonly json?: boolean;
}

export function evaluateCommand(context: CliContext): Command {
  return new Command('evaluate')
    .description('measure a model on a folder of labelled images')
    .argument('[model]', 'a run directory or an exported folder (default: the newest run in runs/)')
    .requiredOption('--data <dir>', 'the images: <class>/* or test/<class>/*')
    .option('--round <which>', 'of a run: best, last, or the number of a round', parseRound, 'best')
    .option('--engine <name>', `one of ${ENGINE_CHOICES.join(', ')}`, oneOf(ENGINE_CHOICES), 'auto')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const dataDir = existingFolder(context.cwd, flags.data, '--data');
      const { openModel } = await import('../models.ts');
      const { createEvaluator } = await import('../evaluation.ts');
      const model = await openModel(context.cwd, argument, flags.round);
      const evaluator = await createEvaluator({
        federation: model.federation,
        dataDir,
        engine: flags.engine,
      });
      try {
        const metrics = await evaluator.evaluate(model.tensors);
        if (flags.json) {
          return printJson(context, {
            type: 'evaluated',
            runId: model.runId,
            round: model.round,
            examples: evaluator.examples,
            metrics,
          });
        }
        const { dim } = context.colours;
        print(
          context,
          dim(`Model of round ${model.round} on ${formatCount(evaluator.examples)} images in ${dataDir}`),
        );
        for (const [name, value] of Object.entries(metrics))
          print(context, `Test ${name}: ${formatMetric(value)}`);
      } finally {
        await evaluator.close();
      }
    });
}
