/**
 * docker/ without a Docker engine: every file is checked statically, every check is shown to fail on a broken sample,
 * and the build's commands and health checks that can run here do.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { createCertificate, serverAddresses } from '@tributary/shared-protocol';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import { DockerfileParser } from 'dockerfile-ast';
import { afterAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { createContext } from '../../packages/cli/src/context.ts';
import { prepareFederation } from '../../packages/cli/src/federation.ts';
import { runCli } from '../../packages/cli/src/program.ts';
import { composeProblems, hostPaths } from './docker/compose-files.ts';
import { dockerfileProblems } from './docker/dockerfiles.ts';
import { dockerIgnore, isThere, ROOT, textOf } from './docker/project.ts';

const carryOut = promisify(execFile);
const dir = mkdtempSync(join(tmpdir(), 'tributary-docker-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const files = readdirSync(join(ROOT, 'docker')).map((name) => `docker/${name}`);
const dockerfiles = files.filter((path) => path.endsWith('.Dockerfile'));
const composeFiles = files.filter((path) => /\/compose.*\.yaml$/.test(path));
/** Compose files that only add to another. */
const OVER: Readonly<Record<string, string>> = { 'docker/compose.cuda.yaml': 'docker/compose.yaml' };

/** The files, relative to the root, that a `nats-config` would write there. */
async function writtenBy(words: readonly string[]): Promise<string[]> {
  const out: string[] = [];
  const stream = { write: (text: string) => out.push(text) };
  const { signal } = new AbortController();
  const context = createContext({ cwd: dir, env: {}, stdout: stream, stderr: stream, signal });
  expect(await runCli([...words, '--json'], context), out.join('')).toBe(0);
  const { dir: folder, files: paths } = JSON.parse(out.join('')) as { dir: string; files: string[] };
  return paths.map((path) => relative(dir, join(folder, path)));
}

/** A file's text with one thing changed, which must be in it. */
function broken(path: string, from: string | RegExp, to: string): string {
  const text = textOf(path);
  const changed = text.replace(from, to);
  expect(changed, `${from} is in ${path}`).not.toBe(text);
  return changed;
}

describe('Dockerfiles', () => {
  test('there is one for the coordinator, for a worker and for a worker on a GPU', () => {
    expect(dockerfiles).toEqual([
      'docker/coordinator.Dockerfile',
      'docker/worker-cuda.Dockerfile',
      'docker/worker.Dockerfile',
    ]);
  });

  test.each(dockerfiles)('%s: nothing is wrong with it', async (path) => {
    expect(await dockerfileProblems(textOf(path))).toEqual([]);
  });

  test.each<[what: string, from: string | RegExp, to: string, problem: string]>([
    ['an unknown instruction', 'WORKDIR /app', 'WORKDIRR /app', 'Unknown instruction'],
    ['an unknown flag of an instruction', '--interval=30s', '--intervall=30s', 'Unknown flag'],
    ['a base without a version', /node:20.20.2-bookworm-slim AS build/, 'node:lts AS build', 'not pinned'],
    ['a root user', 'USER node', 'USER root', 'runs as root'],
    ['no user', 'USER node', '', 'runs as root'],
    ['no health check', /HEALTHCHECK.*\n.*\n/, '', 'no HEALTHCHECK'],
    ['a path that is not there', 'COPY packages ./', 'COPY package ./', 'not in the project'],
    ['a path that is kept out', 'COPY packages ./', 'COPY docs ./', '.dockerignore'],
    ['a stage that is not there', '--from=build', '--from=builder', 'no stage builder'],
    ['a file of the image that is not there', 'bin/tributary.js', 'bin/tributary', 'not in the project'],
    ['another pnpm', 'pnpm@10.34.9', 'pnpm@9.0.0', 'the project has pnpm@10'],
    ['a variable that nothing reads', 'TRIBUTARY_HOME=', 'TRIBUTARY_STATE=', 'TRIBUTARY_STATE'],
    ['an unknown command', 'CMD ["join"', 'CMD ["joyn"', 'unknown command'],
    ['an unknown flag of ours', '"--pulse"', '"--puls"', "unknown option '--puls'"],
    ['a flag of ours that is missing', '"--data", "/data", ', '', "'--data <dir>' not specified"],
  ])('%s is found', async (_what, from, to, problem) => {
    const problems = await dockerfileProblems(broken('docker/worker.Dockerfile', from, to));
    expect(problems.join('\n')).toContain(problem);
  });

  test('all take the same Node, which the packages and tfjs-node-gpu can run on', () => {
    const tags = dockerfiles.flatMap((path) =>
      DockerfileParser.parse(textOf(path))
        .getFROMs()
        .filter((from) => from.getImageName() === 'node')
        .map((from) => from.getImageTag()),
    );
    expect(new Set(tags).size).toBe(1);
    // package.json asks for 20.19 or later; tfjs-node-gpu 4.22.0 calls util.isNullOrUndefined, gone with Node 23.
    expect(tags[0]).toMatch(/^(20\.(19|[2-9]\d)|22)\.\d/);
  });
});

