/** Reads a configuration file and checks it; every mistake is reported at once, with the file, the key and the value. */
import { readFile } from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import { ConfigError, CoordinatorError } from '../errors.ts';
import { describeIssues } from './issues.ts';
import { configSchema, defineFederation, type FederationConfig, type FederationSettings } from './schema.ts';

/**
 * The configuration in `path` (.ts, .js, .mjs by its default export; .yaml, .yml; .json), checked but as written:
 * defaults are filled in by `resolveFederation`, so that a model's recipe can come between.
 *
 * @throws CoordinatorError FED_CONFIG_UNREADABLE when the file is missing or can't be parsed;
 *   ConfigError FED_CONFIG_INVALID naming every mistake
 */
export async function loadFederation(path: string): Promise<FederationConfig> {
  const raw = await read(path);
  checkConfig(raw, path);
  return raw as FederationConfig;
}

/** `config` with every default, or ConfigError naming each mistake. `file` is what the message calls it. */
export function checkConfig(config: unknown, file = 'configuration'): FederationSettings {
  const result = configSchema.safeParse(config);
  if (result.success) return result.data;
  throw new ConfigError(file, describeIssues(result.error, configSchema, config));
}

async function read(path: string): Promise<unknown> {
  const extension = extname(path).toLowerCase();
  try {
    switch (extension) {
      case '.json':
        return JSON.parse(await readFile(path, 'utf8'));
      case '.yaml':
      case '.yml':
        return await readYaml(path);
      case '.ts':
      case '.mts':
      case '.js':
      case '.mjs':
        return await importConfig(resolve(path));
    }
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new CoordinatorError(
      'FED_CONFIG_UNREADABLE',
      missing
        ? `${path}: there is no such file; \`tributary init\` writes one`
        : `${path} can't be read: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
  throw new CoordinatorError(
    'FED_CONFIG_UNREADABLE',
    `${path}: expected a .ts, .js, .yaml, .yml or .json file, not "${extension}"`,
  );
}

// Both parsers are loaded only when they are needed: a coordinator that runs has no use for them.

async function readYaml(path: string): Promise<unknown> {
  const { parse } = await import('yaml');
  return parse(await readFile(path, 'utf8'));
}

/** The file may import `defineFederation` from either name, wherever it lies. */
async function importConfig(path: string): Promise<unknown> {
  await readFile(path);
  const own = { defineFederation };
  const { createJiti } = await import('jiti');
  const jiti = createJiti(path, {
    moduleCache: false,
    fsCache: false,
    virtualModules: { tributary: own, '@tributary/coordinator': own },
  });
  return await jiti.import(path, { default: true });
}
