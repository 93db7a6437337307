/**
 * The two programs as one file each: a process then starts in a fifth of a second instead of two thirds, which counts
 * when hundreds are started. The bundler is the one that tsx brings along.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export interface Programs {
  readonly coordinator: URL;
  readonly worker: URL;
  remove(): Promise<void>;
}

interface Bundler {
  build(options: Record<string, unknown>): Promise<unknown>;
}

export async function bundlePrograms(): Promise<Programs> {
  const require = createRequire(import.meta.url);
  const bundler = createRequire(require.resolve('tsx/package.json'))('esbuild') as Bundler;
  // Beside the worker's own modules: the one that stays outside, sharp, is found from there.
  const home = fileURLToPath(new URL('../../packages/worker/node_modules/', import.meta.url));
  const outdir = await mkdtemp(join(home, '.chaos-'));
  const here = fileURLToPath(new URL('../e2e/', import.meta.url));
  await bundler.build({
    entryPoints: [join(here, 'coordinator-process.ts'), join(here, 'worker-process.ts')],
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    format: 'esm',
    conditions: ['@tributary/source'],
    external: ['sharp'],
    banner: {
      js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
    },
    logLevel: 'error',
  });
  const url = (name: string) => pathToFileURL(join(outdir, name));
  return {
    coordinator: url('coordinator-process.mjs'),
    worker: url('worker-process.mjs'),
    remove: () => rm(outdir, { recursive: true, force: true }),
  };
}
