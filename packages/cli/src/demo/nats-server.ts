/** The demo's own NATS server: a real nats-server process on a free port, with TLS and a key for each node. */
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { CliError } from '../errors.ts';
import { COORDINATOR_KEY, natsConfig, SERVER_CONFIG, siteKey } from '../nats-config.ts';

export interface DemoNatsServer {
  /** `tls://127.0.0.1:PORT/digits` */
  readonly url: string;
  /** Absolute paths. */
  readonly coordinatorKey: string;
  readonly certificate: string;
  keyOf(site: string): string;
  stop(): Promise<void>;
}

const PREFIX = 'digits';

/** Writes its files into `dir` and starts it. Throws FED_CLI_NATS_SERVER_MISSING, or FED_CLI_DEMO_PROCESS when it ends. */
export async function startDemoNatsServer(dir: string, sites: readonly string[]): Promise<DemoNatsServer> {
  const { files, authority } = await natsConfig({
    prefix: PREFIX,
    sites,
    servers: [{ name: 'demo', dial: { host: '127.0.0.1', port: -1 }, listenHost: '127.0.0.1' }],
  });
  for (const { path, text, secret } of files) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), text, { mode: secret ? 0o600 : 0o644 });
  }
  // A group of its own: Ctrl-C reaches the demo alone, which then ends its sites and the server in order.
  const child = spawn('nats-server', ['-c', SERVER_CONFIG], {
    cwd: dir,
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const port = await new Promise<number>((resolve, reject) => {
    const said: string[] = [];
    let seen = 0;
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (said.length < 50) said.push(line);
      seen = Number(/Listening for client connections on .*:(\d+)/.exec(line)?.[1] ?? seen);
      if (line.includes('Server is ready')) resolve(seen);
    });
    child.once('error', (cause) => reject(missing(cause)));
    child.once('exit', () =>
      reject(
        new CliError(
          'FED_CLI_DEMO_PROCESS',
          `nats-server ended at once: ${said.at(-1) ?? 'it said nothing'}`,
          {
            where: join(dir, SERVER_CONFIG),
          },
        ),
      ),
    );
  });
  return {
    url: `tls://127.0.0.1:${port}/${PREFIX}`,
    coordinatorKey: join(dir, COORDINATOR_KEY),
    certificate: join(dir, authority),
    keyOf: (site) => join(dir, siteKey(site)),
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function missing(cause: Error): CliError {
  return new CliError('FED_CLI_NATS_SERVER_MISSING', 'The program nats-server is not installed.', {
    todo: 'Install it (Debian and Ubuntu: apt-get install nats-server) and run the demo again.',
    cause,
  });
}
