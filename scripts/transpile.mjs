// JavaScript from the sources, file by file and without a look at types: what `npm run demo` and `npm run tributary` run,
// and what tests start as the command. A process that reads TypeScript itself takes twice as long to start, and the demo
// starts ten. `npm run build` writes the same files with their types; whichever is newer than its source stays.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

/** Imports stay imports, of the files that are being written. */
const keepImports = {
  name: 'keep imports',
  setup({ onResolve }) {
    onResolve({ filter: /.*/ }, ({ kind, path }) => {
      if (kind === 'entry-point') return undefined;
      return { path: /^\.{1,2}\//.test(path) ? path.replace(/\.ts$/, '.js') : path, external: true };
    });
  },
};

/** For vitest: before the first test, because tests start programs. */
export const setup = ({ config }) => transpile(config.root);

/** Writes `dist` of every package of the checkout at `root`, as far as it is older than `src`. */
export async function transpile(root) {
  const packages = readdirSync(join(root, 'packages')).map((name) => join(root, 'packages', name));
  await Promise.all(packages.filter((folder) => existsSync(join(folder, 'src'))).map(transpilePackage));
}

async function transpilePackage(folder) {
  const stale = readdirSync(join(folder, 'src'), { recursive: true })
    .filter((name) => name.endsWith('.ts'))
    .filter((name) => {
      const written = statSync(join(folder, 'dist', name.replace(/\.ts$/, '.js')), { throwIfNoEntry: false });
      return written === undefined || written.mtimeMs < statSync(join(folder, 'src', name)).mtimeMs;
    });
  if (stale.length === 0) return;
  await build({
    entryPoints: stale.map((name) => join(folder, 'src', name)),
    outbase: join(folder, 'src'),
    outdir: join(folder, 'dist'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: true,
    plugins: [keepImports],
    logLevel: 'error',
  });
}
