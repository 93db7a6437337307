/**
 * Checks of a compose file without a Docker engine: the schema of the compose specification and a linter's rules, then
 * what we promise of our containers, and that every path, command, image and variable in it is one that there is.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';
import { DCLinter } from 'dclint';
import { parse } from 'yaml';
import { foldersOf } from './dockerfiles.ts';
import { commandProblem, isThere, manifestOf, textOf, variableProblem } from './project.ts';

interface Service {
  readonly image?: string;
  readonly build?: { readonly context: string; readonly dockerfile: string };
  readonly command?: readonly string[];
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly security_opt?: readonly string[];
  readonly user?: string;
  readonly tmpfs?: readonly string[];
  readonly volumes?: readonly string[];
  readonly depends_on?: Readonly<Record<string, unknown>>;
  readonly networks?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly healthcheck?: { readonly disable?: boolean; readonly test?: readonly string[] };
}

/** Its own types lack the endings that our compiler asks for. */
interface Linter {
  lintFiles(
    paths: readonly string[],
    recursive: boolean,
  ): readonly { readonly messages: readonly { readonly line: number; readonly message: string }[] }[];
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes?: Readonly<Record<string, unknown>>;
  readonly networks?: Readonly<Record<string, unknown>>;
}

/** Folders that a command of the how-to page makes before the file is used, relative to the root. */
const MADE: Readonly<Record<string, string>> = {
  'examples/digits/data': 'npm run data',
  'docker/nats': 'npx tributary nats-config',
};

/** Rules of taste, and one that asks for what would keep the workers from three names for one image, are off. */
const RULES = {
  'services-alphabetical-order': 0,
  'service-keys-order': 0,
  'top-level-properties-order': 0,
  'service-dependencies-alphabetical-order': 0,
  'no-build-and-image': 0,
  'no-unbound-port-interfaces': 0,
  'require-quotes-in-ports': [2, { quoteType: 'double' }],
} as const;

/** What is wrong with the text of a compose file, a line each; `over`: the file that it is laid over. */
export async function composeProblems(text: string, over?: string): Promise<string[]> {
  const linted = lint(text);
  if (linted.length > 0) return linted;
  const own = parse(text, { merge: true }) as Compose;
  const compose = over === undefined ? own : laidOver(own, parse(over, { merge: true }) as Compose);
  const problems: string[] = variablesIn(text).flatMap((name) => unexplained(text, name));
  for (const [name, service] of Object.entries(compose.services)) {
    if (!Object.hasOwn(own.services, name)) continue;
    const found = [...hardening(service), ...references(service, compose), ...(await contents(service))];
    problems.push(...found.map((problem) => `${name}: ${problem}`));
  }
  return problems;
}

