/** What the project has, for the checks of docker/: its commands, its files, the variables that it reads. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ignore from '@balena/dockerignore';
import { createContext } from '../../../packages/cli/src/context.ts';
import { createProgram } from '../../../packages/cli/src/program.ts';

interface Manifest {
  readonly version?: string;
  readonly packageManager?: string;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

export const textOf = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
export const manifestOf = (path: string): Manifest => JSON.parse(textOf(path)) as Manifest;
export const isThere = (path: string): boolean => existsSync(join(ROOT, path));

/** Variables that other programs in the images read, and which. */
const OTHERS: Readonly<Record<string, string>> = {
  CI: 'pnpm',
  NODE_ENV: 'Node packages',
  NVIDIA_VISIBLE_DEVICES: 'NVIDIA container toolkit',
  NVIDIA_DRIVER_CAPABILITIES: 'NVIDIA container toolkit',
  CUDA_CACHE_PATH: 'NVIDIA driver',
};

let sources: string | undefined;

/** Why a variable that is set for a process is not read by anything in it, or undefined. */
export function variableProblem(name: string): string | undefined {
  sources ??= execFileSync('git', ['grep', '-h', '-F', 'env', '--', 'packages/*/src/*'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  if (Object.hasOwn(OTHERS, name) || sources.includes(`'${name}'`)) return undefined;
  return `nothing reads the variable ${name}`;
}

/** What is wrong with a command line (without `tributary`), or undefined. Nothing is carried out. */
export async function commandProblem(words: readonly string[]): Promise<string | undefined> {
  const stream = { write: () => true };
  const { signal } = new AbortController();
  const program = createProgram(
    createContext({ cwd: ROOT, env: {}, stdout: stream, stderr: stream, signal }),
    () => {},
  );
  for (const command of program.commands) command.action(() => {});
  try {
    await program.parseAsync([...words], { from: 'user' });
    return undefined;
  } catch (error) {
    return `tributary ${words.join(' ')}: ${(error as Error).message}`;
  }
}

interface Ignore {
  ignores(path: string): boolean;
}

/** What .dockerignore keeps out of the build context. */
export function dockerIgnore(text: string): Ignore {
  return ignore.default().add(text);
}
