#!/usr/bin/env node
// The front door: `npm run demo`, `npm test` and their siblings come through here. It needs Node and npm only: it
// installs what the lock file names, once a lock file, with pnpm by version, and then hands over.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const [command = 'help', ...args] = process.argv.slice(2);

const bin = (name) => join(root, 'node_modules', '.bin', name);

const commands = {
  demo: () => withNats(() => tributary(['demo', ...args]), args.includes('nats')),
  tributary: () => tributary(args, process.env.INIT_CWD),
  bench: () => withNats(() => node(['bench/main.ts', ...args]), args[0] === 'transport'),
  chaos: () => withNats(() => node(['test/chaos/main.ts', ...args])),
  oracles: () => node(['test/oracles/run.ts', ...args.map(fromCallersFolder)]),
  test: () => withNats(test),
  'test:tfjs': () =>
    run(process.execPath, [join(root, 'packages/backend-onnxruntime/test/tfjs-suite/run.mjs'), ...args]),
  check,
  build: () => run(bin('tsc'), ['-b']),
};

checkNode();
if (!Object.hasOwn(commands, command)) {
  fail(`There is no '${command}' here. Choose one of: ${Object.keys(commands).join(', ')}.`);
}
install();
process.exitCode = await commands[command]();

/** With a nats-server on the PATH, where one can be had; without, what needs it says so. */
async function withNats(work, needed = true) {
  if (needed) {
    const { pathWithNatsServer } = await import('./nats-server.mjs');
    process.env.PATH = pathWithNatsServer(root);
  }
  return work();
}

/** Vitest over everything; the last line is the plain count that CI reads. */
async function test() {
  const results = join(root, 'node_modules', '.cache', 'test-results.json');
  mkdirSync(dirname(results), { recursive: true });
  rmSync(results, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${results}`];
  const code = await run(bin('vitest'), ['run', ...reporters, ...args]);
  if (!existsSync(results)) return code || 1;
  const report = JSON.parse(readFileSync(results, 'utf8'));
  const skipped = report.numPendingTests + report.numTodoTests;
  // A file that fails before its first test (an import, a hook) has no failed test of its own.
  const broken = report.testResults.filter(
    ({ status, assertionResults }) =>
      status === 'failed' && !assertionResults.some((one) => one.status === 'failed'),
  ).length;
  console.log(
    `${report.numPassedTests} passed, ${report.numFailedTests + broken} failed, ${skipped} skipped`,
  );
  return code;
}

/** Types, lint, dead exports, package shape, one-way imports: all that a reviewer should not have to look for. */
async function check() {
  const steps = [
    ['types', bin('tsc'), ['-b']],
    ['types of tests', bin('tsc'), ['-p', 'tsconfig.test.json', '--noEmit']],
    ['lint and format', bin('biome'), ['check', '--error-on-warnings', '.']],
    ['dead code', bin('knip'), ['--no-config-hints']],
    ['package exports', process.execPath, ['scripts/publish-rules.mjs']],
    ['house rules', process.execPath, ['scripts/house-rules.mjs']],
  ];
  let failed = 0;
  for (const [title, file, argv] of steps) {
    const started = Date.now();
    const { status, stdout, stderr } = spawnSync(file, argv, {
      cwd: root,
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    });
    const seconds = ((Date.now() - started) / 1000).toFixed(1);
    console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${title} (${seconds} s)`);
    if (status !== 0) console.log(`${stdout}${stderr}`.trim());
    failed += status === 0 ? 0 : 1;
  }
  return failed === 0 ? 0 : 1;
}

function install() {
  const lock = readFileSync(join(root, 'pnpm-lock.yaml'));
  const digest = createHash('sha256').update(lock).digest('hex');
  const stamp = join(root, 'node_modules', '.installed-lock');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;

  const { packageManager } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const pnpm = packageManager.split('+')[0];
  const started = Date.now();
  console.log(`Installing what the lock file names (${pnpm.replace('@', ' ')}) …`);
  const { status, stdout, stderr } = spawnSync(
    'npx',
    ['--yes', '--loglevel=error', pnpm, 'install', '--frozen-lockfile', '--reporter=append-only'],
    { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26, shell: process.platform === 'win32' },
  );
  if (status !== 0) fail(`The installation failed:\n${`${stdout ?? ''}${stderr ?? ''}`.trim().slice(-4000)}`);
  writeFileSync(stamp, digest);
  console.log(`Installed in ${Math.round((Date.now() - started) / 1000)} s.\n`);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  fail(
    `Tributary needs Node 20.19 or later; this is ${process.versions.node}. Install a current Node and try again.`,
  );
}

function fromCallersFolder(path) {
  return path.startsWith('-') ? path : resolve(process.env.INIT_CWD ?? process.cwd(), path);
}

/** The command line, from JavaScript: see transpile.mjs. */
async function tributary(argv, cwd = root) {
  const { transpile } = await import('./transpile.mjs');
  await transpile(root);
  return run(process.execPath, [join(root, 'packages/cli/dist/main.js'), ...argv], cwd);
}

function node(argv, cwd = root) {
  // By address, because a command may run in the caller's folder.
  const tsx = import.meta.resolve('tsx');
  return run(process.execPath, ['--conditions=@tributary/source', '--import', tsx, ...argv], cwd);
}

/** Runs in the foreground and resolves with the exit code; signals reach the child through the terminal's group. */
function run(file, argv, cwd = root) {
  const child = spawn(file, argv, { cwd, stdio: 'inherit', env: { ...process.env, TRIBUTARY_ROOT: root } });
  const ignore = () => {};
  process.on('SIGINT', ignore);
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  return new Promise((resolve) => {
    child.on('error', (error) => fail(`Can't start ${file}: ${error.message}`));
    child.on('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