function lint(text: string): string[] {
  const dir = mkdtempSync(join(tmpdir(), 'tributary-compose-'));
  try {
    const path = join(dir, 'compose.yaml');
    writeFileSync(path, text);
    const linter: Linter = new DCLinter({ rules: RULES, quiet: true, debug: false, exclude: [] });
    return linter
      .lintFiles([path], false)
      .flatMap(({ messages }) => messages.map(({ line, message }) => `line ${line}: ${message}`));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function laidOver(own: Compose, base: Compose): Compose {
  const services = Object.entries(own.services).map(
    ([name, service]) => [name, { ...base.services[name], ...service }] as const,
  );
  return { ...base, services: { ...base.services, ...Object.fromEntries(services) } };
}

/** What holds for every container. */
function hardening(service: Service): string[] {
  const dockerfile = dockerfileOf(service);
  return [
    ...(service.read_only === true ? [] : ['its root file system can be written']),
    ...(service.cap_drop?.includes('ALL') ? [] : ['it keeps capabilities']),
    ...(service.security_opt?.includes('no-new-privileges:true') ? [] : ['it may gain privileges']),
    // Our own images are checked for their user; others say theirs here.
    ...(dockerfile !== undefined || /^[1-9]\d*:[1-9]\d*$/.test(service.user ?? '')
      ? []
      : ['it runs as root']),
    ...(dockerfile !== undefined || service.healthcheck?.test !== undefined
      ? []
      : ['it has no health check']),
    ...(/:\d+\.\d+\.\d+/.test(service.image ?? '') ? [] : [`${service.image} is not pinned to a version`]),
  ];
}

/** Names that must be told elsewhere in the file. */
function references(service: Service, compose: Compose): string[] {
  const missing = (kind: string, names: readonly string[], known: object | undefined) =>
    names.filter((name) => !Object.hasOwn(known ?? {}, name)).map((name) => `there is no ${kind} ${name}`);
  const named = mountsOf(service).flatMap(({ source }) => (/^[./$]/.test(source) ? [] : [source]));
  return [
    ...missing('service', Object.keys(service.depends_on ?? {}), compose.services),
    ...missing('volume', named, compose.volumes),
    ...missing('network', service.networks ?? [], compose.networks),
  ];
}

/** Paths, commands, versions and variables against the project. */
async function contents(service: Service): Promise<string[]> {
  const dockerfile = dockerfileOf(service);
  const problems: string[] = [];
  if (service.image?.startsWith('tributary-')) {
    const { version } = manifestOf('packages/cli/package.json');
    if (!service.image.endsWith(`:${version}`)) problems.push(`${service.image}: the project is ${version}`);
    if (dockerfile === undefined || !isThere(dockerfile))
      problems.push(`${service.image}: there is no ${dockerfile ?? 'Dockerfile for it'}`);
  }
  const { build } = service;
  if (build !== undefined && (build.context !== '..' || build.dockerfile !== dockerfile))
    problems.push(`${build.dockerfile} is not the Dockerfile of ${service.image}`);
  problems.push(...Object.keys(service.environment ?? {}).flatMap((name) => variableProblem(name) ?? []));

  const mounts = mountsOf(service);
  for (const { source, target, isReadOnly } of mounts) {
    const path = posix.join('docker', withDefaults(source));
    if (/^[./$]/.test(source) && !isThere(path) && !isMade(path)) problems.push(`there is no ${path}`);
    // A new volume takes its owner from the image's folder; what is only read has one.
    if (isReadOnly || dockerfile === undefined || !isThere(dockerfile)) continue;
    const folders = foldersOf(textOf(dockerfile));
    if (!folders.includes(target)) problems.push(`${target} is no folder of its image`);
  }
  if (service.command === undefined || dockerfile === undefined) return problems;
  const [problem] = [await commandProblem(service.command)];
  if (problem !== undefined) problems.push(problem);
  const places = [
    ...mounts.map(({ target }) => target),
    ...(service.tmpfs ?? []).map((one) => one.split(':')[0]!),
  ];
  const words = service.command.map((word) => word.replace(/^--[a-z-]+=/, ''));
  for (const word of words.filter((one) => one.startsWith('/'))) {
    if (!places.some((place) => word === place || word.startsWith(`${place}/`)))
      problems.push(`${word} is neither in a volume nor in memory`);
  }
  return problems;
}

function mountsOf(service: Service): { source: string; target: string; isReadOnly: boolean }[] {
  return (service.volumes ?? []).map((text) => {
    const [, source = '', target = '', mode] =
      /^((?:\$\{[^}]*\}|[^:])+):([^:]+)(?::(\w+))?$/.exec(text) ?? [];
    return { source, target, isReadOnly: mode === 'ro' };
  });
}

/** Files and folders of the host that a compose file mounts, relative to the root, defaults filled in. */
export function hostPaths(text: string): string[] {
  const { services } = parse(text, { merge: true }) as Compose;
  const sources = Object.values(services).flatMap((service) => mountsOf(service).map(({ source }) => source));
  return sources
    .filter((source) => /^[.$]/.test(source))
    .map((source) => posix.join('docker', withDefaults(source)));
}

/** `docker/worker.Dockerfile` for `tributary-worker:0.1.0`. */
function dockerfileOf({ image = '' }: Service): string | undefined {
  const stem = /^tributary-([a-z-]+):/.exec(image)?.[1];
  return stem === undefined ? undefined : `docker/${stem}.Dockerfile`;
}

/** Made by a command that the how-to page tells. */
function isMade(path: string): boolean {
  const [, command] =
    Object.entries(MADE).find(([folder]) => path === folder || path.startsWith(`${folder}/`)) ?? [];
  return command !== undefined && textOf('docs/how-to/docker.md').includes(command);
}

const withDefaults = (text: string) => text.replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1');

function variablesIn(text: string): string[] {
  const code = text.replaceAll(/^\s*#.*$/gm, '');
  return [...new Set([...code.matchAll(/\$\{?(\w+)/g)].map(([, name]) => name!))];
}

/** A variable of the file itself is told in its comments and on the how-to page. */
function unexplained(text: string, name: string): string[] {
  const told = new RegExp(`^#.*\\b${name}\\b`, 'm').test(text);
  return told && textOf('docs/how-to/docker.md').includes(name)
    ? []
    : [`nobody tells of the variable ${name}`];
}
