/**
 * From a configuration file to everything a coordinator starts with: the model's recipe laid under the configuration,
 * the model built (or read), and the resolved form. The one place of the command line that knows of models.
 */
import { existsSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import {
  checkConfig,
  type FederationConfig,
  loadFederation,
  type ResolvedFederation,
  resolveFederation,
  withRecipe,
} from '@tributary/coordinator';
import { loadEngine } from '@tributary/engine';
import {
  artifactFromBuilder,
  buildModel,
  isModelName,
  loadSavedModel,
  MODEL_NAMES,
  type ModelArtifact,
  modelArtifact,
  modelFromArtifact,
  recipeFor,
  weightsOfLayers,
} from '@tributary/models';
import { CliError } from './errors.ts';

/** Looked for in this order when a command is given no configuration. */
export const CONFIG_NAMES = ['ts', 'mts', 'js', 'mjs', 'yaml', 'yml', 'json'].map(
  (ending) => `tributary.config.${ending}`,
);

export interface PreparedFederation {
  /** The configuration's path, absolute. */
  readonly file: string;
  readonly federation: ResolvedFederation;
  readonly artifact: ModelArtifact;
  /** Absolute. */
  readonly runDir: string;
  /** Absolute; undefined when the federation has no central test images. */
  readonly testDir: string | undefined;
}

/** What flags change of a configuration. */
export interface FederationOverrides {
  readonly runDir?: string;
  readonly host?: string;
  readonly port?: number;
  readonly rounds?: number;
  readonly inviteUses?: number;
  /** Address of a NATS server to listen at. */
  readonly nats?: string;
  /** Relative to the current folder, as the next. */
  readonly natsCredentials?: string;
  readonly natsCa?: string;
}

/**
 * The absolute path of the configuration named by `argument`, or of the one in `cwd`. Throws FED_CLI_CONFIG_MISSING.
 */
export function findConfig(cwd: string, argument: string | undefined): string {
  if (argument !== undefined) {
    const path = resolve(cwd, argument);
    if (existsSync(path)) return path;
    throw new CliError('FED_CLI_CONFIG_MISSING', `There is no configuration at ${path}.`, {
      where: 'config',
      todo: '`tributary init` writes one.',
    });
  }
  for (const name of CONFIG_NAMES) if (existsSync(join(cwd, name))) return join(cwd, name);
  throw new CliError(
    'FED_CLI_CONFIG_MISSING',
    `There is no tributary.config.ts (or .yaml, .json) in ${cwd}.`,
    {
      todo: '`tributary init` writes one; or name another: tributary coordinator path/to/config.ts',
    },
  );
}

/**
 * Everything that a coordinator starts with. Paths in the configuration are relative to its file, those in flags to
 * `cwd`. The model is built on the `cpu` engine, so that the same seed gives the same first model on every machine.
 *
 * Throws FED_CONFIG_INVALID, FED_CONFIG_UNREADABLE and the models' own FED_MODEL_ codes.
 */
export async function prepareFederation(
  file: string,
  cwd: string,
  overrides: FederationOverrides = {},
): Promise<PreparedFederation> {
  const folder = dirname(file);
  const shown = basename(file);
  const written = applyOverrides(await loadFederation(file), overrides, cwd);
  const { model } = written;
  const named = typeof model === 'string' && isModelName(model);
  const config = named ? withRecipe(written, asConfig(recipeFor(model, written.classes.length))) : written;
  const settings = checkConfig(config, shown);
  const input = {
    height: settings.input.height ?? 224,
    width: settings.input.width ?? 224,
    channels: settings.input.channels,
  };
  const { seed, classes } = settings;

  const { tf } = await loadEngine({ prefer: 'cpu' });
  const artifact = await (async (): Promise<ModelArtifact> => {
    if (typeof model === 'function') {
      return await artifactFromBuilder(
        async () => (await model({ tf, input, numClasses: classes.length, seed })) as never,
        seed,
      );
    }
    if (named) {
      const built = buildModel(model, { input, numClasses: classes.length, seed });
      try {
        return { ...(await modelArtifact(built)), name: model };
      } finally {
        built.dispose();
      }
    }
    const path = isAbsolute(model) ? model : join(folder, model);
    if (!existsSync(path)) {
      throw new CliError(
        'FED_CLI_CONFIG_MISSING',
        `The model "${model}" is neither one that Tributary ships nor a file: ${path} is not there.`,
        {
          where: `${shown}, key model`,
          todo: `Name one of ${MODEL_NAMES.join(', ')}, or the folder of a saved LayersModel.`,
        },
      );
    }
    return await loadSavedModel(path);
  })();
  const frozen = await freeze(artifact, settings.training.frozenLayers, shown);
  const federation = withAbsoluteFiles(resolveFederation(config, frozen, shown), folder);
  const testDir = federation.evaluation.testDir;
  return {
    file,
    federation,
    artifact: frozen,
    runDir:
      overrides.runDir === undefined
        ? resolve(folder, federation.runDir ?? join('runs', federation.name))
        : resolve(cwd, overrides.runDir),
    testDir: testDir === undefined ? undefined : resolve(folder, testDir),
  };
}

function applyOverrides(
  config: FederationConfig,
  overrides: FederationOverrides,
  cwd: string,
): FederationConfig {
  const { host, port, rounds, inviteUses, nats, natsCredentials, natsCa } = overrides;
  const url = nats ?? config.server?.nats?.url;
  if (url === undefined && (natsCredentials !== undefined || natsCa !== undefined)) {
    throw new CliError('FED_CLI_USAGE', 'A key or an authority for NATS was given, but no server.', {
      where: natsCredentials === undefined ? '--nats-ca' : '--nats-credentials',
      todo: 'Add --nats tls://host:4222/prefix, or server.nats to the configuration.',
    });
  }
  return {
    ...config,
    ...(rounds === undefined ? {} : { rounds }),
    server: {
      ...config.server,
      ...(host === undefined ? {} : { host }),
      ...(port === undefined ? {} : { port }),
      ...(url === undefined
        ? {}
        : {
            nats: {
              ...config.server?.nats,
              url,
              ...(natsCredentials === undefined ? {} : { credentials: resolve(cwd, natsCredentials) }),
              ...(natsCa === undefined ? {} : { ca: resolve(cwd, natsCa) }),
            },
          }),
    },
    invites: { ...config.invites, ...(inviteUses === undefined ? {} : { uses: inviteUses }) },
  };
}

/** With the files of `server.nats` as absolute paths, so that a command in any folder finds them by the run's record. */
function withAbsoluteFiles(federation: ResolvedFederation, folder: string): ResolvedFederation {
  const { nats } = federation.server;
  if (nats === undefined) return federation;
  const { url, credentials, ca } = nats;
  return {
    ...federation,
    server: {
      ...federation.server,
      nats: {
        url,
        ...(credentials === undefined ? {} : { credentials: resolve(folder, credentials) }),
        ...(ca === undefined ? {} : { ca: resolve(folder, ca) }),
      },
    },
  };
}

/** A recipe as the part of a configuration that it is: all but the model's name, which the configuration gave. */
function asConfig(recipe: ReturnType<typeof recipeFor>): Partial<FederationConfig> {
  const { model: _model, ...rest } = recipe;
  return rest;
}

/** The artifact with the weights of `frozenLayers` (names) frozen too. Throws FED_CLI_MODEL_MISMATCH for an unknown one. */
async function freeze(
  artifact: ModelArtifact,
  frozenLayers: readonly string[],
  file: string,
): Promise<ModelArtifact> {
  if (frozenLayers.length === 0) return artifact;
  const model = await modelFromArtifact(artifact);
  try {
    const names = model.layers.map((layer) => layer.name);
    const unknown = frozenLayers.filter((name) => !names.includes(name));
    if (unknown.length > 0) {
      throw new CliError('FED_CLI_MODEL_MISMATCH', `The model has no layer named ${unknown.join(', ')}.`, {
        where: `${file}, key training.frozenLayers`,
        todo: `Its layers are ${names.join(', ')}.`,
      });
    }
    const frozen = new Set([...artifact.frozenWeights, ...weightsOfLayers(model, frozenLayers)]);
    const ordered = artifact.weights.map((weight) => weight.name).filter((name) => frozen.has(name));
    return { ...artifact, frozenWeights: ordered };
  } finally {
    model.dispose();
  }
}
