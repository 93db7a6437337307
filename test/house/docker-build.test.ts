/**
 * The first half of an image, built without a Docker engine: what its Dockerfile copies and runs is copied and run in a
 * folder, and the program that comes out must find all that it needs there. Packages that only development has are gone.
 */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { type Copy, DockerfileParser } from 'dockerfile-ast';
import { afterAll, describe, expect, test } from 'vitest';
import { dockerIgnore, ROOT, textOf } from './docker/project.ts';

const carryOut = promisify(execFile);
const app = mkdtempSync(join(tmpdir(), 'tributary-image-'));
afterAll(() => rmSync(app, { recursive: true, force: true, maxRetries: 5 }));

describe('docker/worker.Dockerfile', () => {
  const file = DockerfileParser.parse(textOf('docker/worker.Dockerfile'));
  const [, second] = file.getFROMs();
  const instructions = file.getInstructions();
  const firstHalf = instructions.filter((one) => one.getRange().start.line < second!.getRange().start.line);

  test('its build carries out, and every engine that comes with it starts', {
    timeout: 600_000,
  }, async () => {
    const ignore = dockerIgnore(textOf('.dockerignore'));
    const env: NodeJS.ProcessEnv = { PATH: process.env['PATH'], HOME: process.env['HOME'] };
    for (const instruction of firstHalf) {
      const text = instruction.getArgumentsContent() ?? '';
      switch (instruction.getKeyword()) {
        case 'COPY': {
          const paths = instruction.getArguments().map((argument) => argument.getValue());
          const target = join(app, paths.at(-1)!);
          for (const path of paths.slice(0, -1)) {
            const into = paths.length > 2 ? join(target, path) : target;
            const filter = (source: string) => !ignore.ignores(relative(ROOT, source));
            cpSync(join(ROOT, path), into, { recursive: true, filter });
          }
          break;
        }
        case 'ENV':
          for (const pair of text.split(' ')) env[pair.split('=')[0]!] = pair.split('=')[1];
          break;
        case 'RUN':
          await carryOut('sh', ['-c', text.replaceAll(/\\\n/g, ' ')], { cwd: app, env, maxBuffer: 1 << 26 });
          break;
        default:
          expect(['FROM', 'WORKDIR']).toContain(instruction.getKeyword());
      }
    }
    for (const copy of instructions.filter((one) => one.getKeyword() === 'COPY') as Copy[]) {
      if (copy.getFromFlag()?.getValue() !== 'build') continue;
      const [path] = copy.getArguments();
      expect(existsSync(join(app, path!.getValue().replace('/app/', '')))).toBe(true);
    }
    expect(existsSync(join(app, 'node_modules/.pnpm/node_modules/vitest'))).toBe(false);

    const program = join(app, 'packages/cli/bin/tributary.js');
    const { stdout } = await carryOut(process.execPath, [program, 'doctor', '--json', '--no-speed'], { env });
    const { engines } = JSON.parse(stdout) as { engines: { name: string; state: string; chosen: boolean }[] };
    const ready = engines.filter(({ state }) => state === 'ready').map(({ name }) => name);
    expect(ready).toEqual(['onnxruntime', 'wasm', 'cpu']);
    // What is loaded only when it is used: both transports and images.
    for (const command of [
      ['coordinator', '--help'],
      ['join', '--help'],
      ['nats-config', '--sites', 'a'],
    ])
      await carryOut(process.execPath, [program, ...command], { env, cwd: app });
  });
});

test('the three images are built alike, but for what tfjs-node-gpu adds', () => {
  const buildOf = (path: string) =>
    textOf(path)
      .split('\nFROM ')[1]!
      .replaceAll(/^#.*\n/gm, '');
  const [coordinator, worker, cuda] = ['coordinator', 'worker', 'worker-cuda'].map((name) =>
    buildOf(`docker/${name}.Dockerfile`),
  );
  expect(worker).toBe(coordinator);
  const added = /&& npx --yes pnpm@\S+ --filter tributary add [^&]*(?=&&)/;
  expect(cuda).toMatch(added);
  expect(cuda!.replace(added, '')).toBe(worker);
});
