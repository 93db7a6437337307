/**
 * A trained model to use: from a run directory (any round's checkpoint), or from a folder that `export` wrote. Either
 * way it comes with its federation's facts: the classes, the input, how images are standardised, the loss.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { ResolvedFederation } from '@tributary/coordinator';
import { decodeSafetensors, type Tensor } from '@tributary/shared-protocol';
import { CliError } from './errors.ts';
import { findRun, isRun, openRun, weightsOf } from './runs.ts';

/** What `export` writes beside the weights. */
export const CARD_FILE = 'tributary.json';
export const SAFETENSORS_FILE = 'model.safetensors';

export interface ModelCard {
  readonly format: 'tributary-model';
  readonly runId: string;
  readonly round: number;
  readonly federation: ResolvedFederation;
}

/** What can be said of the privacy of the run that a model is from, for people and for programs. */
export const PRIVACY_FILES: readonly string[] = ['PRIVACY.md', 'privacy.json'];

export interface TrainedModel extends ModelCard {
  /** Where it was read: a run directory, or a folder that `export` wrote. */
  readonly dir: string;
  /** In the federation's order. */
  readonly tensors: readonly Tensor[];
}

/** A round by name or number. */
export type Which = 'best' | 'last' | number;

/**
 * The model named by `argument`: a run directory, a run's name, an exported folder, or when absent the newest run.
 * Throws FED_CLI_RUN_NOT_FOUND, FED_CLI_MODEL_MISMATCH.
 */
export async function openModel(
  cwd: string,
  argument: string | undefined,
  which: Which,
): Promise<TrainedModel> {
  const folder = argument === undefined ? undefined : resolve(cwd, argument);
  if (folder !== undefined && !isRun(folder) && existsSync(join(folder, CARD_FILE)))
    return await openExported(folder);
  if (folder !== undefined && existsSync(join(folder, 'model.json'))) {
    throw new CliError(
      'FED_CLI_MODEL_MISMATCH',
      `${folder} is a LayersModel without ${CARD_FILE}, which says its classes and its input.`,
      {
        todo: 'Use a folder that `tributary export` wrote, or the run directory.',
      },
    );
  }
  const run = openRun(cwd, findRun(cwd, argument));
  const { dir, federation } = run;
  const { round, tensors } = weightsOf(run, which);
  return { format: 'tributary-model', runId: run.state.runId, round, federation, tensors, dir };
}

/** Writes the card of `model` into `dir`. Where the run was served and kept is left out: a model may be published. */
export function writeCard(dir: string, { runId, round, federation }: TrainedModel): void {
  const { runDir: _runDir, evaluation, ...rest } = federation;
  const { testDir: _testDir, ...measured } = evaluation;
  const { publicUrl: _publicUrl, nats: _nats, ...server } = rest.server;
  const card: ModelCard = {
    format: 'tributary-model',
    runId,
    round,
    federation: { ...rest, server, evaluation: measured },
  };
  writeFileSync(join(dir, CARD_FILE), `${JSON.stringify(card, undefined, 2)}\n`);
}

async function openExported(folder: string): Promise<TrainedModel> {
  const card = JSON.parse(readFileSync(join(folder, CARD_FILE), 'utf8')) as ModelCard;
  if (card.format !== 'tributary-model') {
    throw new CliError(
      'FED_CLI_MODEL_MISMATCH',
      `${join(folder, CARD_FILE)} does not describe a model of Tributary.`,
    );
  }
  const weights = new Map((await readWeights(folder)).map((tensor) => [tensor.name, tensor]));
  const tensors = card.federation.tensors.map(({ name, shape }) => {
    const tensor = weights.get(name);
    if (tensor !== undefined && tensor.shape.join() === shape.join()) return tensor;
    throw new CliError(
      'FED_CLI_MODEL_MISMATCH',
      `The weights in ${folder} lack ${name} of shape [${shape.join(', ')}].`,
      {
        todo: 'Export the model again.',
      },
    );
  });
  return { ...card, tensors, dir: folder };
}

async function readWeights(folder: string): Promise<readonly Tensor[]> {
  const safetensors = join(folder, SAFETENSORS_FILE);
  if (existsSync(safetensors)) return decodeSafetensors(readFileSync(safetensors)).tensors;
  const { loadEngine } = await import('@tributary/engine');
  const { loadSavedModel } = await import('@tributary/models');
  await loadEngine({ prefer: 'cpu' });
  return (await loadSavedModel(folder)).weights;
}
