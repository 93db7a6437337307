// Compiles packages/worker/kernels/*.ts (AssemblyScript) to WebAssembly, as TypeScript files that are committed:
// `node scripts/kernels.mjs`. The compiler is large and is needed only here, so it is fetched by version for the occasion.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const COMPILER = 'assemblyscript@0.28.20';
const FLAGS = ['-O3', '--runtime', 'stub', '--enable', 'simd', '--noAssert', '--initialMemory', '0'];

const worker = fileURLToPath(new URL('../packages/worker/', import.meta.url));
const kernels = join(worker, 'kernels');
const draft = mkdtempSync(join(tmpdir(), 'tributary-kernels-'));
try {
  for (const file of readdirSync(kernels).filter((name) => name.endsWith('.ts'))) {
    const name = file.slice(0, -'.ts'.length);
    const out = join(draft, `${name}.wasm`);
    const argv = ['--yes', '--package', COMPILER, 'asc', file, ...FLAGS, '--outFile', out];
    const { status } = spawnSync('npx', argv, { cwd: kernels, stdio: 'inherit' });
    if (status !== 0) process.exit(1);
    const digest = createHash('sha256')
      .update(readFileSync(join(kernels, file)))
      .digest('hex');
    const constant = name.toUpperCase();
    const lines = readFileSync(out)
      .toString('base64')
      .match(/.{1,104}/g);
    const text = [
      `// Made by scripts/kernels.mjs from packages/worker/kernels/${file}: change that, not this.`,
      `export const ${constant}_SOURCE_SHA256 = '${digest}';`,
      `export const ${constant}_WASM = \`\n${lines.join('\n')}\n\`;`,
    ];
    writeFileSync(join(worker, 'src', 'kernels', `${name}.ts`), `${text.join('\n')}\n`);
    console.log(`${name}: ${readFileSync(out).length} bytes`);
  }
} finally {
  rmSync(draft, { recursive: true, force: true });
}
