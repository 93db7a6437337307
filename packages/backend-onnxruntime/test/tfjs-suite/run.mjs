// Runs the tests that tfjs-core carries in its npm package: against `cpu`, where all have to pass, and against this
// backend, lazy and eager, where those named in skips.json (each with its reason) may fail, and have to. A name that
// doesn't fail any more, or doesn't exist, fails the run too, so that the list can't grow stale.
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const MAX_SKIPS = 40;
const here = dirname(fileURLToPath(import.meta.url));
const bundle = join(here, '../../node_modules/.cache/tfjs-suite/bundle.cjs');
const require = createRequire(import.meta.url);
const backends =
  process.argv.length > 2 ? process.argv.slice(2) : ['cpu', 'onnxruntime', 'onnxruntime-eager'];

/** Name of a spec without that of the backend → why it may fail, and in which of the two modes if not in both. */
const skips = JSON.parse(readFileSync(join(here, 'skips.json'), 'utf8'));
let failed = checkList();
mkdirSync(dirname(bundle), { recursive: true });
await build({
  entryPoints: [join(here, 'entry.ts')],
  outfile: bundle,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  // One copy of the engine: the tests import its ES modules.
  mainFields: ['module', 'main'],
  // The package says that its files have no side effects; its tests are nothing else.
  ignoreAnnotations: true,
  external: ['onnxruntime-node', 'jasmine', 'jasmine-core', 'node-fetch'],
  define: { 'import.meta.url': JSON.stringify(`file://${here}/run.mjs`) },
  logLevel: 'error',
});
for (const backend of backends) failed = !(await runSuite(backend)) || failed;
process.exit(failed ? 1 : 0);

function checkList() {
  const entries = Object.entries(skips);
  const unexplained = entries.filter(([, skip]) => !(skip.reason?.length > 10));
  for (const [name] of unexplained) console.error(`skips.json: no reason for "${name}"`);
  if (entries.length > MAX_SKIPS)
    console.error(`skips.json: ${entries.length} entries, at most ${MAX_SKIPS} may be`);
  return unexplained.length > 0 || entries.length > MAX_SKIPS;
}

async function runSuite(backend) {
  const started = Date.now();
  const { specs, crash } = await collect(backend);
  for (const spec of specs) spec.name = spec.name.replace(` ${backend} {}`, '');
  const failures = specs.filter((spec) => spec.status === 'failed');
  const allowed = new Set(
    Object.entries(skips).flatMap(([name, { only }]) =>
      backend !== 'cpu' && (only === undefined || only === backend) ? [name] : [],
    ),
  );
  const names = new Set(failures.map((spec) => spec.name));
  const unexpected = failures.filter((spec) => !allowed.has(spec.name));
  const stale = [...allowed].filter((name) => !names.has(name));
  for (const { name, message } of unexpected) console.log(`${backend}: FAILED ${name}\n    ${message}`);
  for (const name of stale) console.log(`${backend}: passes, so strike it from skips.json: ${name}`);
  if (crash !== undefined) console.log(`${backend}: ${crash}`);
  const count = (status) => specs.filter((spec) => spec.status === status).length;
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(
    `${backend}: ${specs.length} specs, ${count('passed')} passed, ${failures.length} failed ` +
      `(${failures.length - unexpected.length} on the skip list, ${unexpected.length} not), ` +
      `${count('pending')} pending, ${seconds} s`,
  );
  return unexpected.length === 0 && stale.length === 0 && crash === undefined && specs.length > 0;
}

/** Runs the bundle under jasmine in a process of its own, whose reporter writes one JSON line a spec. */
function collect(backend) {
  const child = spawn(process.execPath, [join(here, 'jasmine.cjs'), bundle, require.resolve('jasmine')], {
    env: { ...process.env, TFJS_SUITE_BACKEND: backend },
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
  });
  let text = '';
  child.stdio[3].setEncoding('utf8').on('data', (chunk) => {
    text += chunk;
  });
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      const lines = text.split('\n').filter(Boolean);
      const done = lines.at(-1) === '"done"';
      if (done) lines.pop();
      const crash = done ? undefined : `the run broke off (exit code ${code}, signal ${signal})`;
      resolve({ specs: lines.map((line) => JSON.parse(line)), crash });
    });
  });
}
