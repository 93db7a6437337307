// Rules of the house that no other tool checks: imports between packages go one way, declared dependencies are the
// imported ones, and no file names a registry's address. `npm run check` runs it.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Package → what it may import of ours. ARCHITECTURE.md says why. */
const allowed = {
  'shared-protocol': [],
  privacy: [],
  'backend-onnxruntime': [],
  engine: ['backend-onnxruntime'],
  models: ['engine', 'shared-protocol'],
  coordinator: ['shared-protocol', 'privacy'],
  worker: ['shared-protocol', 'privacy', 'engine', 'models'],
  cli: ['shared-protocol', 'privacy', 'engine', 'models', 'coordinator', 'worker'],
  testkit: ['shared-protocol'],
};
/** Text that a command writes for its user imports what the user has installed. */
const templates = ['packages/cli/src/commands/init-template.ts'];
/** No tensors and no policy where they do not belong. */
const forbidden = { 'shared-protocol': /^@tensorflow\//, coordinator: /^@tensorflow\// };

/** Files that every start of the command reads, and what a command loads when it runs: it takes a quarter of a second. */
const readAtStart = /^packages\/cli\/src\/(commands\/.*|main|program)\.ts$/;
const loadedWhenNeeded = ['engine', 'models', 'privacy', 'coordinator', 'worker'];

const problems = [];
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  encoding: 'utf8',
})
  .split('\n')
  .filter(Boolean);

for (const file of files) {
  const text = readText(file);
  if (text === undefined) continue;
  checkAddresses(file, text);
  const match = /^packages\/([^/]+)\/src\/.*\.ts$/.exec(file);
  if (match && !templates.includes(file)) checkImports(file, match[1], text);
}

if (problems.length > 0) {
  console.error(problems.join('\n'));
  process.exit(1);
}

function checkImports(file, name, text) {
  const may = allowed[name];
  if (may === undefined) {
    problems.push(
      `${file}: package '${name}' is not in scripts/house-rules.mjs; say there what it may import`,
    );
    return;
  }
  const manifest = JSON.parse(readFileSync(`packages/${name}/package.json`, 'utf8'));
  const declared = new Set(
    [manifest.dependencies, manifest.optionalDependencies, manifest.peerDependencies].flatMap((d) =>
      Object.keys(d ?? {}),
    ),
  );
  for (const [statement, stated, lazy] of text.matchAll(
    /(?:^|\s)(?:import|export)\b[^'";]*?from\s*'([^']+)'|import\('([^']+)'\)/gm,
  )) {
    const specifier = stated ?? lazy;
    if (specifier.startsWith('.') || specifier.startsWith('node:')) continue;
    const dependency = specifier
      .split('/')
      .slice(0, specifier.startsWith('@') ? 2 : 1)
      .join('/');
    const ours = /^@tributary\/(.+)$/.exec(dependency)?.[1];
    if (ours !== undefined && ours !== name && !may.includes(ours)) {
      problems.push(`${file}: ${name} may not import ${ours} (imports between packages go one way)`);
    }
    const loads = lazy === undefined && !statement.trimStart().startsWith('import type');
    if (loads && readAtStart.test(file) && loadedWhenNeeded.includes(ours)) {
      problems.push(`${file}: imports ${specifier} at every start; await import() it where it is used`);
    }
    if (forbidden[name]?.test(dependency)) problems.push(`${file}: ${name} may not import ${dependency}`);
    if (ours !== name && !declared.has(dependency)) {
      problems.push(`${file}: imports ${dependency}, which packages/${name}/package.json does not declare`);
    }
  }
}

function checkAddresses(file, text) {
  const address = /registry\.[a-z]+\.(org|com)|\bdeb\.[a-z]+\.org/.exec(text);
  if (address && file !== 'scripts/house-rules.mjs')
    problems.push(`${file}: names a package registry (${address[0]})`);
}

function readText(file) {
  try {
    const bytes = readFileSync(file);
    return bytes.includes(0) ? undefined : bytes.toString('utf8');
  } catch {
    return undefined; // deleted in the working tree
  }
}