describe('the build context', () => {
  const ignore = dockerIgnore(textOf('.dockerignore'));
  test.each([
    '.git/config',
    'node_modules/x/index.js',
    'packages/cli/node_modules/x/index.js',
    'packages/cli/dist/main.js',
    'packages/cli/test/support.ts',
    'runs/digits/admin.key',
    'examples/digits/data/north/train/0/0001.png',
    'docker/nats/coordinator.nk',
    'docker/compose.yaml',
    'demo/data',
  ])('%s does not travel', (path) => {
    expect(ignore.ignores(path)).toBe(true);
  });
  test.each(['package.json', 'pnpm-lock.yaml', 'packages/cli/src/main.ts', 'docker/health.mjs'])(
    '%s does',
    (path) => {
      expect(ignore.ignores(path)).toBe(false);
      expect(isThere(path)).toBe(true);
    },
  );
});

describe('compose files', () => {
  test('the federations that are mounted are ones that the coordinator takes, and differ in the address', async () => {
    const [own, nats] = await Promise.all(
      ['docker/federation.yaml', 'docker/federation.nats.yaml'].map(
        async (path) => (await prepareFederation(join(ROOT, path), ROOT, {})).federation,
      ),
    );
    expect(own).toMatchObject({ rounds: 12, server: { port: 7700, publicUrl: 'https://coordinator:7700' } });
    expect({ ...nats, server: own!.server }).toEqual(own);
    const { services } = parse(textOf('docker/compose.nats.yaml'), { merge: true }) as {
      services: Record<string, { volumes: string[] }>;
    };
    const mounted = services['coordinator']!.volumes.map((volume) => volume.split(':')[1]);
    expect(mounted).toContain(nats!.server.nats?.credentials);
    expect(mounted).toContain(nats!.server.nats?.ca);
    for (const host of serverAddresses(nats!.server.nats!.url).map((url) => new URL(url).hostname))
      expect(Object.keys(services)).toContain(host);
  });

  test('the command in compose.nats.yaml writes every file that it mounts, for the hosts that it names', async () => {
    const text = textOf('docker/compose.nats.yaml');
    const [, words = ''] = /^# {3}npx tributary (nats-config .*)$/m.exec(text) ?? [];
    expect(textOf('docs/how-to/docker.md')).toContain(`npx tributary ${words}`);
    const written = await writtenBy(words.split(' '));
    const mounted = hostPaths(text).filter((path) => path.startsWith('docker/nats/'));
    expect(mounted.length).toBeGreaterThanOrEqual(3 + 4 + 3);
    for (const path of mounted)
      expect(
        written.some((file) => file === path || file.startsWith(`${path}/`)),
        path,
      ).toBe(true);
  });

  test.each(composeFiles)('%s: nothing is wrong with it', async (path) => {
    const over = OVER[path];
    expect(await composeProblems(textOf(path), over === undefined ? over : textOf(over))).toEqual([]);
  });

  test.each<[what: string, from: string | RegExp, to: string, problem: string]>([
    ['what the specification does not know', 'read_only: true', 'readonly: true', 'additional properties'],
    ['a root file system that can be written', 'read_only: true', 'read_only: false', 'can be written'],
    ['capabilities', 'cap_drop: [ALL]', 'cap_drop: [NET_RAW]', 'keeps capabilities'],
    ['an image of another version', 'tributary-worker:0.1.0', 'tributary-worker:0.0.9', 'the project is'],
    ['an image without a version', 'tributary-worker:0.1.0', 'tributary-worker', 'version'],
    ['an image that nobody builds', 'tributary-worker:0.1.0', 'tributary-wörker:0.1.0', 'root'],
    ['another Dockerfile', 'docker/worker.Dockerfile', 'docker/w.Dockerfile', 'is not the Dockerfile'],
    ['a file that is not there', './federation.yaml:', './federation.yml:', 'no docker/federation.yml'],
    ['a volume that is not there', '- runs:/federation', '- run:/federation', 'no volume run'],
    ['a service that is not there', '      coordinator: {', '      lead: {', 'no service lead'],
    ['a folder that the image lacks', 'north-state:/state', 'north-state:/states', 'no folder of its image'],
    ['a path outside of volumes', '"/tmp/pulse"', '"/var/pulse"', 'neither in a volume'],
    ['an unknown command', '["coordinator"]', '["coordinate"]', 'unknown command'],
    ['an unknown flag', '"--uses"', '"--users"', "unknown option '--users'"],
    ['a variable that nobody tells of', '${DATA:-', '${IMAGES:-', 'variable IMAGES'],
  ])('%s is found', async (_what, from, to, problem) => {
    const problems = await composeProblems(broken('docker/compose.yaml', from, to));
    expect(problems.join('\n')).toContain(problem);
  });

  test.each<[what: string, from: string | RegExp, to: string, problem: string]>([
    ['another image’s root user', '  user: "1000:1000"\n', '', 'runs as root'],
    ['another image without a version', 'nats:2.11.6-alpine', 'nats:latest', 'version'],
    [
      'another image without a check',
      / {2}healthcheck:\n {4}test: \["CMD", "wget".*\n.*\n.*\n.*\n/,
      '',
      'no health check',
    ],
    ['a network that is not there', 'networks: [lead]', 'networks: [led]', 'no network led'],
    [
      'a path of nobody’s',
      '--nats-credentials=/keys/site.nk',
      '--nats-credentials=/key/site.nk',
      '/key/site.nk',
    ],
    ['a folder that nobody makes', './nats/ca.pem:', './nat/ca.pem:', 'no docker/nat/ca.pem'],
  ])('%s is found', async (_what, from, to, problem) => {
    const problems = await composeProblems(broken('docker/compose.nats.yaml', from, to));
    expect(problems.join('\n')).toContain(problem);
  });
});

describe('health checks', () => {
  const health = (url: string) => carryOut(process.execPath, [join(ROOT, 'docker/health.mjs'), url]);

  test('the coordinator’s: its listener answers, over TLS and without; else the exit code says no', async () => {
    const tls = await createCertificate(['127.0.0.1']);
    for (const one of [tls, false as const]) {
      const listener = await createSocketioTransport({ tls: one }).listen(() => {});
      await health(`${listener.url}/health`);
      await expect(health(`${listener.url}/other`)).rejects.toMatchObject({ code: 1 });
      await listener.close();
      await expect(health(`${listener.url}/health`)).rejects.toMatchObject({ code: 1 });
    }
  });

  test('a worker’s: the command of its Dockerfile holds a young pulse for healthy, and no other', async () => {
    const text = textOf('docker/worker.Dockerfile');
    const command = /HEALTHCHECK[^\n]*\\\n {2}CMD (.*)/.exec(text)?.[1];
    expect(command).toContain('/tmp/pulse');
    const pulse = join(dir, 'pulse');
    const check = () => carryOut('sh', ['-c', command!.replace('/tmp/pulse', pulse)]);
    await expect(check()).rejects.toMatchObject({ code: 1 });
    writeFileSync(pulse, '');
    await check();
    const minutes = (count: number) => Date.now() / 1000 + 60 * count;
    utimesSync(pulse, minutes(-10), minutes(-10));
    await expect(check()).rejects.toMatchObject({ code: 1 });
    // At rest until two hours from now.
    utimesSync(pulse, minutes(120), minutes(120));
    await check();
  });
});
