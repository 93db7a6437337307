/**
 * Checks of a Dockerfile without a Docker engine: the syntax by a linter, then what we promise of our images, and that
 * every path, command and variable in it is one that the project has.
 */
import { type Copy, DockerfileParser, type From, type JSONInstruction } from 'dockerfile-ast';
import { validate } from 'dockerfile-utils';
import { commandProblem, dockerIgnore, isThere, manifestOf, textOf, variableProblem } from './project.ts';

/** What is wrong with the text of a Dockerfile, a line each. */
export async function dockerfileProblems(text: string): Promise<string[]> {
  const file = DockerfileParser.parse(text);
  const instructions = file.getInstructions();
  const all = (keyword: string) => instructions.filter((one) => one.getKeyword() === keyword);
  const froms = file.getFROMs();
  const last = froms.at(-1);
  if (last === undefined) return ['no FROM'];
  const finalLine = last.getRange().start.line;
  const final = (keyword: string) => all(keyword).filter((one) => one.getRange().start.line > finalLine);

  const linted = validate(text).map(({ message, range }) => `line ${range.start.line + 1}: ${message}`);
  const users = final('USER').map((one) => one.getArgumentsContent() ?? '');
  const copies = all('COPY') as Copy[];
  const [entrypoint] = final('ENTRYPOINT') as JSONInstruction[];
  const [cmd] = final('CMD') as JSONInstruction[];
  const words = [entrypoint, cmd].flatMap((one) => wordsOf(one));
  return [
    ...linted,
    ...froms.flatMap((from) => baseProblems(from, froms)),
    ...(/^(?!root\b|0\b)./.test(users.at(-1) ?? '') ? [] : ['the last stage runs as root']),
    ...(final('HEALTHCHECK').some((one) => !/^NONE/.test(one.getArgumentsContent() ?? ''))
      ? []
      : ['no HEALTHCHECK']),
    ...all('ADD').map(() => 'ADD may fetch from anywhere; COPY does not'),
    ...copies.flatMap((copy) => copyProblems(copy, froms)),
    ...variablesIn(text).flatMap((name) => variableProblem(name) ?? []),
    ...pathsOfImage(text).flatMap((path) => (isThere(path) ? [] : [`/app/${path} is not in the project`])),
    ...versionProblems(text),
    ...(words[0] === 'tributary'
      ? [await commandProblem(words.slice(1))].flatMap((problem) => problem ?? [])
      : ['ENTRYPOINT and CMD do not start tributary']),
  ];
}

/** The folders that an image has for volumes, as its `mkdir -p` names them. */
export function foldersOf(text: string): string[] {
  return [...text.matchAll(/mkdir -p ((?:\/\S+ ?)+)/g)].flatMap(([, paths]) => paths!.trim().split(' '));
}

function baseProblems(from: From, froms: readonly From[]): string[] {
  const image = from.getImage() ?? '';
  if (froms.some((other) => other.getBuildStage() === image)) return [];
  const [tag, digest] = [from.getImageTag() ?? '', from.getImageDigest()];
  return /^\d+\.\d+\.\d+/.test(tag) || digest !== null ? [] : [`${image} is not pinned to a version`];
}

function copyProblems(copy: Copy, froms: readonly From[]): string[] {
  const paths = copy.getArguments().map((argument) => argument.getValue());
  const stage = copy.getFromFlag()?.getValue();
  if (stage !== undefined && stage !== null) {
    return froms.some((from) => from.getBuildStage() === stage) ? [] : [`there is no stage ${stage}`];
  }
  const ignore = dockerIgnore(textOf('.dockerignore'));
  return paths.slice(0, -1).flatMap((path) => {
    if (!isThere(path)) return [`COPY ${path}: it is not in the project`];
    return ignore.ignores(path) ? [`COPY ${path}: .dockerignore keeps it out`] : [];
  });
}

function wordsOf(instruction: JSONInstruction | undefined): string[] {
  const words = instruction?.getJSONStrings().map((word) => word.getJSONValue());
  return words ?? [];
}

function variablesIn(text: string): string[] {
  return DockerfileParser.parse(text)
    .getENVs()
    .flatMap((env) => env.getProperties().map((property) => property.getName()));
}

/** Paths under /app that an instruction names, as they are in the project. */
function pathsOfImage(text: string): string[] {
  const named = [...text.matchAll(/(?<![\w.-])\/app\/([\w./-]+)/g)].map(([, path]) => path!);
  return named.filter((path) => path !== 'node_modules');
}

/** The versions that are named twice in this repository, once here. */
function versionProblems(text: string): string[] {
  const manager = manifestOf('package.json').packageManager?.split('+')[0];
  const { version } = manifestOf('packages/cli/package.json');
  const { peerDependencies: peers = {} } = manifestOf('packages/engine/package.json');
  const wanted: readonly (readonly [found: RegExp, version: string | undefined])[] = [
    [/\bpnpm@[\w.]+/g, manager],
    [/-t tributary-[a-z-]+:\S+/g, `:${version}`],
    [/@tensorflow\/tfjs-node-gpu@[\w.]+/g, `@tensorflow/tfjs-node-gpu@${peers['@tensorflow/tfjs-node-gpu']}`],
  ];
  return wanted.flatMap(([pattern, right]) =>
    [...text.matchAll(pattern)]
      .filter(([found]) => !found.endsWith(right ?? ''))
      .map(([found]) => `${found}: the project has ${right}`),
  );
}
