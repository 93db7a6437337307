/**
 * Programs as one file each, as they run once they are built: a process then starts in a fifth of a second instead of
 * two thirds, and carries no compiler. The bundler is the one that tsx brings along.
 */
import { mkdtemp } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export interface Bundle {
  /** Where the program of an entry lies, by the entry's name without ending. */
  program(name: string): URL;
  /** The folder of all of them; whoever asked for the bundle removes it. */
  readonly folder: string;
}

interface Bundler {
  build(options: Record<string, unknown>): Promise<unknown>;
}

/**
 * Bundles TypeScript programs from the sources.
 *
 * @param home a `node_modules` folder, from which modules in `external` are found
 */
export async function bundlePrograms(
  entries: readonly URL[],
  home: URL,
  external: readonly string[] = [],
): Promise<Bundle> {
  const require = createRequire(import.meta.url);
  const bundler = createRequire(require.resolve('tsx/package.json'))('esbuild') as Bundler;
  const outdir = await mkdtemp(join(fileURLToPath(home), '.bundle-'));
  await bundler.build({
    entryPoints: entries.map((entry) => fileURLToPath(entry)),
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    conditions: ['@tributary/source'],
    external,
    banner: {
      js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
    },
    logLevel: 'error',
  });
  return {
    program: (name) => pathToFileURL(join(outdir, `${name}.mjs`)),
    folder: outdir,
  };
}
