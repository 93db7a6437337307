/** `tributary export`: a round's model as files that other programs read. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { oneOf } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import type { TrainedModel, Which } from '../models.ts';

const FORMATS = ['layers-model', 'safetensors'] as const;
export type ExportFormat = (typeof FORMATS)[number];

interface Flags {
  readonly out: string;
  readonly format: ExportFormat;
  readonly round: Which;
  readonly json?: boolean;
}

/** 'best', 'last', or a round's number from 0. */
export function parseRound(text: string): Which {
  if (text === 'best' || text === 'last') return text;
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is best, last, or the number of a round.');
}

export function exportCommand(context: CliContext): Command {
  return new Command('export')
    .description('write a model as files that other programs read')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .requiredOption('--out <dir>', 'the folder to write; it must be new or empty')
    .option('--format <name>', `${FORMATS.join(' (TensorFlow.js) or ')}`, oneOf(FORMATS), 'layers-model')
    .option('--round <which>', 'best, last, or the number of a round', parseRound, 'best')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { openModel } = await import('../models.ts');
      const dir = resolve(context.cwd, flags.out);
      if (existsSync(dir) && readdirSync(dir).length > 0) {
        throw new CliError('FED_CLI_FILE_EXISTS', `${dir} is not empty; it was left as it is.`, {
          where: '--out',
          todo: 'Name a new folder.',
        });
      }
      const model = await openModel(context.cwd, argument, flags.round);
      const files = await exportModel(model, dir, flags.format);
      if (flags.json)
        return printJson(context, { type: 'exported', dir, format: flags.format, round: model.round, files });
      print(
        context,
        `${context.colours.green('✓')} Wrote the model of round ${model.round} to ${dir}: ${files.join(', ')}`,
      );
    });
}

/** Writes `model`, with its run's privacy report, into `dir` (made when absent) and returns the names of the files. */
export async function exportModel(model: TrainedModel, dir: string, format: ExportFormat): Promise<string[]> {
  const { CARD_FILE, SAFETENSORS_FILE, writeCard } = await import('../models.ts');
  mkdirSync(dir, { recursive: true });
  if (format === 'safetensors') {
    const { encodeSafetensors } = await import('@tributary/shared-protocol');
    const metadata = { run: model.runId, round: String(model.round), config: model.federation.digest };
    writeFileSync(join(dir, SAFETENSORS_FILE), encodeSafetensors([...model.tensors], metadata));
  } else {
    const { loadEngine } = await import('@tributary/engine');
    const { exportLayersModel } = await import('@tributary/models');
    await loadEngine({ prefer: 'cpu' });
    await exportLayersModel(model.federation.topology, model.tensors, dir);
  }
  writeCard(dir, model);
  const weights = format === 'safetensors' ? [SAFETENSORS_FILE] : ['model.json', 'weights.bin'];
  return [...weights, CARD_FILE, ...(await writePrivacy(model, dir))];
}

/** What the model's run can say of its privacy goes where the model goes. */
async function writePrivacy(model: TrainedModel, dir: string): Promise<string[]> {
  const { isRun, openRun } = await import('../runs.ts');
  const { PRIVACY_FILES } = await import('../models.ts');
  if (isRun(model.dir)) {
    const { privacyMarkdown, privacyReport } = await import('../privacy-report.ts');
    const report = privacyReport(openRun('.', model.dir));
    const texts = [privacyMarkdown(report), `${JSON.stringify(report, undefined, 2)}\n`];
    for (const [i, file] of PRIVACY_FILES.entries()) writeFileSync(join(dir, file), texts[i]!);
    return [...PRIVACY_FILES];
  }
  const kept = PRIVACY_FILES.filter((file) => existsSync(join(model.dir, file)));
  for (const file of kept) copyFileSync(join(model.dir, file), join(dir, file));
  return kept;
}
